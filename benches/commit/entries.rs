//! The entries that are committed: each is one whole message of a call of its own, encoded as capture does it.
//!
//! The payload stands beside the entry and is named by its digest, so a ledger of them verifies. They weigh some 150 bytes and the payload.

use attestry::entry::{CallBody, CallHead, PendingEntry, Segment};
use attestry::generated::v1;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// Makes entries of one payload size.
pub(super) struct Entries {
    payload: Bytes,
    digest: [u8; 32],
    made: u64,
}

impl Entries {
    pub(super) fn new(payload_bytes: usize) -> Self {
        // Bytes that no file system or disk could fold together.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut payload = Vec::with_capacity(payload_bytes + 8);
        while payload.len() < payload_bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            payload.extend_from_slice(&state.to_le_bytes());
        }
        payload.truncate(payload_bytes);
        let digest = Sha256::digest(&payload).into();
        Self { payload: payload.into(), digest, made: 0 }
    }

    /// The next `count` entries.
    pub(super) fn batch(&mut self, count: usize) -> Vec<PendingEntry> {
        (0..count).map(|_| self.entry()).collect()
    }

    fn entry(&mut self) -> PendingEntry {
        self.made += 1;
        let mut call = [0; 16];
        call[..8].copy_from_slice(&self.made.to_le_bytes());
        let mut body = CallBody::new(&CallHead {
            call: &call,
            connection: 0x5eed,
            stream: 1,
            direction: v1::Direction::ClientToServer,
            protocol: v1::Protocol::Grpc,
            level: v1::Level::RequestResponse,
            sequence: 1,
        });
        let length = self.payload.len() as u64;
        let [_, _, _, _, a, b, c, d] = length.to_be_bytes();
        let segment = Segment {
            prefix: [0, a, b, c, d],
            prefix_len: 5,
            length,
            end: true,
            stored: true,
            frames: 1,
            ..Segment::default()
        };
        body.push_segment(v1::EventType::ClientMessage, &segment, Some(self.digest));
        let body = body.finish(1_700_000_000_000_000_000 + self.made, "");
        PendingEntry { body, payload: vec![self.payload.clone()] }
    }
}
