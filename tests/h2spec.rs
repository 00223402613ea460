//! h2spec, case by case, against real servers alone and behind `attestry run`: the verdicts must be the same.
//!
//! h2spec is a client that breaks HTTP/2's rules and looks at what its server does. It is built from the module that
//! `interop/go/go.mod` pins. Which cases a server passes is its own affair; that attestry changes none of them is ours.
//! Each server's counts stand in `docs/interop.md`. Exact frames are compared in `wire.rs`.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use support::process::Process;
use support::sidecar::Sidecar;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

#[path = "interop/document.rs"]
mod document;
mod support;

const REMEDY: &str = "ATTESTRY_REGENERATE=1 cargo test --test h2spec";
const MODULE: &str = "github.com/summerwind/h2spec";
/// What h2spec waits for an answer that does not come; servers that give none in some cases make it wait.
const ANSWER_SECONDS: &str = "1";
const START_BOUND: Duration = Duration::from_secs(30);
const BODY: &[u8] = b"something to be sent in DATA frames\n";

/// A server that h2spec is let loose on.
trait Server {
    /// What the document calls it.
    const NAME: &'static str;

    fn start() -> Self;
    fn addr(&self) -> SocketAddr;
}

#[test]
fn nghttpd_passes_and_fails_the_same_cases() {
    if Command::new("nghttpd").arg("--version").output().is_err() {
        return support::skip("h2spec against nghttpd", "no nghttpd (Debian package nghttp2-server)");
    }
    compare::<Nghttpd>();
}

#[test]
fn the_h2_crate_passes_and_fails_the_same_cases() {
    compare::<H2>();
}

fn compare<S: Server>() {
    let h2spec = match h2spec() {
        Ok(h2spec) => h2spec,
        Err(why) => return support::skip(&format!("h2spec against {}", S::NAME), why),
    };
    let direct = {
        let server = S::start();
        verdicts(h2spec, server.addr())
    };
    let server = S::start();
    let mut sidecar = Sidecar::start(server.addr());
    let relayed = verdicts(h2spec, sidecar.addr);
    sidecar.stop();
    sidecar.verify();
    assert!(!direct.is_empty() && direct.keys().eq(relayed.keys()), "h2spec plays the same cases each time");
    let differing: Vec<String> = direct
        .iter()
        .zip(relayed.values())
        .filter(|((_, direct), relayed)| direct.is_some() != relayed.is_some())
        .map(|((case, direct), relayed)| told(case, direct.as_deref(), relayed.as_deref()))
        .collect();
    let passed = |verdicts: &Verdicts| verdicts.values().filter(|fault| fault.is_none()).count().to_string();
    let counts = [direct.len().to_string(), passed(&direct), passed(&relayed), differing.len().to_string()];
    let head = ["server", "cases", "passed alone", "passed behind attestry", "different"];
    let row = [S::NAME.to_owned()].into_iter().chain(counts).collect();
    assert!(
        differing.is_empty() || document::regenerates(),
        "{}: {} cases differ:\n{}",
        S::NAME,
        differing.len(),
        differing.join("\n")
    );
    document::keep(&format!("h2spec {}", S::NAME), &document::table(&head, [row]), REMEDY);
    assert!(differing.is_empty(), "{}: {} cases differ:\n{}", S::NAME, differing.len(), differing.join("\n"));
}

fn told(case: &str, direct: Option<&str>, relayed: Option<&str>) -> String {
    let told = |fault: Option<&str>| fault.map_or("passed".to_owned(), |fault| fault.replace('\n', " / "));
    format!("{case}\n  alone: {}\n  behind attestry: {}", told(direct), told(relayed))
}

/// Of each case, by its place in the specification and its title: what h2spec had against the server, if anything.
type Verdicts = BTreeMap<String, Option<String>>;

fn verdicts(h2spec: &Path, server: SocketAddr) -> Verdicts {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.xml");
    let mut command = Command::new(h2spec);
    command.args(["--strict", "--timeout", ANSWER_SECONDS, "--host", &server.ip().to_string()]);
    command.args(["--port", &server.port().to_string(), "--junit-report"]).arg(&report);
    let output = command.output().unwrap();
    let report = fs::read_to_string(&report).unwrap_or_else(|error| {
        panic!("h2spec wrote no report ({error}): {}", String::from_utf8_lossy(&output.stdout))
    });
    read_report(&report)
}

