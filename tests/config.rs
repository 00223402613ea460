//! The configuration from outside: the library's reading of files and variables, the documents that describe it, and
//! the `attestry config` command. What a single value may be is tested beside the code in `src/config`.

use attestry::config::{self, CaptureLevel, Config, Faults, LogFormat, OnFailure, Upstream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

const MINIMAL: &str = "[proxy]\nlisten = \"127.0.0.1:15001\"\nupstream = \"127.0.0.1:50051\"\n";

fn read(text: &str, env: &[(&str, &str)]) -> Result<Config, Faults> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    config::parse(Path::new("proxy.toml"), text, env)
}

/// The faults, one per line, as far as the key.
fn faults(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    let faults = read(text, env).expect_err("this configuration is faulty");
    faults.iter().map(|fault| format!("{} {}", fault.place, fault.key)).collect()
}

fn only_fault(text: &str, env: &[(&str, &str)]) -> String {
    let faults = read(text, env).expect_err("this configuration is faulty");
    assert_eq!(faults.iter().count(), 1, "{faults}");
    faults.to_string()
}

fn with(section: &str, line: &str) -> String {
    if section == "proxy" { format!("{MINIMAL}{line}\n") } else { format!("{MINIMAL}[{section}]\n{line}\n") }
}

fn repository_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(path).expect("the file is part of the repository")
}

#[test]
fn two_lines_are_a_whole_configuration() {
    let config = read(MINIMAL, &[]).unwrap();
    assert_eq!(config.proxy.listen.to_string(), "127.0.0.1:15001");
    assert_eq!(config.proxy.upstream, Upstream::Address("127.0.0.1:50051".parse().unwrap()));
    assert_eq!(config.proxy.workers, None);
    assert_eq!(config.proxy.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.capture.level, CaptureLevel::RequestResponse);
    assert_eq!(config.limits.frame_bytes_max, 16_777_215);
    assert_eq!(config.ledger.key_file, PathBuf::from("ledger/key"));
    assert_eq!(config.ledger.origin, None);
    assert_eq!(config.ledger.on_failure, OnFailure::Refuse);
    assert_eq!(config.log.format, LogFormat::Text);
}

#[test]
fn every_fault_is_reported_at_once_with_its_line() {
    let text = r#"[proxy]
listen = "localhost:15001"
upstream = 50051
worker = 2

[limits]
streams_max = 0
hold_bytes_max = 1.5
frame_bytes_max = 16777216

[legder]
dir = "x"

[ledger]
on_failure = "ignore"
origin = "two words"
segment_bytes = -1

[capture.level]
deep = true
"#;
    let env = [
        ("ATTESTRY_LOG_FILTER", "info=loudly"),
        ("ATTESTRY_PROXY_WORKERS", "many"),
        ("ATTESTRY_LOG_COLOUR", "1"),
    ];
    assert_eq!(
        faults(text, &env),
        [
            "proxy.toml:2 proxy.listen",
            "proxy.toml:3 proxy.upstream",
            "proxy.toml:4 proxy.worker",
            "proxy.toml:7 limits.streams_max",
            "proxy.toml:8 limits.hold_bytes_max",
            "proxy.toml:9 limits.frame_bytes_max",
            "proxy.toml:11 [legder]",
            "proxy.toml:15 ledger.on_failure",
            "proxy.toml:16 ledger.origin",
            "proxy.toml:17 ledger.segment_bytes",
            "proxy.toml:19 capture.level",
            "ATTESTRY_LOG_COLOUR log.colour",
            "ATTESTRY_LOG_FILTER log.filter",
            "ATTESTRY_PROXY_WORKERS proxy.workers",
        ]
    );
}

