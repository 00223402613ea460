//! The configuration from outside: the library's reading of files and variables, the documents that describe it, and
//! the `attestry config` command. What a single value may be is tested beside the code in `src/config`.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

use attestry::config::{
    self, CaptureLevel, CertificateFiles, ClientCertificates, ClientTls, Config, CredentialFiles,
    Credentials, Faults, Interception, LogFormat, OnFailure, OnUnreadable, Rules, Traffic, Upstream,
    UpstreamTls,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

const MINIMAL: &str = "[proxy]\nlisten = \"127.0.0.1:15001\"\nupstream = \"127.0.0.1:50051\"\n";
/// What the keys of `[tls]` and of a listener need beside them to be right.
const WITH_TLS: &str =
    "[tls]\ncertificate_file = \"c.pem\"\nkey_file = \"k.pem\"\nauthorities_file = \"a.pem\"\n";

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
    let fixed = config.proxy.fixed.as_ref().unwrap();
    assert_eq!(fixed.listen.to_string(), "127.0.0.1:15001");
    assert_eq!(fixed.upstream, Upstream::Address("127.0.0.1:50051".parse().unwrap()));
    assert_eq!((fixed.traffic, &fixed.rules), (Traffic::Inbound, &Rules::default()));
    assert_eq!((&config.inbound, &config.outbound, config.admin.listen), (&None, &None, None));
    assert_eq!(config.detect.timeout, Duration::from_secs(2));
    assert_eq!(config.detect.on_unreadable, OnUnreadable::Forward);
    assert_eq!(config.tls.credentials, Credentials::Files(CredentialFiles::default()));
    assert_eq!(config.tls.alpn, ["h2", "http/1.1"]);
    assert_eq!(config.tcp.user_timeout, Some(Duration::from_mins(15)));
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
fn every_listener_is_read_with_its_own_values() {
    let text = "[inbound]
listen = \"[::]:15006\"
mode = \"tproxy\"
skip_ports = [22, 9100]
client_tls = \"require\"
client_certificates = \"required\"
[outbound]
listen = \"127.0.0.1:15001\"
opaque_ports = [3306, 25]
upstream_tls = \"originate\"
upstream_id = \"spiffe://example.org/ns/a/sa/b\"
[tls]
certificate_file = \"c.pem\"
key_file = \"k.pem\"
authorities_file = \"a.pem\"
[tcp]
keepalive_ms = 0
";
    let config =
        read(text, &[("ATTESTRY_OUTBOUND_SKIP_PORTS", "5432, 53")]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.proxy.fixed, None);
    let inbound = config.inbound.as_ref().unwrap();
    assert_eq!((inbound.listen.port(), inbound.mode), (15006, Interception::Tproxy));
    assert_eq!(inbound.skip_ports, BTreeSet::from([22, 9100]));
    assert_eq!(inbound.rules.client_tls, ClientTls::Require);
    assert_eq!(inbound.rules.client_certificates, ClientCertificates::Required);
    assert_eq!(inbound.rules.upstream_tls, UpstreamTls::None);
    let outbound = config.outbound.as_ref().unwrap();
    assert_eq!(outbound.skip_ports, BTreeSet::from([53, 5432]));
    assert_eq!(outbound.rules.opaque_ports, BTreeSet::from([25, 3306]));
    assert_eq!(outbound.rules.upstream_tls, UpstreamTls::Originate);
    assert_eq!(outbound.rules.upstream_id.as_deref(), Some("spiffe://example.org/ns/a/sa/b"));
    let files = CertificateFiles { certificate: "c.pem".into(), key: "k.pem".into() };
    let files =
        CredentialFiles { certificate: Some(files), authorities: Some("a.pem".into()), revocation: None };
    assert_eq!(config.tls.credentials, Credentials::Files(files));
    assert_eq!(config.tcp.keepalive, None);
    let again = read(&config.to_toml(), &[]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        (&again.inbound, &again.outbound, &again.tls),
        (&config.inbound, &config.outbound, &config.tls)
    );
    assert_eq!(again.digest(), config.digest());
}

#[test]
fn one_listener_at_least_must_be_given_and_whole() {
    assert_eq!(
        only_fault("", &[]),
        "proxy.toml: no listener is given; write listen and upstream in [proxy], or listen in [inbound] or [outbound]"
    );
    assert_eq!(faults("\n[proxy]\nworkers = 1", &[]), ["proxy.toml:2 "]);
    assert_eq!(
        only_fault("[proxy]\nlisten = \"[::1]:1\"", &[]),
        "proxy.toml:1: proxy.upstream is needed beside proxy.listen; write upstream = \"127.0.0.1:50051\" in its \
         section, or set ATTESTRY_PROXY_UPSTREAM"
    );
    assert_eq!(faults("\n[proxy]\nupstream = \"a:1\"", &[]), ["proxy.toml:2 proxy.listen"]);
    assert!(read("", &[("ATTESTRY_PROXY_LISTEN", "[::1]:1"), ("ATTESTRY_PROXY_UPSTREAM", "a:2")]).is_ok());
    for section in ["inbound", "outbound"] {
        assert!(read(&format!("[{section}]\nlisten = \"[::]:1\""), &[]).is_ok());
    }
}

#[test]
fn keys_of_a_listener_that_is_off_are_a_fault() {
    for (section, line) in [
        ("inbound", "mode = \"tproxy\""),
        ("inbound", "skip_ports = [1]"),
        ("outbound", "listen = \"\"\nskip_ports = [1]"),
        ("outbound", "opaque_ports = [1]"),
    ] {
        assert_eq!(faults(&with(section, line), &[]), [format!("proxy.toml:4 {section}.listen")], "{line}");
    }
    let text = "[proxy]\ntraffic = \"outbound\"\n[inbound]\nlisten = \"[::]:1\"\n";
    assert_eq!(faults(text, &[]), ["proxy.toml:1 proxy.listen"]);
    assert!(read(&with("inbound", "listen = \"\"\nmode = \"redirect\"\nskip_ports = []"), &[]).is_ok());
}

#[test]
fn no_two_listeners_share_a_port() {
    let text = format!(
        "{MINIMAL}[inbound]\nlisten = \"[::]:15001\"\n[outbound]\nlisten = \"127.0.0.2:15002\"\n[admin]\nlisten = \"127.0.0.1:15002\"\n"
    );
    assert_eq!(faults(&text, &[]), ["proxy.toml:5 inbound.listen", "proxy.toml:9 admin.listen"]);
    assert!(read(&text, &[]).unwrap_err().to_string().contains("whose port proxy.listen has already"));
    let chosen_by_the_system = text.replace(":15001", ":0").replace(":15002", ":0");
    assert!(read(&chosen_by_the_system, &[]).is_ok());
}

#[test]
fn tls_must_have_what_the_listeners_need_of_it() {
    const SOCKET: &str = "[tls]\nspiffe_socket = \"/run/agent.sock\"\n";
    for (line, key) in [
        ("client_tls = \"terminate\"", "client_tls"),
        ("client_tls = \"require\"", "client_tls"),
        ("client_certificates = \"optional\"\nclient_tls = \"terminate\"", "client_certificates"),
        ("client_certificates = \"required\"\nclient_tls = \"require\"", "client_certificates"),
        ("upstream_tls = \"originate\"", "upstream_tls"),
        ("upstream_tls = \"as_client\"", "upstream_tls"),
    ] {
        let text = format!("[outbound]\nlisten = \"127.0.0.1:15002\"\n{line}\n");
        let found = faults(&text, &[]);
        assert!(found.contains(&format!("proxy.toml:3 outbound.{key}")), "{line}: {found:?}");
        for tls in [WITH_TLS, SOCKET] {
            read(&format!("{text}{tls}"), &[]).unwrap_or_else(|faults| panic!("{line}: {faults}"));
        }
    }
    let certificate_alone = "[tls]\ncertificate_file = \"c.pem\"\nkey_file = \"k.pem\"\n";
    let text = with(
        "inbound",
        "listen = \"[::]:1\"\nclient_tls = \"terminate\"\nclient_certificates = \"optional\"",
    );
    assert_eq!(
        faults(&format!("{text}{certificate_alone}"), &[]),
        ["proxy.toml:7 inbound.client_certificates"]
    );
}

#[test]
fn what_nobody_would_verify_is_a_fault() {
    for (line, key) in [
        ("client_certificates = \"required\"", "client_certificates"),
        ("upstream_name = \"a.example\"", "upstream_name"),
        ("upstream_id = \"spiffe://a.example/b\"", "upstream_id"),
    ] {
        let text = format!("{MINIMAL}{line}\n{WITH_TLS}");
        assert_eq!(faults(&text, &[]), [format!("proxy.toml:4 proxy.{key}")]);
    }
    let id = "upstream_tls = \"originate\"\nupstream_id = \"https://a.example/b\"";
    let message = only_fault(&format!("{MINIMAL}{id}\n{WITH_TLS}"), &[]);
    assert!(message.contains("which is not a SPIFFE id of a workload"), "{message}");
}

#[test]
fn credentials_have_one_source_and_are_whole() {
    for (lines, fault) in [
        ("certificate_file = \"c\"", "proxy.toml:4 tls.key_file"),
        ("key_file = \"k\"", "proxy.toml:4 tls.certificate_file"),
        ("revocation_file = \"r\"", "proxy.toml:4 tls.authorities_file"),
        ("spiffe_socket = \"/s\"\nauthorities_file = \"a\"", "proxy.toml:5 tls.spiffe_socket"),
        ("spiffe_socket = \"s\"", "proxy.toml:5 tls.spiffe_socket"),
        ("alpn = [\"h2\", 1]", "proxy.toml:5 tls.alpn"),
    ] {
        assert_eq!(faults(&with("tls", lines), &[]), [fault], "{lines}");
    }
}

#[test]
fn a_list_is_strict_in_the_file_and_in_a_variable() {
    let message = |line: &str| only_fault(&with("proxy", line), &[]);
    assert_eq!(
        message("opaque_ports = 25"),
        "proxy.toml:4: proxy.opaque_ports must be a list of ports, but is the integer 25; write [25, 3306]"
    );
    assert_eq!(
        message("opaque_ports = [\"25\"]"),
        "proxy.toml:4: proxy.opaque_ports must be a list of ports, but is a list with the string \"25\" in it; write [25, 3306]"
    );
    assert_eq!(
        message("opaque_ports = [25, 65536]"),
        "proxy.toml:4: proxy.opaque_ports is \"65536\", which is no port; write numbers from 1 to 65535"
    );
    assert!(message("opaque_ports = [25, [26]]").contains("a list with a list in it"));
    // A faulty list of one line hides nothing; one that goes on does.
    let broken = with("proxy", "opaque_ports = [25,, 26]\nworkers = -1");
    assert_eq!(faults(&broken, &[]), ["proxy.toml:4 opaque_ports", "proxy.toml:5 proxy.workers"]);
    assert_eq!(
        faults(MINIMAL, &[("ATTESTRY_PROXY_OPAQUE_PORTS", "25;26")]),
        ["ATTESTRY_PROXY_OPAQUE_PORTS proxy.opaque_ports"]
    );
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
fn no_listener_is_led_back_to() {
    for section in ["inbound", "outbound"] {
        let text = with(section, "listen = \"0.0.0.0:50051\"");
        let message = only_fault(&text, &[]);
        assert!(
            message.contains(&format!(
                "proxy.upstream is \"127.0.0.1:50051\", which leads back to {section}.listen"
            )),
            "{message}"
        );
    }
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
    let plain = format!("{MINIMAL}[inbound]\nlisten = \"[::]:1\"\n[outbound]\nlisten = \"[::]:2\"\n");
    let opened: String = plain
        .lines()
        .map(|line| {
            if line.starts_with("listen") {
                format!("{line}\nclient_tls = \"terminate\"\nupstream_tls = \"as_client\"\n")
            } else {
                format!("{line}\n")
            }
        })
        .chain([WITH_TLS.to_owned()])
        .collect();
    for (section, key) in config::known_keys() {
        let base = if section == "tls" && key == "spiffe_socket" { &plain } else { &opened };
        let name = config::variable_name(section, key);
        let shown = toml_values(&read(base, &[]).unwrap_or_else(|faults| panic!("{faults}")).to_toml());
        let shown = &shown.iter().find(|(known, _)| known == &format!("{section}.{key}")).unwrap().1;
        let (value, toml) = another_value((section, key), shown);
        let config = read(base, &[(&name, &value)]).unwrap_or_else(|faults| panic!("{faults}"));
        let line = format!("{key} = {toml} # from {name}\n");
        assert!(config.to_annotated_toml().contains(&line), "{line}");
        assert_ne!(&toml, shown, "{name}");
    }
}

/// A value that the key may have and does not have yet: as a variable, and as TOML.
fn another_value(known: (&str, &str), shown: &str) -> (String, String) {
    let text = |value: &str| (value.to_owned(), format!("{value:?}"));
    match known {
        (_, "listen") => text("[::1]:9"),
        ("proxy", "upstream") => text("elsewhere:9"),
        ("proxy", "traffic") => text("outbound"),
        (_, "mode") => text("tproxy"),
        (_, "opaque_ports" | "skip_ports") => ("3306,25".to_owned(), "[25, 3306]".to_owned()),
        (_, "client_tls") => text("require"),
        (_, "client_certificates") => text("optional"),
        (_, "upstream_tls") => text("originate"),
        (_, "upstream_id") => text("spiffe://a/b"),
        (_, "scheme") => text("upstream"),
        ("tls", "spiffe_socket") => text("/run/agent.sock"),
        ("tls", "alpn") => ("http/1.1".to_owned(), "[\"http/1.1\"]".to_owned()),
        ("detect", "on_unreadable") => text("refuse"),
        ("capture", "level") => text("Metadata"),
        ("ledger", "on_failure") => text("forward"),
        ("log", "format") => text("json"),
        ("limits", "frame_bytes_max") => ("16384".to_owned(), "16384".to_owned()),
        _ if shown.starts_with('"') => text("other"),
        _ => {
            let more = (shown.parse::<u64>().unwrap() + 1).to_string();
            (more.clone(), more)
        }
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
    assert_eq!(config::load(None, env.into_iter()).unwrap().proxy.fixed.unwrap().listen.port(), 0);
    let faults = config::load(None, std::iter::empty()).unwrap_err();
    assert!(faults.to_string().starts_with("ATTESTRY_PROXY_LISTEN: no listener is given"), "{faults}");
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
    // Each of the two has what the other one leaves at its default.
    let (of_proxy, of_others) = (read("[inbound]\nlisten = \"[::]:1\"", &[]), read(MINIMAL, &[]));
    let of_proxy = toml_values(&of_proxy.unwrap().to_toml());
    let of_others = toml_values(&of_others.unwrap().to_toml());
    for (section, key) in config::known_keys() {
        let defaults = if section == "proxy" { &of_proxy } else { &of_others };
        let part =
            document.split(&format!("\n## [{section}]\n")).nth(1).and_then(|rest| rest.split("\n## ").next());
        let row = part.unwrap().lines().find(|line| line.starts_with(&format!("| `{key}` |")));
        let row = row.unwrap_or_else(|| panic!("{section}.{key} has no row in its section"));
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[5], format!("`{}`", config::variable_name(section, key)));
        let value = &defaults.iter().find(|(known, _)| known == &format!("{section}.{key}")).unwrap().1;
        let expected = match (section, key) {
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
        let part = document.split(&format!("\n## [{section}]\n")).nth(1);
        let part = part.and_then(|rest| rest.split("\n## ").next()).unwrap();
        let row = part.lines().find(|line| line.starts_with(&format!("| `{key}` | integer"))).unwrap_or("");
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
    assert_eq!(ranges, 23, "each integer key has a range");
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
