//! What the clients of the thousand have seen: every call that was completed, every one that failed and how, every connection.
//!
//! The driver keeps it while it runs, and hands it to the test as a file of lines. Progress is counted here too: the driver says how many calls each
//! connection shall complete, and waits for the last of them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use tokio::sync::Notify;

use super::kinds::Kind;

/// How a call, or the attempt at one, failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// Nobody listens: the connection was refused.
    Refused,
    /// The connection broke before anything was answered on it: with a sidecar between, that is how a closed port looks.
    NotServed,
    /// The connection had been told to go away, or ended between two calls; the call may be tried again.
    TryAgain,
    /// The call was under way.
    InFlight,
    /// Anything else: a wrong answer, none in time, a protocol's error.
    Wrong,
}

const FAILURES: [Failure; 5] =
    [Failure::Refused, Failure::NotServed, Failure::TryAgain, Failure::InFlight, Failure::Wrong];

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{self:?}"))
    }
}

/// In place of a call's id, where there is no connection yet.
pub(crate) const CONNECT: &str = "connect";

/// One line of the tally.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Line {
    /// A call came back as it should.
    Completed { kind: Kind, id: String },
    /// It did not; `phase` is when.
    Failed { phase: String, kind: Kind, failure: Failure, id: String, why: String },
    /// A connection as its client saw it; `is_clean` when both had said all that they had to say.
    Connection { kind: Kind, sent: u64, received: u64, calls: u64, is_clean: bool },
}

impl Line {
    fn written(&self) -> String {
        match self {
            Self::Completed { kind, id } => format!("completed\t{kind}\t{id}"),
            Self::Failed { phase, kind, failure, id, why } => {
                format!("failed\t{phase}\t{kind}\t{failure}\t{id}\t{}", why.replace(['\t', '\n'], " "))
            }
            Self::Connection { kind, sent, received, calls, is_clean } => {
                format!("connection\t{kind}\t{sent}\t{received}\t{calls}\t{is_clean}")
            }
        }
    }

    fn read(line: &str) -> Self {
        let words: Vec<&str> = line.split('\t').collect();
        let kind = |word: &str| Kind::all().find(|kind| kind.to_string() == word).unwrap();
        match words[..] {
            ["completed", of, id] => Self::Completed { kind: kind(of), id: id.to_owned() },
            ["failed", phase, of, failure, id, why] => Self::Failed {
                phase: phase.to_owned(),
                kind: kind(of),
                failure: FAILURES.into_iter().find(|one| one.to_string() == failure).unwrap(),
                id: id.to_owned(),
                why: why.to_owned(),
            },
            ["connection", of, sent, received, calls, is_clean] => Self::Connection {
                kind: kind(of),
                sent: sent.parse().unwrap(),
                received: received.parse().unwrap(),
                calls: calls.parse().unwrap(),
                is_clean: is_clean.parse().unwrap(),
            },
            _ => panic!("no line of a tally: {line:?}"),
        }
    }
}

/// Reads what a driver has written.
pub(crate) fn read(file: &Path) -> Vec<Line> {
    fs::read_to_string(file).unwrap().lines().map(Line::read).collect()
}

/// The tally while it grows.
pub(crate) struct Tally {
    state: RefCell<State>,
    caught_up: Notify,
}

#[derive(Default)]
struct State {
    phase: String,
    is_stopping: bool,
    lines: Vec<Line>,
    /// Calls completed by each slot, how many it shall have completed, and how many slots have not.
    completed: Vec<u64>,
    wanted: Vec<u64>,
    behind: usize,
    /// Certificates that servers have shown to clients who looked.
    certificates: BTreeSet<Vec<u8>>,
}

impl Tally {
    /// For so many slots.
    pub(crate) fn new(slots: usize) -> Self {
        let state = State { completed: vec![0; slots], wanted: vec![0; slots], ..State::default() };
        Self { state: RefCell::new(state), caught_up: Notify::new() }
    }

    pub(crate) fn begin_phase(&self, phase: &str) {
        phase.clone_into(&mut self.state.borrow_mut().phase);
    }

    pub(crate) fn stop(&self) {
        self.state.borrow_mut().is_stopping = true;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.state.borrow().is_stopping
    }

    /// Waits until every slot has completed so many calls more.
    pub(crate) async fn progress(&self, calls: u64) {
        {
            let state = &mut *self.state.borrow_mut();
            state.wanted = state.completed.iter().map(|completed| completed + calls).collect();
            state.behind = state.completed.len();
        }
        while self.state.borrow().behind > 0 {
            self.caught_up.notified().await;
        }
    }

    /// (calls completed, certificates seen) so far.
    pub(crate) fn so_far(&self) -> (u64, usize) {
        let state = self.state.borrow();
        (state.completed.iter().sum(), state.certificates.len())
    }

    pub(crate) fn completed(&self, slot: usize, kind: Kind, id: String) {
        let state = &mut *self.state.borrow_mut();
        state.lines.push(Line::Completed { kind, id });
        state.completed[slot] += 1;
        if state.completed[slot] == state.wanted[slot] {
            state.behind -= 1;
            if state.behind == 0 {
                self.caught_up.notify_one();
            }
        }
    }

    pub(crate) fn failed(&self, kind: Kind, failure: Failure, id: &str, why: String) {
        let state = &mut *self.state.borrow_mut();
        let (phase, id) = (state.phase.clone(), id.to_owned());
        state.lines.push(Line::Failed { phase, kind, failure, id, why });
    }

    pub(crate) fn connection(&self, line: Line) {
        self.state.borrow_mut().lines.push(line);
    }

    pub(crate) fn certificate(&self, certificate: &[u8]) {
        self.state.borrow_mut().certificates.insert(certificate.to_vec());
    }

    pub(crate) fn write(&self, file: &Path) {
        let lines: Vec<String> = self.state.borrow().lines.iter().map(Line::written).collect();
        fs::write(file, lines.join("\n")).unwrap();
    }
}
