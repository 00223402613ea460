//! The order of system calls, as strace sees it: no byte of a frame is written to a socket before the fdatasync that follows the
//! append of its evidence has come back.
//!
//! Markers in the messages tell which call carries what: read from one socket, then `pwrite64` to a segment, then `fdatasync` of
//! that file, which returned 0, and only then a write to the other socket. Both directions, unary calls and a stream. A line of
//! strace stands where the call began or ended, so a call that began behind the end of another came after it.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Stdio};

use support::sidecar::Sidecar;
use traffic::{Client, EchoServer};

const UNARY_CALLS: u32 = 20;
const STREAM_MESSAGES: u32 = 20;
const TRACED: &str =
    "trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,pwrite64,pwritev,pwritev2,fdatasync,fsync";

#[test]
fn nothing_is_written_to_a_socket_before_its_fdatasync() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return support::skip("sync_order", "there is no strace");
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("trace");
    let server = EchoServer::start(answer);
    let mut sidecar = Sidecar::builder(server.addr)
        .ledger_dir(&folder.path().join("ledger"))
        .wrapper(&["strace", "-f", "-qq", "-yy", "-s", "65536", "-e", TRACED, "-o", file.to_str().unwrap()])
        .start();
    let markers = short_load(&sidecar);
    stop(&mut sidecar);

    let text = fs::read_to_string(&file).unwrap();
    let calls = parse(&text);
    let mut wrong: Vec<String> = Vec::new();
    for marker in &markers {
        let to_server = marker.starts_with("ask");
        wrong.extend(check(&calls, marker, server.addr.port(), to_server).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    eprintln!("{} markers in {} system calls", markers.len(), calls.len());

    // The check can fail: in a trace in which no fdatasync comes back, nothing is in order.
    let without: Vec<Call> = calls.into_iter().filter(|call| call.name != "fdatasync").collect();
    for marker in &markers {
        assert!(check(&without, marker, server.addr.port(), marker.starts_with("ask")).is_err());
    }
}

/// The server's answer can be told from the question, and is as long.
fn answer(data: &[u8]) -> Vec<u8> {
    String::from_utf8(data.to_vec()).unwrap().replace("ask", "ans").into_bytes()
}

/// Some calls one after another, then a stream; returns the markers, of which each is in one message or one header block.
fn short_load(sidecar: &Sidecar) -> Vec<String> {
    let client = Client::connect(sidecar.addr).unwrap();
    let mut markers = Vec::new();
    for number in 0..UNARY_CALLS {
        let (stream, marker) = (2 * number + 1, format!("ask-unary-{number:03}."));
        let name = format!("ask-call-{number:03}.");
        let head = traffic::open_call(stream, "/echo.Echo/Unary", &name);
        let message = traffic::message(marker.as_bytes());
        assert!(client.write(&[head, traffic::data(stream, &message, true)].concat()));
        assert!(client.wait_for_ended_calls(number as usize + 1));
        markers.extend([name, marker]);
    }
    let stream = 2 * UNARY_CALLS + 1;
    assert!(client.write(&traffic::open_call(stream, "/echo.Echo/Stream", "ask-call-stream.")));
    for number in 0..STREAM_MESSAGES {
        let marker = format!("ask-stream-{number:03}.");
        assert!(client.write(&traffic::data(
            stream,
            &traffic::message(marker.as_bytes()),
            number + 1 == STREAM_MESSAGES
        )));
        markers.push(marker);
    }
    assert!(client.wait_for_ended_calls(UNARY_CALLS as usize + 1));
    client.close();
    drop(client.finish());
    let answers: Vec<String> = markers
        .iter()
        .filter(|marker| !marker.contains("call"))
        .map(|marker| marker.replace("ask", "ans"))
        .collect();
    markers.into_iter().chain(answers).collect()
}

/// Asks attestry itself for its end: strace, whose child it is, ends with it.
fn stop(sidecar: &mut Sidecar) {
    let strace = sidecar.pid();
    let child = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).unwrap();
    assert!(Command::new("kill").args(["-TERM", child.trim()]).status().unwrap().success());
    assert!(sidecar.wait().success(), "{}", sidecar.stderr());
}

/// One system call of the trace.
struct Call<'a> {
    name: &'a str,
    /// Its arguments and its result, as strace prints them; in two parts where another thread came between.
    text: Vec<&'a str>,
    /// The lines where it began and ended.
    began: usize,
    ended: usize,
}

impl Call<'_> {
    fn has(&self, marker: &str) -> bool {
        self.text.iter().any(|text| text.contains(marker))
    }

    /// The first argument: a descriptor with what it stands for.
    fn file(&self) -> &str {
        let end = self.text[0].find(&[',', ')'][..]).unwrap_or(self.text[0].len());
        self.text[0][..end].split_whitespace().next().unwrap_or_default()
    }

    fn result(&self) -> i64 {
        let result = self.text.last().unwrap().rsplit_once("= ").map_or("", |(_, result)| result);
        result.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(-1)
    }

    fn is_socket(&self) -> bool {
        self.file().contains("<TCP:")
    }
}

fn parse(trace: &str) -> Vec<Call<'_>> {
    let mut calls: Vec<Call> = Vec::new();
    let mut unfinished: HashMap<&str, usize> = HashMap::new();
    for (line, text) in trace.lines().enumerate() {
        let Some((thread, text)) = text.split_once(' ') else { continue };
        let text = text.trim_start();
        if text.starts_with("<... ") {
            if let Some(at) = unfinished.remove(thread) {
                calls[at].text.push(text);
                calls[at].ended = line;
            }
        } else if let Some((name, rest)) = text.split_once('(') {
            if let Some(rest) = rest.strip_suffix("<unfinished ...>") {
                unfinished.insert(thread, calls.len());
                calls.push(Call { name, text: vec![rest], began: line, ended: usize::MAX });
            } else {
                calls.push(Call { name, text: vec![rest], began: line, ended: line });
            }
        }
    }
    calls
}

/// Whether what carries `marker` went its way in order.
fn check(calls: &[Call], marker: &str, server_port: u16, to_server: bool) -> Result<(), String> {
    let fault = |what: &str| Err(format!("{marker} {what}"));
    let of_server = |call: &Call| call.file().contains(&format!("->127.0.0.1:{server_port}]"));
    let having = |names: &'static [&str]| {
        calls.iter().filter(move |call| names.contains(&call.name) && call.has(marker))
    };
    let written = || having(&["write", "writev", "sendto", "sendmsg"]).filter(|call| call.is_socket());
    let Some(first) = written().min_by_key(|call| call.began) else {
        return fault("was written to no socket");
    };
    if of_server(first) != to_server {
        return fault("was written to the wrong socket");
    }
    let read = having(&["read", "readv", "recvfrom", "recvmsg"])
        .find(|call| call.is_socket() && of_server(call) != to_server);
    let Some(read) = read else { return fault("was read from no socket") };
    let Some(append) =
        having(&["pwrite64", "pwritev", "pwritev2"]).find(|call| call.file().ends_with(".seg>"))
    else {
        return fault("was appended to no segment");
    };
    let synced = calls
        .iter()
        .filter(|call| call.name == "fdatasync" && call.file() == append.file() && call.result() == 0)
        .find(|call| call.began > append.ended);
    let Some(synced) = synced else { return fault("was never synced") };
    if read.ended < append.began && synced.ended < first.began {
        return Ok(());
    }
    fault(&format!(
        "is out of order: read at {}, appended at {} to {}, synced at {} to {}, written at {}",
        read.ended, append.began, append.ended, synced.began, synced.ended, first.began
    ))
}
