//! How an entry's payload is cut into the pieces that its body names (docs/ledger-format.md section 6).
//!
//! One walk serves the verifier, which checks each piece's digest, and the reader, which shows it.

use crate::generated::v1;
use v1::entry::Body;

/// One piece of an entry's payload.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Bytes of the piece.
    pub length: u64,
    /// What it is, with the event that names it.
    pub kind: PieceKind<'a>,
}

/// What a piece of payload holds.
#[derive(Clone, Copy, Debug)]
pub enum PieceKind<'a> {
    /// An encoded `FieldList`: the metadata of event number `.0` (counted in the entry, from 0), with its SHA-256.
    Fields(usize, &'a v1::HeaderBlock),
    /// The data of a message segment, of event number `.0`.
    Segment(usize, &'a v1::MessageSegment),
    /// Bytes of a connection event, number `.0`.
    Connection(usize, &'a v1::ConnectionEvent),
}

/// The pieces of `body`'s payload, in the order in which they stand in it.
pub fn pieces(body: &Body) -> Vec<Piece<'_>> {
    match body {
        Body::CallEvents(call) => {
            call.events.iter().enumerate().flat_map(|(i, e)| event_pieces(i, e)).collect()
        }
        Body::ConnectionEvents(connection) => connection
            .events
            .iter()
            .enumerate()
            .filter(|(_, event)| event.payload_stored)
            .map(|(i, event)| Piece { length: event.payload_length, kind: PieceKind::Connection(i, event) })
            .collect(),
        _ => Vec::new(),
    }
}

fn event_pieces(number: usize, event: &v1::Event) -> impl Iterator<Item = Piece<'_>> {
    let fields = event
        .header
        .as_ref()
        .filter(|header| header.beside_length > 0)
        .map(|header| Piece { length: header.beside_length, kind: PieceKind::Fields(number, header) });
    let segment = event
        .message
        .as_ref()
        .filter(|segment| segment.stored)
        .map(|segment| Piece { length: segment.length, kind: PieceKind::Segment(number, segment) });
    fields.into_iter().chain(segment)
}