#[test]
fn each_kind_of_fault_says_what_is_wrong_and_what_to_do() {
    for (section, line, message) in [
        ("proxy", "worker = 1", "proxy.toml:4: proxy.worker is not known; did you mean workers?"),
        (
            "proxy",
            "streams_max = 1",
            "proxy.toml:4: proxy.streams_max is not known; did you mean streams_max in [limits]?",
        ),
        ("log", "colour = 1", "proxy.toml:5: log.colour is not known; the keys of [log] are format, filter."),
        ("lgo", "filter = \"info\"", "proxy.toml:4: [lgo] is not known; did you mean [log]?"),
        (
            "limits",
            "streams_max = \"9\"",
            "proxy.toml:5: limits.streams_max must be an integer, but is the string \"9\"; write 1",
        ),
        (
            "limits",
            "streams_max = true",
            "proxy.toml:5: limits.streams_max must be an integer, but is a boolean; write 1",
        ),
        (
            "limits",
            "hold_bytes_max = 9",
            "proxy.toml:5: limits.hold_bytes_max is 9, outside of its range; choose a value from 65536 to 1073741824",
        ),
        (
            "ledger",
            "dir = \"\"",
            "proxy.toml:5: ledger.dir is \"\", which names no path; write a path, or leave the key out for its default",
        ),
        (
            "capture",
            "level = \"none\"",
            "proxy.toml:5: capture.level is \"none\", which is not one of its values; write \"RequestResponse\" or \"Request\" or \"Metadata\" or \"None\"",
        ),
        (
            "identity",
            "pod = \"a\\nb\"",
            "proxy.toml:5: identity.pod is \"a\\nb\", with a control character or a byte that is not UTF-8; write it without",
        ),
    ] {
        assert_eq!(only_fault(&with(section, line), &[]), message);
    }
}

#[test]
fn what_is_required_is_asked_for_where_it_belongs() {
    assert_eq!(faults("", &[]), ["proxy.toml proxy.listen", "proxy.toml proxy.upstream"]);
    assert_eq!(faults("\n[proxy]\nlisten = \"[::1]:1\"", &[]), ["proxy.toml:2 proxy.upstream"]);
    assert_eq!(
        only_fault("[proxy]\nlisten = \"[::1]:1\"", &[]),
        "proxy.toml:1: proxy.upstream is required and has no default; write upstream = \"127.0.0.1:50051\" in its \
         section, or set ATTESTRY_PROXY_UPSTREAM"
    );
    assert!(read("", &[("ATTESTRY_PROXY_LISTEN", "[::1]:1"), ("ATTESTRY_PROXY_UPSTREAM", "a:2")]).is_ok());
}

#[test]
fn an_upstream_that_leads_back_is_a_fault_where_it_was_written() {
    let text = MINIMAL.replace("50051", "15001");
    let message = only_fault(&text, &[]);
    assert!(
        message.starts_with("proxy.toml:3: proxy.upstream is \"127.0.0.1:15001\", which leads back"),
        "{message}"
    );
    assert_eq!(
        faults(MINIMAL, &[("ATTESTRY_PROXY_UPSTREAM", "localhost:15001")]),
        ["ATTESTRY_PROXY_UPSTREAM proxy.upstream"]
    );
}

#[test]
fn a_line_that_is_not_toml_hides_no_other_fault() {
    let text =
        "[proxy]\nlisten = 127.0.0.1:15001\nupstream = \"host\"\nupstream = \"host:1\"\nworkers = -1\n";
    assert_eq!(
        faults(text, &[("ATTESTRY_LOG_FORMAT", "xml")]),
        [
            "proxy.toml:2 listen",
            "proxy.toml:3 proxy.upstream",
            "proxy.toml:4 upstream",
            "proxy.toml:5 proxy.workers",
            "ATTESTRY_LOG_FORMAT log.format",
        ]
    );
}

#[test]
fn a_broken_header_or_long_text_ends_the_reading_without_guesses() {
    assert_eq!(faults("[proxy\nlisten = 5\n", &[]), ["proxy.toml:1 "]);
    assert_eq!(faults("[proxy]\nlisten = \"\"\"a\nupstream = 5\n", &[]), ["proxy.toml:2 "]);
    assert_eq!(faults("[proxy]\n[log]\n[proxy]\nlisten = 5\n", &[]), ["proxy.toml:3 "]);
}

#[test]
fn the_number_of_lines_that_are_not_toml_is_bounded() {
    let lines: Vec<_> = (0..100).map(|n| format!("key_{n} = oops")).collect();
    assert_eq!(faults(&lines.join("\n"), &[]).len(), attestry::limits::SYNTAX_FAULTS_MAX);
}

