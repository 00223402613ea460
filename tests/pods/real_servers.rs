//! Real software through the redirect: MariaDB, PostgreSQL, Redis and Exim, with a sidecar at the servers, at their clients, and at both.
//!
//! Each conversation is had directly first, and must then go as it went. Detection may take a minute here, which no client has the patience for: whatever
//! waited for it would fail. What the ledgers say of each connection is compared with what was dialled.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use crate::network::{Network, PATIENCE, Place};
use crate::placed::{Placed, text};
use crate::servers::{self, MARIADB, POSTGRESQL, REDIS, SMTP, Servers, session};
use crate::support;
use crate::support::sidecar::verify;

/// Where the clients dial: the service's address, which the node turns into the pod's, and over IPv6 the pod's own.
const ADDRESSES: [&str; 2] = ["10.96.0.10", "fd77:1::2"];

const CONFIG: &str = "\n[inbound]\nlisten = \"[::]:15006\"\n[outbound]\nlisten = \"[::]:15001\"\n[detect]\ntimeout_ms = 60000\n";
const RULES: &str = "redirect install --inbound-port 15006 --outbound-port 15001 --uid 1337";

/// Bytes of one large answer, and that must be counted at least.
const LARGE_BYTES: u64 = 10 * 1024 * 1024;

#[test]
fn real_servers_notice_nothing() {
    if let Some(why) = servers::missing() {
        return support::skip("pods::real_servers", &why);
    }
    let Some(network) = Network::make("pods::real_servers") else { return };
    let servers = Servers::start(&network);
    let direct = converse(&network, &servers);
    assert!(direct.iter().all(|(_, said)| said.contains("ok")), "{direct:#?}");
    println!("{:<8} {}", "direct", latencies(&network));
    for places in [&[Place::Pod][..], &[Place::Peer], &[Place::Pod, Place::Peer]] {
        let name = format!("{places:?}");
        let mut sidecars: Vec<Placed> = places
            .iter()
            .map(|&place| {
                Placed::start(&network, place, &format!("sidecar-{}-{place:?}", places.len()), CONFIG)
            })
            .collect();
        everywhere(&network, places, RULES);
        for ((conversation, said), (_, before)) in converse(&network, &servers).iter().zip(&direct) {
            assert_eq!(said, before, "{name}: {conversation}");
        }
        sidecars.iter_mut().for_each(Placed::stop);
        for (sidecar, &place) in sidecars.iter().zip(places) {
            must_have_recorded(sidecar, place);
        }
        everywhere(&network, places, "redirect remove");
        let _sidecars: Vec<Placed> = places
            .iter()
            .map(|&place| {
                let sidecar =
                    Placed::start(&network, place, &format!("timed-{}-{place:?}", places.len()), CONFIG);
                network.attestry_must(place, RULES);
                sidecar
            })
            .collect();
        println!("{name:<12} {}", latencies(&network));
        everywhere(&network, places, "redirect remove");
    }
    println!("fdatasync of 4 KiB: {:.2} ms", fdatasync_millis(network.folder.path()));
}

/// Runs `attestry` in each place to its end.
fn everywhere(network: &Network, places: &[Place], arguments: &str) {
    for &place in places {
        network.attestry_must(place, arguments);
    }
}

/// A conversation of each kind under each address; its script makes one connection, and prints "ok" where the server did what was asked.
fn conversations() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for host in ADDRESSES {
        let mut add = |name: &str, script: String| all.push((format!("{name} {host}"), script));
        for (tls, option, is_on) in [("plain", "--skip-ssl", 0), ("tls", "--ssl", 1)] {
            let mariadb = format!(
                "mariadb --no-defaults -N -u pod -psecret --max-allowed-packet=64M {option} -P {MARIADB} -h {host}"
            );
            let query = "DROP TABLE IF EXISTS pods.t; CREATE TABLE pods.t AS SELECT seq FROM seq_1_to_1000; SELECT 'ok', COUNT(*), SUM(seq) FROM pods.t";
            let session = format!(
                "SELECT 'ok', VARIABLE_VALUE <> '' = {is_on} FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'Ssl_cipher'"
            );
            add(&format!("mariadb {tls}: tables"), format!("{mariadb} -D pods -e \"{query}; {session}\""));
            add(
                &format!("mariadb {tls}: large"),
                format!(
                    "{mariadb} -e \"SELECT REPEAT('0123456789', {})\" | sha256sum && echo ok",
                    LARGE_BYTES / 10
                ),
            );
        }
        for (mode, is_on) in [("disable", "f"), ("require", "t")] {
            let psql = format!(
                "PGPASSWORD=secret PGSSLMODE={mode} psql -X -A -t -v ON_ERROR_STOP=1 -U pod -d postgres -p {POSTGRESQL} -h {host}"
            );
            let query = "DROP TABLE IF EXISTS t; CREATE TABLE t AS SELECT generate_series(1, 1000) n; SELECT 'ok', count(*), sum(n) FROM t";
            let session = format!("SELECT ssl = '{is_on}' FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
            add(&format!("postgresql {mode}: tables"), format!("{psql} -q -c \"{query}\" -c \"{session}\""));
            add(
                &format!("postgresql {mode}: large"),
                format!(
                    "{psql} -c \"SELECT repeat('0123456789', {})\" | sha256sum && echo ok",
                    LARGE_BYTES / 10
                ),
            );
        }
        let redis = format!("redis-cli -p {REDIS} -h {host}");
        add("redis: commands", format!("printf 'SET k v\\nGET k\\nECHO ok\\n' | {redis}"));
        add(
            "redis: large",
            format!(
                "{redis} EVAL \"return string.rep('0123456789', {})\" 0 | sha256sum && echo ok",
                LARGE_BYTES / 10
            ),
        );
        for security in ["plain", "starttls"] {
            let mail = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pods/mail.py");
            add(&format!("smtp {security}"), format!("python3 {mail} {host} {SMTP} {security} && echo ok"));
        }
    }
    all
}

