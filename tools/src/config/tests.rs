//! Tests of the meaning of configurations, and of their errors.

use clap::{Args as _, Command, FromArgMatches as _};

use super::error::{Source, nearest};
use super::reader::Given;
use super::*;

/// Loads a configuration from the file `t`, these variables and these flags.
fn load_all(text: &str, variables: &[(&str, &str)], flags: &[&str]) -> Loaded {
    let command = ConfigFlags::augment_args(Command::new("test").no_binary_name(true));
    let flags = command.get_matches_from(["--config", "t"].iter().chain(flags));
    let flags = ConfigFlags::from_arg_matches(&flags).unwrap();
    let pairs = variables.iter();
    let pairs = pairs.map(|(name, value)| (name.into(), value.into()));
    load_from(&flags, pairs, |path| Ok(ConfigFile::new(path, text)))
}

fn shown(errors: &[ConfigError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Guards: a flag overrides a variable, a variable the file, the file the default; for each option on its own.
#[test]
fn the_sources_have_an_order() {
    let effective = |variables: &[_], flags: &[_], key: &str| {
        let loaded = load_all(
            "\nlog.level = 'warn'\nlog.format = 'json'",
            variables,
            flags,
        );
        let mut options = loaded.options.iter();
        let option = options.find(|option| option.key == key).unwrap();
        format!("{} from {}", option.value, option.source)
    };
    let variable = [("TONNAGE_LOG_LEVEL", "debug")];
    let flags = ["--log-level", "error", "--insecure-anonymous"];
    for (found, expected) in [
        (effective(&[], &[], "io"), "auto from default"),
        (effective(&[], &[], "log.level"), "warn from t:2"),
        (
            effective(&variable, &[], "log.level"),
            "debug from TONNAGE_LOG_LEVEL",
        ),
        (effective(&variable, &[], "log.format"), "json from t:3"),
        (
            effective(&variable, &flags, "log.level"),
            "error from --log-level",
        ),
        (
            effective(&[], &flags, "insecure_anonymous"),
            "true from --insecure-anonymous",
        ),
    ] {
        assert_eq!(found, expected);
    }
}

/// Guards: every accepted form of a value, its output, and that the output is accepted again.
#[test]
fn values_are_shown_as_they_can_be_typed() {
    for case in [
        "log = { level = 'warn' } -> warn",
        "listen = '[::1]:5000' -> [::1]:5000",
        "admin_listen = 'off' -> off",
        "insecure_anonymous = true -> true",
        "sparse_repositories = ['a/b', 'mirror/*'] -> a/b,mirror/*",
        "sparse_repositories = [] -> none",
        "collection.untagged = ['a/b=keep', '*=36h'] -> a/b=keep,*=36h",
        "mirror_of = 'docker.io, [::1]:5000' -> docker.io,[::1]:5000",
        "hostnames = ['*', 'A.example', '[::1]'] -> *,a.example,::1",
        "locations = 'https://a.example' -> https://a.example",
        "tls.acme = ['A.example', '[2001:db8::1]'] -> a.example,2001:db8::1",
        "drain_timeout = '90s' -> 1m30s",
        "worker_threads = 3 -> 3",
        "storage.read_budget = 8388608 -> 8 MiB",
        "storage.read_budget = '4MiB' -> 4 MiB",
    ] {
        let (text, value) = case.split_once(" -> ").unwrap();
        let loaded = load_all(text, &[], &[]);
        assert_eq!(shown(&loaded.errors), [""; 0]);
        let is_set = |option: &&OptionInfo| option.source != Source::Default;
        let option = loaded.options.iter().find(is_set).unwrap();
        let again = load_all("", &[(&option.variable(), value)], &[]);
        let again = again.options.iter().find(is_set).unwrap();
        assert_eq!([&option.value, &again.value], [value, value], "{case}");
    }
}

/// Guards: every error is reported with its line, what is wrong and what to write, also in a value that a flag
/// overrides.
#[test]
fn every_error_is_reported() {
    let text = "\
        listen = 'localhost:5000'
        admin_listen = ['127.0.0.1:1']
        lisen = 'a'
        data = ''
        hostnames = ['a.example', 'a.example:5000']
        mirror_of = ['docker.io', 'https://docker.io']
        sparse_repositories = ['a,,b']
        io = 'fast'
        drain_timeout = 2024-01-01
        log = 3
        upload_ttl = '1h'
        [storage]
        read_budget = '8 MB'
        staging_budget = '1 MiB'
        spill = 1
        [collection]
        grace = 3600
        [limits]
        connections = 1.5
        uploads = 1000001
        x =";
    let expected = "\
        t:1: listen: invalid value `localhost:5000`; write an IP address and a port, such as 127.0.0.1:5000 or [::]:5000
        t:2: admin_listen: an array; write one value
        t:3: unknown option `lisen`; did you mean `listen`?
        t:4: data: invalid value ``; write a path
        t:5: hostnames: invalid value `a.example:5000`; write a host without a port, such as registry.example or 10.0.0.7, or * for any
        t:6: mirror_of: invalid value `https://docker.io`; write a registry as clients name it, such as docker.io or registry.example:5000
        t:7: sparse_repositories: invalid value ``; write a repository such as team/app, team/* for all below it, or * for all
        t:8: io: invalid value `fast`; write auto or threads or io_uring
        t:9: drain_timeout: write a string, a whole number, true, false, or an array of strings
        t:10: `log` is a table; write [log] and its options below it
        t:11: unknown option `upload_ttl`; did you mean `storage.upload_ttl`?
        t:13: storage.read_budget: invalid size `8 MB`; write whole bytes or an IEC unit, such as 8 MiB
        t:14: storage.staging_budget: 1 MiB is below the minimum of 2 MiB
        t:15: unknown option `storage.spill`; `tonnage config show` lists all options
        t:17: collection.grace: invalid duration `3600`; write numbers with units, such as 30s, 1h30m or 7d
        t:19: limits.connections: write a string, a whole number, true, false, or an array of strings
        t:20: limits.uploads: 1000001 is above the maximum of 1000000
        t:21: string values must be quoted, expected literal string
        t:21: unknown option `limits.x`; `tonnage config show` lists all options";
    let found = shown(&load_all(text, &[], &["--listen", "127.0.0.1:1"]).errors);
    let expected: Vec<_> = expected.lines().map(str::trim).collect();
    assert_eq!(found, expected);
}

/// Guards: without access control only loopback is served, unless the operator allows more.
#[test]
fn an_open_address_needs_to_be_asked_for() {
    for address in ["0.0.0.0:1", "[::]:1", "10.1.2.3:1", "[::ffff:10.1.2.3]:1"] {
        let flags = ["--listen", address, "--insecure-anonymous"];
        let errors = shown(&load_all("", &[], &flags[..2]).errors);
        assert!(errors[0].starts_with("--listen: listen: anyone who reaches "));
        assert_eq!(shown(&load_all("", &[], &flags).errors), [""; 0]);
    }
    for address in ["127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        let loaded = load_all("", &[], &["--listen", address]);
        assert_eq!(shown(&loaded.errors), [""; 0]);
    }
}

/// Guards: a rule between options is reported at the source of one of them.
#[test]
fn options_are_checked_against_each_other() {
    let same = load_all(
        "listen = '127.0.0.1:1'\nadmin_listen = '127.0.0.1:1'",
        &[],
        &[],
    );
    let expected =
        "t:2: admin_listen: the registry listens on the same address; use another port, or off";
    assert_eq!(shown(&same.errors), [expected]);
    let any_port = load_all(
        "listen = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'",
        &[],
        &[],
    );
    assert_eq!(shown(&any_port.errors), [""; 0]);
    let spill = "[storage]\nspill_threshold = '64 MiB'\nshared_segment_size = '16 MiB'";
    let expected = "t:2: storage.spill_threshold: 64 MiB is above the maximum of half of storage.shared_segment_size, 8 MiB";
    assert_eq!(shown(&load_all(spill, &[], &[]).errors), [expected]);
}

/// Guards: an unknown variable causes a warning with the nearest name; variables of Kubernetes and of tests do not.
#[test]
fn unknown_variables_warn_and_ignored_ones_do_not() {
    let variables = [
        ("TONNAGE_LISTNE", "x"),
        ("TONNAGE_PORT", "tcp://10.0.0.1:5000"),
        ("TONNAGE_PORT_5000_TCP_ADDR", "10.0.0.1"),
        ("TONNAGE_SERVICE_HOST", "10.0.0.1"),
        ("TONNAGE_TEST_FULL", "1"),
        ("PATH", "/bin"),
    ];
    let loaded = load_all("", &variables, &[]);
    let expected = "TONNAGE_LISTNE: unknown variable, ignored; did you mean TONNAGE_LISTEN?";
    assert_eq!(shown(&loaded.warnings), [expected]);
    assert_eq!(shown(&loaded.errors), [""; 0]);
    assert_eq!(nearest("replicas", ["listen"].into_iter()), None);
}

/// Guards: every option has its own variable, which Kubernetes and tests do not set.
#[test]
fn names_of_variables_are_free() {
    let variables: Vec<_> = options::all().iter().map(OptionInfo::variable).collect();
    for (at, variable) in variables.iter().enumerate() {
        assert!(!variables[..at].contains(variable), "{variable}");
        for taken in [
            "TONNAGE_PORT",
            "TONNAGE_SERVICE_",
            "TONNAGE_TEST_",
            "TONNAGE_CONFIG",
        ] {
            assert!(!variable.starts_with(taken), "{variable}");
        }
    }
}

/// Guards: defaults and limits can be parsed again, and the store accepts them.
#[test]
fn defaults_and_bounds_are_accepted() {
    let options = options::all();
    for end in [None, Some(0), Some(1)] {
        let value = |option: &OptionInfo| match (&option.range, end) {
            (Some(range), Some(end)) => range[end].clone(),
            _ => option.default.clone(),
        };
        let variables = options
            .iter()
            .map(|option| (option.variable(), value(option)));
        let variables: Vec<_> = variables.collect();
        let pairs: Vec<_> = variables
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        let loaded = load_all("", &pairs, &[]);
        assert_eq!(shown(&loaded.errors), [""; 0]);
        assert_eq!(loaded.config.store.validate(), Ok(()));
        for (option, (_, value)) in loaded.options.iter().zip(pairs) {
            assert_eq!(option.value, value);
        }
    }
}

/// Guards: a secret is shown neither as a value, nor as a default, nor in an error.
#[test]
fn secrets_are_masked() {
    let given = ["4-hunter", "7"].map(|text| Given {
        key: "auth.pin",
        source: Source::Default,
        text: text.to_owned(),
    });
    let mut reader = Reader::default();
    reader.given.extend(given);
    let mut kind = kind::count(0..=9);
    kind.is_secret = true;
    let mut pin = 6;
    reader.read("auth.pin", &mut pin, kind, "made up for this test");
    assert_eq!(pin, 7);
    let option = &reader.options[0];
    assert_eq!([&option.default, &option.value], ["********"; 2]);
    assert_eq!(shown(&reader.errors), ["default: auth.pin: invalid value"]);
}

/// Guards: values reach the library that uses them.
#[test]
fn values_reach_the_libraries() {
    let text =
        "sparse_repositories = ['a', 'b/*']\nmirror_of = ['c']\n[http2]\nheader_bytes = '1 MiB'";
    let loaded = load_all(text, &[], &["--storage-open-files", "9"]);
    let Config { server, store, .. } = &loaded.config;
    assert_eq!(
        server.limits.sparse,
        ["a", "b/*"].map(|text| text.parse().unwrap())
    );
    assert_eq!(server.mirror_of, ["c"]);
    assert_eq!(
        (server.http2.header_bytes, store.open_files_max),
        (1 << 20, 9)
    );
    assert!(loaded.config.open_files_set && !loaded.config.connections_set);
}
