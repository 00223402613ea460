//! Makes small ledgers with given keys, and takes ledgers apart to put them together again otherwise: what an attacker without the key can do.
//!
//! Everything is deterministic, so that places can be written down. Frames are put together here byte by byte, not by the code under test.
#![allow(dead_code, reason = "each test takes what it needs")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]
#![allow(clippy::cast_possible_truncation, reason = "everything here is a few kilobytes long")]

use attestry::entry::{self, Body, PendingEntry};
use attestry::generated::v1;
use attestry::ledger::head::{self, Head};
use attestry::ledger::segment;
use attestry::merkle::{CompactRange, Hash, leaf_hash};
use attestry::note::{Checkpoint, Signer, VerifierKey};
use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The origin of the ledgers made here.
pub const ORIGIN: &str = "test.example/log";

/// The signer whose secret key is 32 times `seed`.
pub fn signer(seed: u8) -> Signer {
    Signer::new(ORIGIN, SigningKey::from_bytes(&[seed; 32])).unwrap()
}

/// An entry's body, and its payload.
pub type Content = (Body, Vec<u8>);

/// Writes a ledger, frame by frame.
pub struct LedgerMaker {
    pub folder: PathBuf,
    pub signer: Signer,
    range: CompactRange,
    previous: Hash,
    time_unix_nanos: u64,
    segment: u64,
}

impl LedgerMaker {
    /// An empty ledger in `folder`, with the key of `seed`; the first segment is there.
    pub fn new(folder: &Path, seed: u8) -> Self {
        fs::create_dir_all(segment::folder(folder)).unwrap();
        fs::write(folder.join("origin"), format!("{ORIGIN}\n")).unwrap();
        let maker = Self {
            folder: folder.to_path_buf(),
            signer: signer(seed),
            range: CompactRange::new(),
            previous: [0; 32],
            time_unix_nanos: 1_700_000_000_000_000_000,
            segment: 0,
        };
        fs::write(maker.segment_path(), segment::encode_header(0, ORIGIN)).unwrap();
        maker
    }

    /// The file of the newest segment.
    pub fn segment_path(&self) -> PathBuf {
        segment::folder(&self.folder).join(segment::file_name(self.segment))
    }

    /// Begins a new segment.
    pub fn begin_segment(&mut self) {
        self.segment = self.range.size();
        // As a writer does it: under its name, a segment has its header at once.
        let spare = segment::folder(&self.folder).join("spare");
        fs::write(&spare, segment::encode_header(self.segment, ORIGIN)).unwrap();
        fs::rename(spare, self.segment_path()).unwrap();
    }

    /// The signed note of the tree so far.
    pub fn checkpoint(&self) -> String {
        let (size, root) = (self.range.size(), self.range.root());
        self.signer.sign(&Checkpoint { origin: ORIGIN.into(), size, root, extensions: vec![] }.text())
    }

    /// Sets the time of the next entry.
    pub fn set_time(&mut self, unix_nanos: u64) {
        self.time_unix_nanos = unix_nanos;
    }

    /// Appends a frame and writes the head.
    pub fn commit(&mut self, contents: Vec<Content>) {
        let mut frame = FrameParts {
            first_index: self.range.size(),
            range: self.range.hashes().to_vec(),
            ..FrameParts::default()
        };
        for (body, payload) in contents {
            let mut bytes = Vec::new();
            let index = self.range.size();
            entry::seal(
                index,
                &self.previous,
                self.time_unix_nanos,
                &PendingEntry::new(&body).body,
                &mut bytes,
            );
            self.previous = leaf_hash(&bytes);
            self.range.push(self.previous);
            self.time_unix_nanos += 1_000;
            frame.entries.push((bytes, payload));
        }
        frame.checkpoint = self.checkpoint().into_bytes();
        let mut file = fs::OpenOptions::new().append(true).open(self.segment_path()).unwrap();
        file.write_all(&frame.encode()).unwrap();
        let head = Head {
            range: self.range.clone(),
            segment: self.segment,
            offset: file.metadata().unwrap().len(),
            last_leaf: self.previous,
            checkpoint: self.checkpoint(),
        };
        let file =
            fs::OpenOptions::new().write(true).create(true).truncate(false).open(head::path(&self.folder));
        file.unwrap().write_all_at(&head.encode(), 0).unwrap();
    }

