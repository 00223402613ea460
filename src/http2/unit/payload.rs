//! Payloads of the frames that are a unit each. One that breaks the rules of its type is named as broken, whole.
//!
//! Not here: header blocks, and what bounds a frame (`unit`).

use std::ops::Range;

use bytes::Bytes;

use super::UnitBody;
use crate::http2::frame::{FrameHeader, flag, kind};

/// Reads any frame but those of header blocks; its payload stands at `range` of `chunk`, and all of it is there.
pub(super) fn read(head: FrameHeader, chunk: &Bytes, range: Range<usize>) -> UnitBody {
    let FrameHeader { kind, flags, .. } = head;
    let body = match kind {
        kind::DATA => data(head, chunk, range.clone()),
        kind::GOAWAY => goaway(head, chunk, range.clone()),
        kind::SETTINGS => settings(head, &chunk[range.clone()]),
        kind::PRIORITY | kind::RST_STREAM | kind::PING | kind::WINDOW_UPDATE => {
            fixed_size(head, &chunk[range.clone()])
        }
        _ => return UnitBody::Unknown { kind, flags, payload: chunk.slice(range) },
    };
    body.unwrap_or_else(|why| UnitBody::Broken { kind, flags, payload: chunk.slice(range), why })
}

/// DATA (RFC 9113 section 6.1).
fn data(head: FrameHeader, chunk: &Bytes, mut range: Range<usize>) -> Result<UnitBody, &'static str> {
    on_stream(head)?;
    let mut pad = None;
    if head.has(flag::PADDED) {
        let octets = *chunk[range.clone()].first().ok_or("padded frame without a pad length")?;
        if usize::from(octets) >= range.len() {
            return Err("padding is not shorter than the frame");
        }
        range = range.start + 1..range.end - usize::from(octets);
        pad = Some(octets);
    }
    Ok(UnitBody::Data { data: chunk.slice(range), pad, end_stream: head.has(flag::END_STREAM) })
}

/// GOAWAY (RFC 9113 section 6.8).
fn goaway(head: FrameHeader, chunk: &Bytes, range: Range<usize>) -> Result<UnitBody, &'static str> {
    on_connection(head)?;
    let (fixed, _) = chunk[range.clone()].split_first_chunk::<8>().ok_or("shorter than 8 octets")?;
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *fixed;
    Ok(UnitBody::GoAway {
        last_stream: u32::from_be_bytes([l0, l1, l2, l3]) & (u32::MAX >> 1),
        code: u32::from_be_bytes([c0, c1, c2, c3]),
        debug: chunk.slice(range.start + 8..range.end),
    })
}

/// SETTINGS (RFC 9113 section 6.5).
fn settings(head: FrameHeader, payload: &[u8]) -> Result<UnitBody, &'static str> {
    on_connection(head)?;
    if head.has(flag::ACK) {
        return if payload.is_empty() {
            Ok(UnitBody::SettingsAck)
        } else {
            Err("acknowledgement with a payload")
        };
    }
    let (params, rest) = payload.as_chunks::<6>();
    if !rest.is_empty() {
        return Err("length is no multiple of 6 octets");
    }
    let param = |&[i0, i1, v0, v1, v2, v3]: &[u8; 6]| {
        (u16::from_be_bytes([i0, i1]), u32::from_be_bytes([v0, v1, v2, v3]))
    };
    Ok(UnitBody::Settings { params: params.iter().map(param).collect() })
}

/// PRIORITY, RST_STREAM, PING and WINDOW_UPDATE (RFC 9113 sections 6.3, 6.4, 6.7, 6.9).
fn fixed_size(head: FrameHeader, payload: &[u8]) -> Result<UnitBody, &'static str> {
    match head.kind {
        kind::PING => {
            on_connection(head)?;
            let opaque = payload.try_into().map_err(|_| "length is not 8 octets")?;
            Ok(UnitBody::Ping { ack: head.has(flag::ACK), opaque })
        }
        kind::PRIORITY => {
            on_stream(head)?;
            if payload.len() == 5 { Ok(UnitBody::Priority) } else { Err("length is not 5 octets") }
        }
        kind::RST_STREAM => {
            on_stream(head)?;
            Ok(UnitBody::Reset { code: four_octets(payload)? })
        }
        _ => Ok(UnitBody::WindowUpdate { increment: four_octets(payload)? & (u32::MAX >> 1) }),
    }
}

fn four_octets(payload: &[u8]) -> Result<u32, &'static str> {
    payload.try_into().map(u32::from_be_bytes).map_err(|_| "length is not 4 octets")
}

fn on_stream(head: FrameHeader) -> Result<(), &'static str> {
    if head.stream == 0 { Err("on stream 0") } else { Ok(()) }
}

fn on_connection(head: FrameHeader) -> Result<(), &'static str> {
    if head.stream == 0 { Ok(()) } else { Err("on a stream, but it belongs to the connection") }
}
