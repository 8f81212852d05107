//! The command line: streams, exit codes, messages.

use std::path::Path;
use std::process::Command;

use crate::serving::{run, tonnage};

fn write(directory: &Path, text: &str) -> String {
    let path = directory.join("tonnage.toml");
    std::fs::write(&path, text).expect("a file in a temporary directory");
    path.to_str().expect("UTF-8").to_owned()
}

/// Guards: a file with three errors gets three reports, each with its line, and exit code 1.
#[test]
fn three_errors_are_three_reports_with_lines() {
    let directory = tempfile::tempdir().unwrap();
    let text =
        "lisen = \"127.0.0.1:5000\"\n\n[storage]\nspill_threshold = \"8 MB\"\nupload_ttl = 3600\n";
    let file = write(directory.path(), text);
    let (code, stdout, stderr) = run(&mut tonnage(&["check-config", "--config", &file]));
    assert_eq!(code, 1, "{stderr}");
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{stdout}");
    assert!(
        lines[0].starts_with(&format!("{file}:1: ")) && lines[0].contains("did you mean `listen`?"),
        "{stdout}"
    );
    assert!(
        lines[1].starts_with(&format!("{file}:4: ")) && lines[1].contains("8 MiB"),
        "{stdout}"
    );
    assert!(
        lines[2].starts_with(&format!("{file}:5: ")) && lines[2].contains("numbers with units"),
        "{stdout}"
    );
    assert!(lines[3].starts_with("3 errors in "), "{stdout}");
}

/// Guards: the JSON report has a version, and the same errors and lines as the text.
#[test]
fn check_config_reports_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "\nlog = 3\nx = \n");
    let (code, stdout, _) = run(&mut tonnage(&["check-config", "--json", "--config", &file]));
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (code, &report["version"], &report["ok"]),
        (1, &1.into(), &false.into())
    );
    let lines: Vec<_> = report["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["at"]["line"])
        .collect();
    assert!(
        lines.contains(&&2.into()) && lines.contains(&&3.into()),
        "{stdout}"
    );
}

/// Guards: a valid configuration is reported as such, with exit code 0 and nothing on standard error.
#[test]
fn a_clean_configuration_passes() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "[log]\nlevel = \"debug\"\n");
    let (code, stdout, stderr) = run(&mut tonnage(&["check-config", "--config", &file]));
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert!(stdout.starts_with("no errors"), "{stdout}");
}

/// Guards: a missing file is an error with its path, not a default.
#[test]
fn a_missing_file_is_reported() {
    let (code, stdout, _) = run(&mut tonnage(&[
        "check-config",
        "--config",
        "/nowhere/tonnage.toml",
    ]));
    assert_eq!(code, 1);
    assert!(
        stdout.starts_with("/nowhere/tonnage.toml: cannot be read"),
        "{stdout}"
    );
}

/// Guards: precedence is flag, variable, file, default, and `config show` names the source.
#[test]
fn config_show_names_the_source_of_every_value() {
    let directory = tempfile::tempdir().unwrap();
    let text = "drain_timeout = \"1m\"\n[log]\nlevel = \"warn\"\nformat = \"json\"\n";
    let file = write(directory.path(), text);
    let (code, stdout, stderr) =
        run(
            tonnage(&["config", "show", "--config", &file, "--log-level", "error"])
                .env("TONNAGE_LOG_LEVEL", "debug")
                .env("TONNAGE_LOG_FORMAT", "text"),
        );
    assert_eq!(code, 0, "{stderr}");
    let has = |key: &str, value: &str, source: &str| {
        let line = stdout
            .lines()
            .find(|line| line.starts_with(&format!("{key} ")))
            .unwrap();
        assert!(line.contains(&format!(" = {value} ")), "{line}");
        assert!(line.contains(&format!("# {source}: ")), "{line}");
    };
    has("log.level", "error", "--log-level");
    has("log.format", "text", "TONNAGE_LOG_FORMAT");
    has("drain_timeout", "1m", &format!("{file}:1"));
    has("listen", "127.0.0.1:5000", "default");
}

/// Guards: JSON values are numbers that a program can use, with their source and a version.
#[test]
fn config_show_as_json_has_numbers_and_sources() {
    let mut command = tonnage(&["config", "show", "--json"]);
    let (code, stdout, _) = run(command.env("TONNAGE_STORAGE_SPILL_THRESHOLD", "1 MiB"));
    let listing: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &listing["version"]), (0, &1.into()));
    let options = listing["options"].as_array().unwrap();
    let spill = options
        .iter()
        .find(|o| o["key"] == "storage.spill_threshold")
        .unwrap();
    assert_eq!(spill["value"], 1_048_576);
    assert_eq!(spill["source"]["name"], "TONNAGE_STORAGE_SPILL_THRESHOLD");
}