/// The report is JUnit's XML: each case is a `testcase`, whose one child, if any, says what was wrong.
fn read_report(report: &str) -> Verdicts {
    let mut verdicts = Verdicts::new();
    for case in report.split("<testcase ").skip(1) {
        let (head, rest) = case.split_once('>').expect("a start tag ends");
        let attribute =
            |name: &str| between(head, &format!("{name}=\""), "\"").unwrap_or_default().to_owned();
        let inner = rest.split("</testcase>").next().unwrap_or_default();
        let fault = between(inner, ">", "</").map(str::to_owned);
        let title = format!("{} {}", attribute("package"), attribute("classname"));
        // Two cases of one section have the same title.
        let number = verdicts.keys().filter(|key| key.starts_with(&title)).count();
        verdicts.insert(format!("{title} #{number}"), fault);
    }
    verdicts
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.split_once(start).and_then(|(_, rest)| rest.split_once(end)).map(|(inner, _)| inner)
}

/// Where h2spec is, built once; or why it is not to be had.
fn h2spec() -> Result<&'static PathBuf, &'static String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(build_h2spec).as_ref()
}

fn build_h2spec() -> Result<PathBuf, String> {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target folder").join("h2spec");
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/go");
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    for file in ["go.mod", "go.sum"] {
        fs::copy(module.join(file), folder.join(file))
            .map_err(|error| format!("cannot copy {file}: {error}"))?;
    }
    let program = folder.join("h2spec");
    let mut build = Command::new("go");
    build.args(["build", "-mod=readonly", "-o"]).arg(&program).arg(format!("{MODULE}/cmd/h2spec"));
    let output = build.current_dir(&folder).output().map_err(|error| format!("cannot run go: {error}"))?;
    if output.status.success() {
        return Ok(program);
    }
    Err(format!("{build:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// nghttp2's server.
struct Nghttpd {
    addr: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Server for Nghttpd {
    const NAME: &'static str = "nghttpd";

    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("index.html"), BODY).unwrap();
        // It cannot choose a port itself: this one was free a moment ago.
        let addr = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("nghttpd");
        command.args(["--verbose", "--no-tls", "--address=127.0.0.1", "--htdocs"]).arg(folder.path());
        let process = Process::start("nghttpd", command.arg(addr.port().to_string()), folder.path());
        process.line_after("IPv4: listen ", START_BOUND);
        Self { addr, _process: process, _folder: folder }
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// The h2 crate, which is under hyper and tonic, answering every request with a body.
struct H2 {
    addr: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Server for H2 {
    const NAME: &'static str = "the h2 crate";

    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Self { addr, _runtime: runtime }
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }
}

async fn serve(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let mut body = request.into_body();
            // A request is answered when it is whole; one that breaks off is not.
            while let Some(piece) = body.data().await {
                let Ok(piece) = piece else { return };
                let _ = body.flow_control().release_capacity(piece.len());
            }
            if body.trailers().await.is_err() {
                return;
            }
            if let Ok(mut answer) = respond.send_response(http::Response::new(()), false) {
                let _ = answer.send_data(Bytes::from_static(BODY), true);
            }
        });
    }
}

#[test]
fn reports_are_read() {
    let report = "<testsuite><testcase package=\"http2/4.2\" classname=\"A &lt;x&gt;\" time=\"0.1\"></testcase>\n\
        <testcase package=\"http2/4.2\" classname=\"B\" time=\"1\">\n<error>GOAWAY\nclosed</error></testcase>\
        <testcase package=\"http2/4.2\" classname=\"B\" time=\"1\"></testcase></testsuite>";
    let verdicts = read_report(report);
    assert_eq!(verdicts.len(), 3);
    assert_eq!(verdicts["http2/4.2 B #0"].as_deref(), Some("GOAWAY\nclosed"));
    assert_eq!(verdicts["http2/4.2 B #1"], None);
}