#[test]
fn a_key_outside_of_any_section_is_told_its_section() {
    let message = only_fault(&format!("listen = \"[::1]:1\"\n{MINIMAL}"), &[]);
    assert!(message.contains("outside of any section: did you mean listen in [proxy]?"), "{message}");
    assert!(only_fault(&format!("log = 5\n{MINIMAL}"), &[]).contains("write [log] on a line by itself"));
}

#[test]
fn lines_are_right_for_dotted_inline_and_windows_text() {
    let text = "proxy.listen = \"[::1]:1\"\r\nproxy.upstream = \"b:2\"\r\nlimits = { streams_max = 0 }\r\nlog.format = 1\r\n";
    assert_eq!(faults(text, &[]), ["proxy.toml:3 limits.streams_max", "proxy.toml:4 log.format"]);
}

#[test]
fn a_variable_overrides_each_key() {
    let other = |known: (&str, &str), shown: &str| match known {
        ("proxy", "listen") => "[::1]:9".to_owned(),
        ("proxy", "upstream") => "elsewhere:9".to_owned(),
        ("capture", "level") => "Metadata".to_owned(),
        ("ledger", "on_failure") => "forward".to_owned(),
        ("log", "format") => "json".to_owned(),
        _ if shown.starts_with('"') => "other".to_owned(),
        ("limits", "frame_bytes_max") => "16384".to_owned(),
        _ => (shown.parse::<u64>().unwrap() + 1).to_string(),
    };
    let defaults = toml_values(&read(MINIMAL, &[]).unwrap().to_toml());
    assert_eq!(defaults.len(), config::known_keys().len());
    for (section, key) in config::known_keys() {
        let name = config::variable_name(section, key);
        let shown = &defaults.iter().find(|(known, _)| known == &format!("{section}.{key}")).unwrap().1;
        let value = other((section, key), shown);
        let config = read(MINIMAL, &[(&name, &value)]).unwrap_or_else(|faults| panic!("{faults}"));
        let line = format!(
            "{key} = {} # from {name}\n",
            if shown.starts_with('"') { format!("{value:?}") } else { value }
        );
        assert!(config.to_annotated_toml().contains(&line), "{line}");
    }
}

#[test]
fn the_variable_wins_but_the_file_is_checked_too() {
    let text = with("limits", "streams_max = 7");
    assert_eq!(read(&text, &[("ATTESTRY_LIMITS_STREAMS_MAX", "8")]).unwrap().limits.streams_max.get(), 8);
    let faulty = with("limits", "streams_max = 0");
    assert_eq!(faults(&faulty, &[("ATTESTRY_LIMITS_STREAMS_MAX", "8")]), ["proxy.toml:5 limits.streams_max"]);
}

#[test]
fn unknown_variables_of_our_sections_are_faults_and_others_are_not() {
    let message = only_fault(MINIMAL, &[("ATTESTRY_PROXY_LISTEM", "x")]);
    assert_eq!(
        message,
        "ATTESTRY_PROXY_LISTEM: proxy.listem is not known; did you mean ATTESTRY_PROXY_LISTEN? Otherwise unset it"
    );
    let message = only_fault(MINIMAL, &[("ATTESTRY_LEGDER_DIR", "x")]);
    assert!(message.contains("did you mean ATTESTRY_LEDGER_DIR?"), "{message}");
    let others = [
        "ATTESTRY_REQUIRE_ALL",
        "ATTESTRY_SERVICE_HOST",
        "ATTESTRY_PORT_80_TCP_ADDR",
        "ATTESTRY_",
        "ATTESTRY",
        "PATH",
    ];
    read(MINIMAL, &others.map(|name| (name, "x"))).unwrap();
}

#[test]
fn a_variable_must_be_whole_utf8_and_a_plain_number() {
    assert_eq!(faults(MINIMAL, &[("ATTESTRY_LEDGER_DIR", "a\u{fffd}b")]), ["ATTESTRY_LEDGER_DIR ledger.dir"]);
    for value in ["", " 1", "1_000", "0x10", "+1", "1.0", "99999999999999999999999999"] {
        assert_eq!(faults(MINIMAL, &[("ATTESTRY_LIMITS_STREAMS_MAX", value)]).len(), 1, "{value:?}");
    }
}