/// How many connections each port sees of one `converse`, and how many of them carry [`LARGE_BYTES`].
const EXPECTED: [(u16, usize, usize); 4] =
    [(MARIADB, 8, 4), (POSTGRESQL, 10, 4), (REDIS, 6, 2), (SMTP, 4, 0)];

/// Has all conversations, while two sessions are open that last; what each printed.
fn converse(network: &Network, servers: &Servers) -> Vec<(String, String)> {
    let psql =
        format!("env PGPASSWORD=secret psql -X -A -t -U pod -d postgres -p {POSTGRESQL} -h {}", ADDRESSES[0]);
    let redis = format!("redis-cli -p {REDIS} -h {}", ADDRESSES[0]);
    let mut listening = session(network, "psql-listening", &psql, "");
    listening.say("LISTEN pods;");
    listening.line_after("LISTEN", PATIENCE);
    let subscribed = session(network, "redis-subscribed", &format!("{redis} SUBSCRIBE pods"), "subscribe");
    let mut said: Vec<(String, String)> = conversations()
        .into_iter()
        .map(|(name, script)| {
            (name, network.sh(Place::Peer, &format!("timeout 30 sh -c '{}'", script.replace('\'', "'\\''"))))
        })
        .collect();
    let mails = mails(&servers.spool);
    said.push(("mails".to_owned(), format!("ok {mails:?}")));
    network.sh(Place::Peer, &format!("{psql} -c \"NOTIFY pods, 'told'\" && {redis} PUBLISH pods heard"));
    listening.say("SELECT 'still here';");
    listening.line_after("Asynchronous notification \"pods\" with payload \"told\"", PATIENCE);
    subscribed.line_after("heard", PATIENCE);
    listening.say("\\q");
    listening.wait(PATIENCE);
    subscribed.signal("INT");
    said
}

/// The sizes of the mails' bodies, in order; they are gone then.
fn mails(spool: &Path) -> Vec<u64> {
    let mut sizes = Vec::new();
    for file in fs::read_dir(spool).unwrap().flatten() {
        if file.file_name().to_string_lossy().ends_with("-D") {
            sizes.push(file.metadata().unwrap().len());
        }
        fs::remove_file(file.path()).unwrap();
    }
    sizes.sort_unstable();
    sizes
}

/// Each connection is in the ledger, opaque, with what was dialled, its bytes and its end, and nothing else is.
fn must_have_recorded(sidecar: &Placed, place: Place) {
    verify(&sidecar.ledger);
    let direction = if place == Place::Pod { "inbound" } else { "outbound" };
    let mut found: BTreeMap<u16, (usize, usize)> = BTreeMap::new();
    for connection in sidecar.connections() {
        for (member, expected) in
            [("direction", direction), ("interception", "redirect"), ("state", "closed")]
        {
            assert_eq!(connection[member], expected, "{connection}");
        }
        let (host, port) = text(&connection, "original_destination").rsplit_once(':').unwrap();
        let dialled =
            if place == Place::Pod { ["10.77.1.2", "[fd77:1::2]"] } else { ["10.96.0.10", "[fd77:1::2]"] };
        assert!(dialled.contains(&host), "{connection}");
        let port: u16 = port.parse().unwrap();
        let (protocol, reason) = (&connection["protocols"][0], text(&connection["protocols"][0], "reason"));
        assert_eq!(protocol["protocol"], "opaque", "{connection}");
        let speaks_first = [MARIADB, SMTP].contains(&port);
        let expected = if speaks_first { "the server spoke first" } else { "the client's first bytes are " };
        assert!(reason.starts_with(expected), "{connection}");
        let bytes = ["bytes_to_server", "bytes_to_client"].map(|way| connection[way].as_u64().unwrap());
        assert!(bytes.iter().all(|&count| count > 0), "{connection}");
        let of_port = found.entry(port).or_default();
        of_port.0 += 1;
        of_port.1 += usize::from(bytes[1] >= LARGE_BYTES);
    }
    let found: Vec<_> = found.into_iter().map(|(port, (all, large))| (port, all, large)).collect();
    let mut expected = EXPECTED.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected, "{place:?}: port, connections, those with a large answer");
}

/// Medians from connect to the first answer.
fn latencies(network: &Network) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pods/latency.py");
    network.sh(Place::Peer, &format!("timeout 60 python3 {script} {}", ADDRESSES[0])).trim().to_owned()
}

/// The median time that this disk takes to make 4 KiB durable.
fn fdatasync_millis(folder: &Path) -> f64 {
    let mut file = OpenOptions::new().create(true).append(true).open(folder.join("fdatasync")).unwrap();
    let mut times: Vec<f64> = (0..101)
        .map(|_| {
            let begin = Instant::now();
            file.write_all(&[0; 4096]).unwrap();
            file.sync_data().unwrap();
            begin.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
