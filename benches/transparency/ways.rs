//! The ways from a client to a service: directly, through one sidecar, through two, or through something simpler to compare with; started for one run and gone after it.

use super::Bench;
use super::bare::Bare;
use super::cases::Case;
use super::secrets::{SERVICE_ID, Secrets};
use super::support::sidecar::{Builder, Sidecar, attestry};
use super::usage::{Cost, Meter};
use anyhow::ensure;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

/// attestry's own default, where tests have far smaller segments.
const SEGMENT_BYTES: u64 = attestry::limits::SEGMENT_BYTES;

/// What the traffic goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Direct,
    /// A relay that records nothing.
    Bare,
    /// One sidecar, which touches no TLS.
    Sidecar,
    /// One sidecar, which ends the client's TLS.
    Opened,
    /// Two sidecars with TLS between them.
    Mesh,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Bare => "a bare relay",
            Self::Sidecar => "attestry",
            Self::Opened => "attestry ends the TLS",
            Self::Mesh => "attestry twice, mTLS between them",
        })
    }
}

/// A started way.
pub(super) struct Running {
    /// Where to connect.
    pub(super) address: SocketAddr,
    bare: Option<Bare>,
    /// The nearest to the client first.
    sidecars: Vec<Sidecar>,
}

impl Running {
    pub(super) fn start(case: &Case, way: Way, bench: &Bench) -> anyhow::Result<Self> {
        let plain = bench.backend.address(case.service, false);
        let spoken_to = bench.backend.address(case.service, case.speaks_tls);
        let bare =
            (way == Way::Bare).then(|| Bare::start(spoken_to, bench.cores, &bench.folder)).transpose()?;
        let sidecars = match way {
            Way::Direct | Way::Bare => Vec::new(),
            Way::Sidecar => vec![sidecar(bench, "ledger", spoken_to).start()],
            Way::Opened => vec![opening(bench, "ledger", plain).start()],
            Way::Mesh => {
                let far = opening(bench, "far", plain).start();
                let near = sidecar(bench, "near", far.addr);
                let near = with_certificate(near, &bench.secrets, "client")
                    .set("proxy", "traffic", "\"outbound\"")
                    .set("proxy", "upstream_tls", "\"originate\"")
                    .set("proxy", "upstream_id", &format!("{SERVICE_ID:?}"));
                vec![near.start(), far]
            }
        };
        let first = sidecars.first().map(|sidecar| sidecar.addr).or(bare.as_ref().map(|bare| bare.address));
        Ok(Self { address: first.unwrap_or(spoken_to), bare, sidecars })
    }

    /// One for each process on the way.
    pub(super) fn meters(&self) -> Vec<Meter> {
        let bare = self.bare.iter().map(|bare| Meter { pid: bare.pid(), ledger: None });
        let meter =
            |sidecar: &Sidecar| Meter { pid: sidecar.pid(), ledger: Some(sidecar.ledger_dir.clone()) };
        bare.chain(self.sidecars.iter().map(meter)).collect()
    }

    /// Ends it in order, which must succeed; the ledgers go too.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        for sidecar in &mut self.sidecars {
            sidecar.stop();
        }
        self.remove_ledgers()
    }

    /// Ends it as `stop` does, and looks at the ledgers before they go.
    pub(super) fn stop_and_verify(mut self, case: &Case) -> anyhow::Result<()> {
        for sidecar in &mut self.sidecars {
            sidecar.stop();
            sidecar.verify();
            let all = connections(&sidecar.ledger_dir, &[])?;
            let found = connections(&sidecar.ledger_dir, &["--protocol", case.found])?;
            ensure!(
                all > 0 && found == all,
                "of {all} connections only {found} were {}: something else would be measured",
                case.found
            );
        }
        self.remove_ledgers()
    }

    fn remove_ledgers(&self) -> anyhow::Result<()> {
        for sidecar in &self.sidecars {
            std::fs::remove_dir_all(&sidecar.ledger_dir)?;
        }
        Ok(())
    }
}

/// A sidecar as its user would run it, with one worker, on the sidecars' core.
fn sidecar(bench: &Bench, ledger: &str, upstream: SocketAddr) -> Builder {
    Sidecar::builder(upstream)
        .set("proxy", "workers", "1")
        .set("ledger", "segment_bytes", &SEGMENT_BYTES.to_string())
        .set("log", "filter", "\"warn\"")
        .ledger_dir(&bench.folder.join(ledger))
        .wrapper(bench.cores.wrapper())
}

/// A sidecar that ends its clients' TLS, and demands their certificates.
fn opening(bench: &Bench, ledger: &str, upstream: SocketAddr) -> Builder {
    with_certificate(sidecar(bench, ledger, upstream), &bench.secrets, "service")
        .set("proxy", "client_tls", "\"require\"")
        .set("proxy", "client_certificates", "\"required\"")
}

fn with_certificate(builder: Builder, secrets: &Secrets, who: &str) -> Builder {
    let [certificate, key] = secrets.pair(who);
    let files =
        [("certificate_file", certificate), ("key_file", key), ("authorities_file", secrets.authorities())];
    let toml = |file: &Path| format!("\"{}\"", file.display());
    files.iter().fold(builder, |builder, (name, file)| builder.set("tls", name, &toml(file)))
}

/// What the sidecars of a way have cost together.
pub(super) fn sum(own: Cost, other: Cost) -> Cost {
    let mut threads = own.thread_cpu_us_per_call;
    for (name, cpu_us) in other.thread_cpu_us_per_call {
        *threads.entry(name).or_default() += cpu_us;
    }
    let ledger_bytes = own.ledger_bytes_per_call.zip(other.ledger_bytes_per_call);
    Cost {
        cpu_us_per_call: own.cpu_us_per_call + other.cpu_us_per_call,
        thread_cpu_us_per_call: threads,
        rss_mib: own.rss_mib + other.rss_mib,
        ledger_bytes_per_call: ledger_bytes.map(|(own, other)| own + other),
    }
}

/// How many connections `attestry connections` lists.
fn connections(ledger: &Path, filter: &[&str]) -> anyhow::Result<usize> {
    let ledger = ledger.display().to_string();
    let command = ["connections", "--ledger", &ledger, "-o", "jsonl"];
    let output = attestry(&[&command, filter].concat());
    ensure!(output.status.success(), "attestry connections: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.lines().count())
}
