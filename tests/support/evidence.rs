//! What a ledger holds of each call, read from its segments, and whether that covers what the peers received.
//!
//! Byte for byte: a peer's DATA bytes must be the beginning of the ledger's, prefix and data in the order of the wire,
//! and ends, trailers and cancellations must be there where a peer has seen them. Also the verdicts of both verifiers.
#![allow(dead_code)] // Each test binary that takes this module in uses its own part of it.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use attestry::entry::{self, Body};
use attestry::generated::v1::{self, EventType};
use attestry::ledger::fsck::{self, Report, Verdict};
use attestry::ledger::segment::{self, Found, Segment};

use crate::traffic::{Receipt, Way};

/// The evidence of a ledger's calls.
#[derive(Default)]
pub(crate) struct Evidence {
    names: HashMap<Vec<u8>, String>,
    calls: HashMap<(String, Way), Call>,
    /// The index that is to be read next.
    next: u64,
}

#[derive(Default)]
struct Call {
    data: Vec<u8>,
    ended: bool,
    cancelled: bool,
}

impl Evidence {
    /// Calls and directions that the ledger knows.
    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Reads what the ledger has more than at the last reading. Every frame counts that is whole, as for any reader.
    pub(crate) fn read(&mut self, ledger: &Path) {
        let segments = segment::list(ledger).unwrap();
        for (at, &first_index) in segments.iter().enumerate() {
            if segments.get(at + 1).is_none_or(|&end| end > self.next) {
                self.read_segment(&Segment::open(ledger, first_index).unwrap());
            }
        }
    }

    fn read_segment(&mut self, segment: &Segment) {
        let mut offset = segment::HEADER_LEN;
        while let Found::Frame(frame) = segment.at(offset).unwrap() {
            offset += u64::from(frame.header().length);
            if frame.header().first_index < self.next {
                continue;
            }
            self.next = frame.header().end_index();
            for stored in frame.entries().unwrap() {
                if let Some(Body::CallEvents(events)) = entry::decode(stored.entry).unwrap().body {
                    self.add(&events, &stored.payload);
                }
            }
        }
    }

    fn add(&mut self, events: &v1::CallEvents, mut payload: &[u8]) {
        for event in &events.events {
            if let Some(name) = event.header.as_ref().and_then(|header| {
                header.fields.iter().find(|field| field.name.eq_ignore_ascii_case(b"x-call"))
            }) {
                let name = String::from_utf8(name.value.to_vec()).unwrap();
                self.names.insert(events.call.to_vec(), name);
            }
            let name = self.names.get(events.call.as_ref()).expect("a call's first event names it").clone();
            let way = if events.direction() == v1::Direction::ClientToServer {
                Way::Request
            } else {
                Way::Response
            };
            let call = self.calls.entry((name, way)).or_default();
            match event.r#type() {
                EventType::ClientHalfClose | EventType::ServerHalfClose | EventType::ServerTrailer => {
                    call.ended = true;
                }
                EventType::Cancel => call.cancelled = true,
                _ => {}
            }
            if let Some(message) = &event.message {
                assert!(message.stored, "every byte is kept at the default level");
                // The prefix of a message stands before its first byte of data, however it was cut.
                call.data.extend_from_slice(&message.prefix);
                let (data, rest) = payload.split_at(usize::try_from(message.length).unwrap());
                call.data.extend_from_slice(data);
                payload = rest;
            }
        }
    }

    /// What is missing of one peer's receipt; `None` where the ledger holds all of it.
    pub(crate) fn missing(&self, receipt: &Receipt) -> Option<String> {
        let Receipt { call: name, way, data, ended, cancelled } = receipt;
        let Some(call) = self.calls.get(&(name.clone(), *way)) else {
            return Some(format!("{way:?} of {name}: not in the ledger at all, but received"));
        };
        if !call.data.starts_with(data) {
            let same = call.data.iter().zip(data).take_while(|(one, other)| one == other).count();
            let (received, held) = (data.len(), call.data.len());
            return Some(format!(
                "{way:?} of {name}: {received} bytes received, {held} in the ledger, the same up to {same}"
            ));
        }
        let lacks = (*ended && !call.ended) || (*cancelled && !call.cancelled);
        lacks.then(|| format!("{way:?} of {name}: its end was received and is not in the ledger"))
    }

    /// Everything that the peers received must be there.
    pub(crate) fn must_cover<'a>(&self, receipts: impl IntoIterator<Item = &'a Receipt>) {
        let missing: Vec<String> = receipts.into_iter().filter_map(|receipt| self.missing(receipt)).collect();
        assert!(
            missing.is_empty(),
            "{} receipts are not covered:\n{}",
            missing.len(),
            missing[..missing.len().min(20)].join("\n")
        );
    }

    /// Shows that the comparison can fail: the receipt of a whole call with a byte changed or more, of another call, or cancelled.
    pub(crate) fn must_notice_changes_of(&self, receipt: &Receipt) {
        let changed = |change: &dyn Fn(&mut Receipt)| {
            let mut receipt = receipt.clone();
            change(&mut receipt);
            assert!(self.missing(&receipt).is_some(), "a false receipt was taken for covered: {receipt:?}");
        };
        changed(&|receipt| *receipt.data.last_mut().unwrap() ^= 1);
        let whole = self.calls[&(receipt.call.clone(), receipt.way)].data.clone();
        changed(&|receipt| receipt.data = [&whole[..], b"!"].concat());
        changed(&|receipt| receipt.call.push_str("-never-sent"));
        changed(&|receipt| receipt.cancelled = true);
    }
}

/// `attestry verify`, in this process.
pub(crate) fn report(ledger: &Path) -> Report {
    fsck::verify(fsck::Options { ledger: ledger.to_path_buf(), ..fsck::Options::default() }, |_| {})
}

/// The ledger must verify, with nothing unfinished in it.
pub(crate) fn must_be_intact(ledger: &Path) {
    let report = report(ledger);
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    assert_eq!(report.verdict, Verdict::Intact, "{}", faults.join("\n"));
    let unfinished = report.remarks.iter().find(|remark| remark.contains("unfinished"));
    assert_eq!(unfinished, None, "after a start nothing unsigned is left");
}

/// The verifier that was written from the format's document must agree.
pub(crate) fn must_be_intact_for_python(ledger: &Path) {
    let verifier = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verifier.py");
    let output = Command::new("python3").arg(verifier).arg(ledger).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "verifier.py: {}\n{}", output.status, String::from_utf8_lossy(&said));
}
