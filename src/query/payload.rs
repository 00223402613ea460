//! An entry's payload, cut and given to the events that it belongs to (docs/ledger-format.md section 6).
//!
//! A payload whose length is not the sum of its pieces gives its events what is there and nothing for the
//! rest; the fault itself is for the verifier to name.

use crate::entry::{self, Body, PieceKind};
use crate::generated::v1;
use bytes::Bytes;

/// What stands beside one event.
#[derive(Clone, Debug, Default)]
pub(super) struct Beside {
    /// The encoded `FieldList` of its header block.
    pub(super) fields: Option<Bytes>,
    /// The data of its message segment, or of a connection event.
    pub(super) data: Option<Bytes>,
}

/// The payload's pieces, one element for each event of `body`.
pub(super) fn cut(body: &Body, payload: &Bytes) -> Vec<Beside> {
    let events = match body {
        Body::CallEvents(call) => call.events.len(),
        Body::ConnectionEvents(connection) => connection.events.len(),
        _ => 0,
    };
    let mut beside = vec![Beside::default(); events];
    let mut rest = payload.clone();
    for piece in entry::pieces(body) {
        let Some(length) = usize::try_from(piece.length).ok().filter(|&length| length <= rest.len()) else {
            break;
        };
        let bytes = Some(rest.split_to(length));
        match piece.kind {
            PieceKind::Fields(number, _) => beside[number].fields = bytes,
            PieceKind::Segment(number, _) | PieceKind::Connection(number, _) => beside[number].data = bytes,
        }
    }
    beside
}

/// A header block's fields, wherever they stand. `None` where they stand beside the entry and cannot be read
/// there.
pub(super) fn fields(header: &v1::HeaderBlock, beside: Option<&Bytes>) -> Option<Vec<v1::Field>> {
    if header.beside_length == 0 {
        return Some(header.fields.clone());
    }
    entry::decode_fields(beside?.clone()).ok()
}

/// The value of the first field of that name. Names have no case (RFC 9110 section 5.1), and in HTTP/1 stand as on the
/// wire.
pub(super) fn value<'a>(fields: &'a [v1::Field], name: &str) -> Option<&'a [u8]> {
    let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name.as_bytes()));
    field.map(|field| field.value.as_ref())
}