#[test]
fn a_missing_file_is_one_fault_beside_those_of_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent.toml");
    let env = [("ATTESTRY_LOG_FORMAT".to_owned(), "xml".to_owned())];
    let faults = config::load(Some(&path), env.into_iter()).unwrap_err();
    let places: Vec<_> = faults.iter().map(|fault| fault.place.to_string()).collect();
    assert_eq!(places, [path.display().to_string(), "ATTESTRY_LOG_FORMAT".to_owned()]);
    assert!(faults.to_string().contains("create it, or name another file with --config"), "{faults}");
}

#[test]
fn a_file_that_is_no_configuration_is_refused_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let message = |bytes: &[u8]| {
        let path = folder.path().join("proxy.toml");
        std::fs::write(&path, bytes).unwrap();
        config::load(Some(&path), std::iter::empty()).unwrap_err().to_string()
    };
    assert!(message(b"[proxy]\nlisten = \"\xff\"\n").contains("line 2 is not UTF-8"));
    assert!(message(&vec![b' '; 1024 * 1024 + 1]).contains("longer than 1048576 bytes"));
    assert!(
        config::load(Some(folder.path()), std::iter::empty())
            .unwrap_err()
            .to_string()
            .contains("cannot be read")
    );
}

#[test]
fn without_a_file_the_environment_alone_will_do() {
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let env = [set("ATTESTRY_PROXY_LISTEN", "127.0.0.1:0"), set("ATTESTRY_PROXY_UPSTREAM", "[::1]:5")];
    assert_eq!(config::load(None, env.into_iter()).unwrap().proxy.listen.port(), 0);
    let faults = config::load(None, std::iter::empty()).unwrap_err();
    assert!(faults.to_string().starts_with("ATTESTRY_PROXY_LISTEN: proxy.listen is required"), "{faults}");
}

#[test]
fn the_canonical_text_reads_back_and_only_values_count_in_the_digest() {
    let odd = with("ledger", "dir = 'C:\\a \"b\" # é'\norigin = \"example.org/log\"");
    let config = read(&odd, &[("ATTESTRY_LOG_FORMAT", "json")]).unwrap();
    for text in [config.to_toml(), config.to_annotated_toml()] {
        let again = read(&text, &[]).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(again.to_toml(), config.to_toml());
        assert_eq!(again.ledger, config.ledger);
        assert_eq!(again.digest(), config.digest());
    }
    assert_ne!(read(MINIMAL, &[]).unwrap().digest(), config.digest());
    assert_ne!(config.to_toml(), config.to_annotated_toml());
}

#[test]
fn the_canonical_text_has_every_known_key_in_order() {
    let shown: Vec<_> =
        toml_values(&read(MINIMAL, &[]).unwrap().to_toml()).into_iter().map(|(key, _)| key).collect();
    let known: Vec<_> =
        config::known_keys().iter().map(|(section, key)| format!("{section}.{key}")).collect();
    assert_eq!(shown, known);
}

#[test]
fn the_sample_is_valid_and_its_comments_state_the_defaults() {
    let sample = repository_file("proxy.toml");
    let as_it_stands = read(&sample, &[]).unwrap_or_else(|faults| panic!("{faults}"));
    let is_default = |line: &str| {
        line.strip_prefix('#')
            .and_then(|rest| rest.split_once(" = "))
            .is_some_and(|(key, _)| config::known_keys().iter().any(|(_, known)| *known == key))
    };
    let uncommented: Vec<_> =
        sample.lines().map(|line| if is_default(line) { &line[1..] } else { line }).collect();
    let set = read(&uncommented.join("\n"), &[]).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(set.to_toml(), as_it_stands.to_toml());
    assert!(!set.to_annotated_toml().contains("# default"), "{}", set.to_annotated_toml());
}

#[test]
fn the_document_states_each_keys_section_variable_and_default() {
    let document = repository_file("docs/configuration.md");
    let defaults = toml_values(&read(MINIMAL, &[]).unwrap().to_toml());
    for (section, key) in config::known_keys() {
        let part =
            document.split(&format!("\n## [{section}]\n")).nth(1).and_then(|rest| rest.split("\n## ").next());
        let row = part.unwrap().lines().find(|line| line.starts_with(&format!("| `{key}` |")));
        let row = row.unwrap_or_else(|| panic!("{section}.{key} has no row in its section"));
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[5], format!("`{}`", config::variable_name(section, key)));
        let value = &defaults.iter().find(|(known, _)| known == &format!("{section}.{key}")).unwrap().1;
        let expected = match (section, key) {
            ("proxy", "listen" | "upstream") => "required".to_owned(),
            ("ledger", "key_file") => "the file `key` in `dir`".to_owned(),
            _ => format!("`{value}`"),
        };
        assert_eq!(cells[3], expected, "{section}.{key}");
    }
}