    /// Entry 0.
    pub fn opened(&self) -> Content {
        let verifier_key = self.signer.verifier_key().to_string();
        let opened = v1::Opened { origin: ORIGIN.into(), verifier_key, format_version: 1 };
        (Body::Opened(opened), vec![])
    }
}

/// The entry of a writer's start.
pub fn started() -> Content {
    (Body::Started(v1::Started { attestry_version: "0".into(), ..Default::default() }), vec![])
}

/// The entry of a writer's end.
pub fn stopped() -> Content {
    (Body::Stopped(v1::Stopped { reason: "SIGTERM".into(), counters: vec![] }), vec![])
}

/// What passed unrecorded.
pub fn gap() -> Content {
    (Body::Gap(v1::Gap { reason: "full".into(), forwarded: true, ..Default::default() }), vec![])
}

/// A GOAWAY with its debug data.
pub fn goaway(data: &[u8]) -> Content {
    let event = v1::ConnectionEvent {
        r#type: v1::connection_event::Type::Goaway.into(),
        payload_length: data.len() as u64,
        payload_sha256: digest(data),
        payload_stored: true,
        ..Default::default()
    };
    let body = v1::ConnectionEvents { connection: 5, events: vec![event], ..Default::default() };
    (Body::ConnectionEvents(body), data.to_vec())
}

/// An entry of call number `call` with the given events.
pub fn call(call: u8, sequence: u64, events: Vec<(v1::Event, Vec<u8>)>) -> Content {
    let (events, payloads): (Vec<_>, Vec<_>) = events.into_iter().unzip();
    let body = v1::CallEvents {
        call: vec![call; 16].into(),
        connection: 5,
        stream: 1,
        direction: v1::Direction::ClientToServer.into(),
        protocol: v1::Protocol::Grpc.into(),
        level: v1::Level::RequestResponse.into(),
        sequence,
        events,
        ..Default::default()
    };
    (Body::CallEvents(body), payloads.concat())
}

