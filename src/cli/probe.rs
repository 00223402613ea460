//! `attestry ready` and `attestry pre-stop`: the admin endpoints asked from inside the container, where there is no curl.
//!
//! Invariants: one request, bounded in time and bytes; 0 only where the sidecar said yes. What it is asked is in
//! `app::admin`.

use crate::config::{self, Config};
use crate::limits;
use anyhow::{Context as _, bail};
use clap::Args;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Where the sidecar answers.
#[derive(Debug, Args)]
struct Target {
    /// The configuration file whose `[admin] listen` says where the sidecar answers
    #[arg(long, value_name = "FILE", default_value = "proxy.toml")]
    config: PathBuf,
    /// Where the sidecar answers; no configuration is read then
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

/// What `ready` is told.
#[derive(Debug, Args)]
pub(super) struct ReadyArgs {
    #[command(flatten)]
    target: Target,
}

/// What `pre-stop` is told.
#[derive(Debug, Args)]
pub(super) struct PreStopArgs {
    #[command(flatten)]
    target: Target,
    /// Longest wait for inbound connections to end, in milliseconds
    #[arg(long, value_name = "N", default_value_t = limits::PRE_STOP_WAIT_MS,
          value_parser = clap::value_parser!(u64).range(..=limits::PRE_STOP_WAIT_MS_MAX))]
    wait_ms: u64,
    /// Time without any inbound connection after which the wait is over, in milliseconds
    #[arg(long, value_name = "N", default_value_t = limits::PRE_STOP_QUIET_MS,
          value_parser = clap::value_parser!(u64).range(..=limits::PRE_STOP_WAIT_MS_MAX))]
    quiet_ms: u64,
}

/// 0 where the sidecar is ready, 1 where it is not or does not answer, 2 where the configuration has faults.
pub(super) fn ready(args: &ReadyArgs) -> ExitCode {
    told(&args.target, |address| ask(address, "GET", "/readyz", Duration::ZERO))
}

/// Takes readiness away and waits; 0 when the wait is over, however it ended.
pub(super) fn pre_stop(args: &PreStopArgs) -> ExitCode {
    let path = format!("/drain?wait_ms={}&quiet_ms={}", args.wait_ms, args.quiet_ms);
    told(&args.target, |address| ask(address, "POST", &path, Duration::from_millis(args.wait_ms)))
}

fn told(target: &Target, ask: impl FnOnce(SocketAddr) -> anyhow::Result<String>) -> ExitCode {
    let address = match target.admin {
        Some(address) => Ok(address),
        None => match config::load(Some(&target.config), config::process_env()) {
            Ok(config) => configured(&config),
            Err(faults) => {
                eprintln!("{faults}");
                return ExitCode::from(2);
            }
        },
    };
    match address.and_then(ask) {
        // A reader that went away has not asked to hear it.
        Ok(answer) => {
            let _ = writeln!(std::io::stdout(), "{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("attestry: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The address to dial: that of this machine where the sidecar answers on all of them.
fn configured(config: &Config) -> anyhow::Result<SocketAddr> {
    let listen = config.admin.listen.context("the admin endpoints are off; write listen in [admin]")?;
    if listen.port() == 0 {
        bail!("[admin] listen leaves the port to the system; name the address with --admin");
    }
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, listen.port()))
}

/// One request; the body of a 200 answer. `patience` is added to the time that an answer takes by itself.
fn ask(address: SocketAddr, method: &str, path: &str, patience: Duration) -> anyhow::Result<String> {
    let limit = Duration::from_millis(limits::ADMIN_REQUEST_MS);
    let failed = || format!("{method} {path} at {address}");
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_write_timeout(Some(limit))?;
        stream.set_read_timeout(Some(limit + patience))?;
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(limits::ADMIN_ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().with_context(failed)?;
    let (status, body) = read(&answer).with_context(failed)?;
    if status != 200 {
        bail!("{body}");
    }
    Ok(body)
}

fn read(answer: &[u8]) -> anyhow::Result<(u16, String)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(answer)? else {
        bail!("the answer ends within its head; is it attestry that answers there?");
    };
    let body = String::from_utf8_lossy(&answer[head..]).trim_end().to_owned();
    Ok((response.code.context("the answer has no status")?, body))
}
