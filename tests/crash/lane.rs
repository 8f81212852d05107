//! What the lanes of this folder share: how long they are, the seed that replays them, `fsck` of what they leave.
//!
//! Owns: [`number`], [`seed`], [`fsck`]. Refuses: a setting that cannot be read; it fails the lane instead of being a default.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use tonnage_tests::process::program;

/// The environment variable `name`.
pub fn number(name: &str) -> Result<Option<u64>, String> {
    let Ok(value) = std::env::var(name) else {
        return Ok(None);
    };
    value
        .parse()
        .map(Some)
        .map_err(|e| format!("{name}={value}: {e}"))
}

/// `TONNAGE_TEST_SEED`, else one of the moment.
pub fn seed() -> Result<u64, String> {
    Ok(number("TONNAGE_TEST_SEED")?.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |since| since.as_secs())
    }))
}

/// `tonnage fsck`, which must find nothing.
pub fn fsck(data: &Path, when: &str) -> Result<(), String> {
    let mut command = Command::new(program()?);
    command
        .arg("fsck")
        .arg("--data")
        .arg(data)
        .arg("--json")
        .stdin(Stdio::null());
    let output = command.output().map_err(|e| format!("run fsck: {e}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(format!("fsck {when}: {}: {said}{complaint}", output.status));
    }
    let report: Result<serde_json::Value, _> = serde_json::from_str(&said);
    report
        .map(drop)
        .map_err(|e| format!("fsck {when} printed no JSON ({e}): {said}"))
}
