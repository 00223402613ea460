//! Fuzzes the unit reader: whatever the bytes, the units and the error do not depend on how the stream was cut, and
//! the bounds hold. Input: one octet of piece length, then the stream.
#![no_main]

use attestry::http2::{Unit, UnitBody, UnitError, UnitLimits, UnitReader};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

const LIMITS: UnitLimits =
    UnitLimits { frame_bytes_max: 16_384, header_list_bytes_max: 8192, continuations_max: 8 };

fuzz_target!(|input: &[u8]| {
    let Some((&piece, stream)) = input.split_first() else { return };
    let whole = read(stream, stream.len().max(1));
    assert_eq!(read(stream, usize::from(piece) + 1), whole);
    for unit in &whole.0 {
        if let UnitBody::Headers { fields, .. } | UnitBody::PushPromise { fields, .. } = &unit.body {
            let list: usize = fields.iter().map(|field| field.name.len() + field.value.len() + 32).sum();
            assert!(list <= LIMITS.header_list_bytes_max as usize);
        }
    }
});

/// Reads the stream as the relay does, `piece` octets at a time: units, the error that ended it, and octets taken.
fn read(stream: &[u8], piece: usize) -> (Vec<Unit>, Option<UnitError>, usize) {
    let mut reader = UnitReader::new(LIMITS);
    let (mut units, mut taken, mut there) = (Vec::new(), 0, 0);
    loop {
        there = stream.len().min(there + piece);
        loop {
            let waiting = &stream[taken..there];
            let complete = match reader.complete_len(waiting) {
                Ok(0) => break,
                Ok(complete) => complete,
                Err(error) => return (units, Some(error), taken),
            };
            assert!(complete <= waiting.len() && reader.bytes_wanted(waiting) <= complete);
            let (chunk, mut at) = (Bytes::copy_from_slice(&waiting[..complete]), 0);
            loop {
                match reader.next(&chunk, &mut at) {
                    Ok(Some(unit)) => units.push(unit),
                    Ok(None) => break,
                    Err(error) => return (units, Some(error), taken + at),
                }
            }
            assert_eq!(at, complete);
            taken += complete;
        }
        assert!(reader.bytes_wanted(&stream[taken..there]) > there - taken);
        if there == stream.len() {
            return (units, None, taken);
        }
    }
}