/// Request headers whose list stands beside the entry.
pub fn header_beside(list: &[u8]) -> (v1::Event, Vec<u8>) {
    let header = v1::HeaderBlock {
        beside_length: list.len() as u64,
        beside_sha256: digest(list),
        ..Default::default()
    };
    let event =
        v1::Event { r#type: v1::EventType::ClientHeader.into(), header: Some(header), ..Default::default() };
    (event, list.to_vec())
}

/// Bytes `[from, to)` of message number `number`, whose whole is `message`.
pub fn part(number: u64, message: &[u8], from: usize, to: usize) -> (v1::Event, Vec<u8>) {
    let segment = v1::MessageSegment {
        message: number,
        offset: from as u64,
        length: (to - from) as u64,
        sha256: digest(&message[..to]),
        end: to == message.len(),
        stored: true,
        ..Default::default()
    };
    let event = v1::Event {
        r#type: v1::EventType::ClientMessage.into(),
        message: Some(segment),
        ..Default::default()
    };
    (event, message[from..to].to_vec())
}

/// All of a message, stored in short.
pub fn whole(number: u64, message: &[u8]) -> (v1::Event, Vec<u8>) {
    let (mut event, payload) = part(number, message, 0, message.len());
    if let Some(segment) = &mut event.message {
        (segment.end, segment.stored, segment.whole) = (false, false, 2);
        event.r#type = 0;
    }
    (event, payload)
}

/// The end of the connection that the call was on.
pub fn abandoned() -> (v1::Event, Vec<u8>) {
    (v1::Event { r#type: v1::EventType::Abandoned.into(), ..Default::default() }, vec![])
}

fn digest(bytes: &[u8]) -> bytes::Bytes {
    Sha256::digest(bytes).to_vec().into()
}

/// A frame in parts, to be put together with checksums that are right, whatever the parts are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameParts {
    pub first_index: u64,
    pub range: Vec<Hash>,
    /// Entries, each with its payload.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    pub checkpoint: Vec<u8>,
}

impl FrameParts {
    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut sections = self.range.concat();
        let at = sections.len();
        for (entry, payload) in &self.entries {
            sections.extend((entry.len() as u32).to_le_bytes());
            sections.extend((payload.len() as u32).to_le_bytes());
            sections.extend(entry);
        }
        let entries_len = sections.len() - at;
        self.entries.iter().for_each(|(_, payload)| sections.extend(payload));
        let payload_len = sections.len() - at - entries_len;
        sections.extend(&self.checkpoint);
        let mut bytes = vec![0x8a, b'A', b'T', b'S', b'T', b'F', b'R', 0x0a];
        bytes.extend((44 + sections.len() as u32).to_le_bytes());
        bytes.extend((self.entries.len() as u32).to_le_bytes());
        bytes.extend(self.first_index.to_le_bytes());
        bytes.extend((entries_len as u32).to_le_bytes());
        bytes.extend((payload_len as u32).to_le_bytes());
        bytes.extend((self.range.len() as u16).to_le_bytes());
        bytes.extend((self.checkpoint.len() as u16).to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes.extend(sections);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> (Self, usize) {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let u16_at = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()) as usize;
        let (mut at, length) = (40, u32_at(8));
        let range = bytes[at..at + 32 * u16_at(32)].as_chunks::<32>().0.to_vec();
        at += 32 * range.len();
        let mut payload_at = at + u32_at(24);
        let mut entries = Vec::new();
        for _ in 0..u32_at(12) {
            let (entry_len, payload_len) = (u32_at(at), u32_at(at + 4));
            let entry = bytes[at + 8..at + 8 + entry_len].to_vec();
            entries.push((entry, bytes[payload_at..payload_at + payload_len].to_vec()));
            (at, payload_at) = (at + 8 + entry_len, payload_at + payload_len);
        }
        let checkpoint = bytes[payload_at..length - 4].to_vec();
        let first_index = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
        (Self { first_index, range, entries, checkpoint }, length)
    }
}

/// The segments of a ledger, in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogParts {
    /// Number in the name, and frames.
    pub segments: Vec<(u64, Vec<FrameParts>)>,
}

impl LogParts {
    /// Takes an intact ledger apart.
    pub fn read(ledger: &Path) -> Self {
        let mut segments = Vec::new();
        for number in segment::list(ledger).unwrap() {
            let bytes = fs::read(segment::folder(ledger).join(segment::file_name(number))).unwrap();
            let (mut at, mut frames) = (64, Vec::new());
            while at < bytes.len() && bytes[at] != 0 {
                let (frame, length) = FrameParts::decode(&bytes[at..]);
                frames.push(frame);
                at += length;
            }
            segments.push((number, frames));
        }
        Self { segments }
    }

    /// Writes the segments; others that were there are removed.
    pub fn write(&self, ledger: &Path) {
        fs::remove_dir_all(segment::folder(ledger)).unwrap();
        fs::create_dir(segment::folder(ledger)).unwrap();
        for (number, frames) in &self.segments {
            let mut bytes = segment::encode_header(*number, ORIGIN).to_vec();
            bytes.extend(frames.iter().flat_map(FrameParts::encode));
            fs::write(segment::folder(ledger).join(segment::file_name(*number)), bytes).unwrap();
        }
    }

    /// All frames, in order.
    pub fn frames(&mut self) -> impl Iterator<Item = &mut FrameParts> {
        self.segments.iter_mut().flat_map(|(_, frames)| frames)
    }

    /// The frame with number `number`, counted over all segments.
    pub fn frame(&mut self, number: usize) -> &mut FrameParts {
        self.frames().nth(number).unwrap()
    }

    /// Segment and offset of each frame.
    pub fn places(&self) -> Vec<(u64, u64)> {
        let mut places = Vec::new();
        for (number, frames) in &self.segments {
            let mut offset = 64;
            for frame in frames {
                places.push((*number, offset));
                offset += frame.encode().len() as u64;
            }
        }
        places
    }
}

/// Where the checksum of a head file begins: behind its hashes, and before the note that verifiers need not read.
pub fn head_checksum_at(head: &[u8]) -> usize {
    100 + 32 * u32::from_le_bytes(head[96..100].try_into().unwrap()) as usize
}

/// Copies a ledger's files.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &target);
        } else {
            fs::copy(file.path(), target).map(drop).unwrap();
        }
    }
}

/// The key of the ledgers with `seed`.
pub fn key(seed: u8) -> VerifierKey {
    signer(seed).verifier_key().clone()
}