#[test]
fn the_document_states_each_integers_true_range() {
    let document = repository_file("docs/configuration.md");
    let mut ranges = 0;
    for (section, key) in config::known_keys() {
        let row =
            document.lines().find(|line| line.starts_with(&format!("| `{key}` | integer"))).unwrap_or("");
        let Some(range) = row.split('|').nth(4).and_then(|cell| cell.trim().strip_prefix("from ")) else {
            continue;
        };
        let bounds: Vec<i128> =
            range.split([' ', ';']).filter_map(|word| word.parse().ok()).take(2).collect();
        let [least, most] = bounds[..] else { panic!("{row}") };
        let accepts =
            |n: i128| read(MINIMAL, &[(&config::variable_name(section, key), &n.to_string())]).is_ok();
        assert_eq!(
            [least - 1, least, most, most + 1].map(accepts),
            [false, true, true, false],
            "{section}.{key}"
        );
        ranges += 1;
    }
    assert_eq!(ranges, 15, "each integer key has a range");
}

#[test]
fn the_example_faults_of_the_document_are_what_is_printed() {
    let text =
        "[proxy]\nlisten = \"localhost:15001\"\nupstream = \"127.0.0.1:50051\"\n\n[limits]\nstream_max = 5\n";
    let printed = read(text, &[("ATTESTRY_LOG_FORMAT", "xml")]).unwrap_err().to_string();
    assert!(
        repository_file("docs/configuration.md").contains(&format!("```\n{printed}\n```\n")),
        "{printed}"
    );
}

#[test]
fn the_command_checks_and_shows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.toml");
    std::fs::write(&path, MINIMAL).unwrap();
    let checked = attestry(&["config", "check", "--config", path.to_str().unwrap()], &[]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");

    let shown =
        attestry(&["config", "show", "--config", path.to_str().unwrap()], &[("ATTESTRY_PROXY_WORKERS", "3")]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("workers = 3 # from ATTESTRY_PROXY_WORKERS\n"), "{text}");
    assert!(text.contains("streams_max = 10000 # default\n"), "{text}");
    assert!(text.contains("listen = \"127.0.0.1:15001\"\n"), "{text}");

    let shown_path = folder.path().join("shown.toml");
    std::fs::write(&shown_path, &text).unwrap();
    let again = attestry(&["config", "check", "--config", shown_path.to_str().unwrap()], &[]);
    assert_eq!(again.status.code(), Some(0), "{again:?}");
}

#[test]
fn the_command_ends_in_2_with_every_fault_on_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.toml");
    std::fs::write(&path, "[proxy]\nlisten = 1\nupstream = 2\n").unwrap();
    for action in ["check", "show"] {
        let faulty = attestry(
            &["config", action, "--config", path.to_str().unwrap()],
            &[("ATTESTRY_LOG_FORMAT", "xml")],
        );
        assert_eq!((faulty.status.code(), faulty.stdout.len()), (Some(2), 0), "{faulty:?}");
        let lines: Vec<_> = std::str::from_utf8(&faulty.stderr).unwrap().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines[0].starts_with(&format!("{}:2: proxy.listen must be a string", path.display())),
            "{lines:?}"
        );

        let missing = attestry(&["config", action, "--config", "absent.toml"], &[]);
        assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    }
}

/// Runs the real command with no variable but those given.
fn attestry(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attestry"));
    command.args(arguments).env_clear().envs(env.iter().copied()).output().expect("the command starts")
}

/// `section.key` with its value as TOML, for text with one `key = value` per line.
fn toml_values(text: &str) -> Vec<(String, String)> {
    let mut section = "";
    let mut values = Vec::new();
    for line in text.lines() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
        } else if let Some((key, value)) = line.split_once(" = ") {
            values.push((format!("{section}.{key}"), value.to_owned()));
        }
    }
    values
}
