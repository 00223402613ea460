//! A passive HPACK decoder (RFC 7541): it follows one direction's header compression beside the real receiver.
//!
//! Every field is handed on in wire order, also one that breaks HTTP/2's rules: here only the compression layer is
//! judged, and its errors end the connection, because the table state is lost with them. Invariants: the dynamic table
//! owns its bytes (an entry never keeps a read buffer alive) and never holds more than its size in force, at most
//! [`TABLE_BYTES_MAX`].
//!
//! Own code rather than a crate: h2's decoder hides field order and malformed fields, httlib-hpack's costs quadratic
//! time. It is held against h2's in `hpack/tests/differential.rs`. Not here: what a field means (`malformed`), and when a
//! SETTINGS_HEADER_TABLE_SIZE comes into force (`capture` calls [`Decoder::set_limit`] at its acknowledgement).

mod huffman;
mod table;

#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};
use table::Table;

/// The largest dynamic table that is followed, in octets. A receiver may announce any SETTINGS_HEADER_TABLE_SIZE, but
/// the encoder need not use it, and known ones stay at or below 64 KiB; the memory is held once for each direction.
pub const TABLE_BYTES_MAX: u32 = 1 << 20;

/// The table size before any SETTINGS, in octets (RFC 9113 section 6.5.2).
const TABLE_BYTES_DEFAULT: u32 = 4096;

/// What a field adds to a list's or table's size beside its name and value, in octets (RFC 7541 section 4.1).
pub const FIELD_OVERHEAD_BYTES: usize = 32;

/// Literals of several blocks share one allocation of this size. Larger saves allocations, but a field that is kept
/// for long keeps all of it.
const SCRATCH_BYTES: usize = 1024;

/// One field of a header block, as it was on the wire after decompression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name, also when it is no valid one.
    pub name: Bytes,
    /// The value, also when it is no valid one.
    pub value: Bytes,
    /// The sender asked that no intermediary ever indexes this field (RFC 7541 section 6.2.3): often a secret.
    pub never_indexed: bool,
}

/// Why a header block could not be decompressed. The connection's table state is lost: it has to be ended with
/// COMPRESSION_ERROR (RFC 9113 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HpackError {
    /// An index of 0, or beyond both tables.
    #[error(
        "header block names table entry {index}, which does not exist; the sender's table differs, reconnect"
    )]
    InvalidIndex {
        /// The index that was asked for.
        index: u32,
    },
    /// An integer of more than 32 bits or more than six octets.
    #[error("header block holds an integer over 32 bits; the sender's HPACK encoder is broken")]
    IntegerOverflow,
    /// The block ends within an integer or string.
    #[error("header block ends in the middle of a field; the sender's HPACK encoder is broken")]
    Truncated,
    /// A Huffman string with EOS inside, or padding that is longer than 7 bits or not all ones.
    #[error("header block holds an invalid Huffman string; the sender's HPACK encoder is broken")]
    Huffman,
    /// A table size update above what the receiver allows, or above [`TABLE_BYTES_MAX`].
    #[error(
        "header table size update to {octets} octets is over the {limit} in force; lower SETTINGS_HEADER_TABLE_SIZE"
    )]
    SizeUpdateTooLarge {
        /// The size that the encoder chose.
        octets: u32,
        /// The largest size accepted.
        limit: u32,
    },
    /// A table size update behind the block's first field.
    #[error("header table size update behind a field; it may only begin a header block")]
    SizeUpdateNotFirst,
    /// The decoded list is over the bound.
    #[error(
        "header list of more than {list_bytes_max} octets; send less metadata or raise header_list_bytes_max"
    )]
    ListTooLarge {
        /// The bound in octets, each field counted with 32 octets of overhead.
        list_bytes_max: usize,
    },
}

