//! Fuzzes the reading of entries: whatever the bytes, decoding ends without a panic, and the pieces that an entry names for its payload
//! stand in the order of its events, each named once. Input: the entry.
#![no_main]

use attestry::entry::{self, Body, PieceKind};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(entry) = entry::decode(Bytes::copy_from_slice(input)) else { return };
    let body = entry.body.expect("an entry that decodes has a body");
    let pieces = entry::pieces(&body);
    // Of one event, the header fields come before the message.
    let order = |kind: &PieceKind<'_>| match kind {
        PieceKind::Fields(event, _) => (*event, 0),
        PieceKind::Segment(event, _) => (*event, 1),
        PieceKind::Connection(event, _) => (*event, 2),
    };
    assert!(pieces.is_sorted_by(|one, next| order(&one.kind) < order(&next.kind)));
    let has_payload = matches!(body, Body::CallEvents(_) | Body::ConnectionEvents(_));
    assert!(has_payload || pieces.is_empty());
    // Sealed again under another index, the body is the same: it is taken as bytes.
    let mut sealed = Vec::new();
    entry::seal(7, &[1; 32], 9, &entry::PendingEntry::new(&body).body, &mut sealed);
    if sealed.len() <= entry::ENTRY_BYTES_MAX {
        let again = entry::decode(sealed.into()).expect("what was sealed decodes");
        assert_eq!((again.index, again.committed_unix_nanos, again.body), (7, 9, Some(body)));
    }
});
