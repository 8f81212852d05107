//! Settings of the tests in this folder: their length, the seed that replays them, and `fsck` of their stores.
//!
//! Owns: [`number`], [`seed`], [`fsck`]. Refuses: a setting that cannot be parsed; it fails the test instead of
//! becoming a default.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use tonnage_tests::process::program;

/// Returns the environment variable `name` as a number.
pub fn number(name: &str) -> Result<Option<u64>, String> {
    let Ok(value) = std::env::var(name) else {
        return Ok(None);
    };
    value
        .parse()
        .map(Some)
        .map_err(|e| format!("{name}={value}: {e}"))
}

/// Returns `TONNAGE_TEST_SEED`, else a seed from the clock.
pub fn seed() -> Result<u64, String> {
    Ok(number("TONNAGE_TEST_SEED")?.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |since| since.as_secs())
    }))
}

/// Runs `tonnage fsck`, which must have no findings.
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
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("fsck {when}: {}: {said}{stderr}", output.status));
    }
    let report: Result<serde_json::Value, _> = serde_json::from_str(&said);
    report
        .map(drop)
        .map_err(|e| format!("fsck {when} printed no JSON ({e}): {said}"))
}