/// The decompression state of one direction of one connection.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    limit: u32,
    scratch: BytesMut,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// An empty table of 4096 octets, as every connection begins.
    pub fn new() -> Self {
        Self {
            table: Table::new(TABLE_BYTES_DEFAULT),
            limit: TABLE_BYTES_DEFAULT,
            scratch: BytesMut::with_capacity(SCRATCH_BYTES),
        }
    }

    /// Upper bound in octets for the table size updates to come: the receiver's SETTINGS_HEADER_TABLE_SIZE in force,
    /// applied by the caller when it is acknowledged.
    ///
    /// The table itself changes only when the encoder says so. An encoder that owes an update after a lowered limit
    /// and sends none is followed with its old table: its receiver decides whether to bear that (h2 does, nghttp2 does not).
    pub fn set_limit(&mut self, octets: u32) {
        self.limit = octets;
    }

    /// Decodes one whole block; every field goes to `fields` in wire order, also those before an error.
    ///
    /// The list's size is the sum of name + value + 32 octets over its fields (RFC 9113 section 6.5.2); over
    /// `list_bytes_max` the connection has to be ended, since decoding stops there. Table size updates are taken at the
    /// block's beginning only, in any number (as h2 and nghttp2 do; RFC 7541 section 4.2 has use for two).
    pub fn decode(
        &mut self,
        block: &[u8],
        list_bytes_max: usize,
        fields: &mut Vec<Field>,
    ) -> Result<(), HpackError> {
        let mut input = Input { rest: block };
        let mut list_bytes = 0_usize;
        let mut begun = false;
        while let Some(&first) = input.rest.first() {
            if first & 0b1110_0000 == 0b0010_0000 {
                if begun {
                    return Err(HpackError::SizeUpdateNotFirst);
                }
                self.resize(input.integer(5)?)?;
                continue;
            }
            begun = true;
            let field = if first & 0b1000_0000 != 0 {
                let (name, value) = self.table.get(input.integer(7)?)?;
                Field { name, value, never_indexed: false }
            } else {
                self.literal(first, &mut input)?
            };
            list_bytes =
                list_bytes.saturating_add(field.name.len() + field.value.len() + FIELD_OVERHEAD_BYTES);
            if list_bytes > list_bytes_max {
                return Err(HpackError::ListTooLarge { list_bytes_max });
            }
            fields.push(field);
        }
        Ok(())
    }

    /// Octets that the dynamic table's entries take (RFC 7541 section 4.1).
    #[cfg(test)]
    pub(super) fn table_octets(&self) -> usize {
        self.table.octets()
    }

    fn resize(&mut self, octets: u32) -> Result<(), HpackError> {
        let limit = self.limit.min(TABLE_BYTES_MAX);
        if octets > limit {
            return Err(HpackError::SizeUpdateTooLarge { octets, limit });
        }
        self.table.resize(octets);
        Ok(())
    }

    /// A literal in one of its three forms: with indexing 01, without 0000, never indexed 0001 (RFC 7541 section 6.2).
    fn literal(&mut self, first: u8, input: &mut Input) -> Result<Field, HpackError> {
        let indexing = first & 0b0100_0000 != 0;
        let index = input.integer(if indexing { 6 } else { 4 })?;
        let name = if index == 0 { self.string(input)? } else { self.table.get(index)?.0 };
        let value = self.string(input)?;
        if indexing {
            self.table.insert(&name, &value);
        }
        Ok(Field { name, value, never_indexed: first & 0b1111_0000 == 0b0001_0000 })
    }

    /// A string literal (RFC 7541 section 5.2), copied out of the block so that no read buffer is kept alive by it.
    fn string(&mut self, input: &mut Input) -> Result<Bytes, HpackError> {
        let coded = input.rest.first().is_some_and(|first| first & 0b1000_0000 != 0);
        let len = input.integer(7)?;
        let text = input.take(len)?;
        if coded {
            huffman::decode(text, &mut self.scratch)?;
        } else {
            self.scratch.extend_from_slice(text);
        }
        Ok(self.scratch.split().freeze())
    }
}

/// The part of a block that is still to be read.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// An integer whose first octet holds it in its low `prefix_bits` (RFC 7541 section 5.1). Five octets may follow, as
    /// in nghttp2: enough for 32 bits, and an end to zero-padded encodings.
    fn integer(&mut self, prefix_bits: u8) -> Result<u32, HpackError> {
        let mask = (1_u8 << prefix_bits) - 1;
        let prefix = self.octet()? & mask;
        if prefix < mask {
            return Ok(u32::from(prefix));
        }
        let mut value = u64::from(mask);
        for shift in [0, 7, 14, 21, 28] {
            let octet = self.octet()?;
            value += u64::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| HpackError::IntegerOverflow);
            }
        }
        Err(HpackError::IntegerOverflow)
    }

    fn octet(&mut self) -> Result<u8, HpackError> {
        let (&first, rest) = self.rest.split_first().ok_or(HpackError::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    fn take(&mut self, len: u32) -> Result<&'a [u8], HpackError> {
        let (taken, rest) = self.rest.split_at_checked(len as usize).ok_or(HpackError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}