/// Guards: `TONNAGE_CONFIG` names the file, and `--config` takes precedence.
#[test]
fn the_file_is_named_by_flag_or_variable() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "[log]\nlevel = \"warn\"\n");
    let (_, stdout, _) = run(tonnage(&["config", "show"]).env("TONNAGE_CONFIG", &file));
    assert!(stdout.contains(&format!("# {file}:2: ")), "{stdout}");
    let mut command = tonnage(&["config", "show", "--config", &file]);
    let (code, _, stderr) = run(command.env("TONNAGE_CONFIG", "/nowhere"));
    assert_eq!(code, 0, "{stderr}");
}

/// Guards: a misspelt variable causes a warning on standard error and changes nothing. Variables that Kubernetes
/// injects for a service named `tonnage` cause none.
#[test]
fn unknown_variables_warn_and_injected_ones_do_not() {
    let mut command = tonnage(&["config", "show"]);
    let (code, _, stderr) = run(command
        .env("TONNAGE_LSITEN", "0.0.0.0:5000")
        .env("TONNAGE_PORT", "tcp://10.0.0.1:5000")
        .env("TONNAGE_PORT_5000_TCP", "tcp://10.0.0.1:5000")
        .env("TONNAGE_SERVICE_HOST", "10.0.0.1")
        .env("TONNAGE_TEST_FULL", "1"));
    assert_eq!(code, 0);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.starts_with("warning: TONNAGE_LSITEN") && stderr.contains("TONNAGE_LISTEN"),
        "{stderr}"
    );
}

/// Guards: usage errors, invalid values included, end with 2 and print nothing on standard output.
#[test]
fn usage_errors_end_with_two() {
    for arguments in [
        &["no-such-command"][..],
        &["config", "show", "--no-such-flag"],
        &["config", "show", "--listen", "nowhere"],
        &["config", "show", "--listen", "0.0.0.0:5000"],
    ] {
        let (code, stdout, stderr) = run(&mut tonnage(arguments));
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        assert!(!stderr.is_empty());
    }
}

/// Guards: `--help` documents the exit codes, and every option with its variable.
#[test]
fn help_documents_exit_codes_and_variables() {
    let (code, stdout, _) = run(&mut tonnage(&["--help"]));
    assert_eq!(code, 0);
    assert!(stdout.contains("Exit codes"), "{stdout}");
    let (_, stdout, _) = run(&mut tonnage(&["check-config", "--help"]));
    assert!(stdout.contains("TONNAGE_STORAGE_LEASE_GRACE"), "{stdout}");
}

/// Guards: if nothing listens at the address, `smoke` ends with the exit code for the network and says what to check.
#[test]
fn smoke_reports_a_missing_server() {
    // A port for privileged programs, on which nothing listens.
    let url = "http://127.0.0.1:1";
    let (code, stdout, stderr) = run(&mut tonnage(&["smoke", url, "--size", "1 MiB"]));
    assert_eq!(code, 4, "{stdout}");
    assert!(
        stdout.contains("FAILED") && stderr.contains(url),
        "{stderr}"
    );
}

/// Guards: `inspect` names a damaged copy of the superblock and ends with 1, and never prints the secret key.
#[test]
fn inspect_names_damage_and_hides_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("superblock");
    let superblock = tonnage_engine::format::superblock::Superblock {
        store_id: [0xab; 16],
        hash_key: [0xcd; 16],
        compatible: 0,
        read_only_compatible: 0,
        incompatible: 0,
        created_unix_ms: 1_700_000_000_123,
    };
    let mut bytes = superblock.encode();
    std::fs::write(&path, &bytes).unwrap();
    let inspect = |json: &[&str]| run(tonnage(&["inspect"]).arg(&path).args(json));
    let (code, stdout, _) = inspect(&[]);
    assert_eq!(code, 0, "{stdout}");
    assert!(
        stdout.contains(&"ab".repeat(16)) && !stdout.contains("cdcd"),
        "{stdout}"
    );
    assert!(
        stdout.contains("created: 2023-11-14T22:13:20.123Z"),
        "{stdout}"
    );
    bytes[2 * 4096 + 100] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (code, stdout, _) = inspect(&["--json"]);
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &report["version"]), (1, &1.into()));
    let problems = report["files"][0]["problems"].as_array().unwrap();
    assert!(
        problems.len() == 1 && problems[0].as_str().unwrap().contains("copy 2"),
        "{stdout}"
    );
}

/// Guards: a file of another program is reported as such. A missing file or a FIFO ends with the exit code for the
/// disk.
#[test]
fn inspect_refuses_what_is_not_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "not a store");
    let (code, stdout, _) = run(&mut tonnage(&["inspect", &file]));
    assert_eq!(code, 1);
    assert!(stdout.contains("does not begin with the magic"), "{stdout}");
    let (code, _, stderr) = run(&mut tonnage(&["inspect", "/nowhere/superblock"]));
    assert!(
        code == 3 && stderr.contains("/nowhere/superblock"),
        "{code} {stderr}"
    );
    let fifo = directory.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let (code, _, stderr) = run(tonnage(&["inspect"]).arg(&fifo));
    assert!(code == 3 && stderr.contains("regular"), "{code} {stderr}");
}
