//! The static and the dynamic table of HPACK in their one index space (RFC 7541 section 2.3 and Appendix A).
//!
//! Each dynamic entry is one allocation of exactly its name and value, so the memory held equals the size counted, and
//! evicting an entry frees it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{FIELD_OVERHEAD_BYTES, HpackError};

/// The dynamic table, newest entry first.
#[derive(Debug)]
pub(super) struct Table {
    entries: VecDeque<(Bytes, Bytes)>,
    octets: usize,
    octets_max: usize,
}

impl Table {
    pub(super) fn new(octets_max: u32) -> Self {
        Self { entries: VecDeque::new(), octets: 0, octets_max: octets_max as usize }
    }

    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        self.octets
    }

    /// Name and value at `index`, which counts from 1 through the static table on into the dynamic one.
    pub(super) fn get(&self, index: u32) -> Result<(Bytes, Bytes), HpackError> {
        let missing = HpackError::InvalidIndex { index };
        let slot = (index as usize).checked_sub(1).ok_or(missing)?;
        if let Some((name, value)) = STATIC.get(slot) {
            return Ok((Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes())));
        }
        self.entries.get(slot - STATIC.len()).cloned().ok_or(missing)
    }

    /// Puts an entry in front and evicts from the end. One that is larger than the table only empties it, which is no
    /// error (RFC 7541 section 4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let octets = name.len() + value.len() + FIELD_OVERHEAD_BYTES;
        self.evict_to(self.octets_max.saturating_sub(octets));
        if octets > self.octets_max {
            return;
        }
        let mut both = BytesMut::with_capacity(name.len() + value.len());
        both.extend_from_slice(name);
        both.extend_from_slice(value);
        let mut value = both.freeze();
        let name = value.split_to(name.len());
        self.entries.push_front((name, value));
        self.octets += octets;
    }

    pub(super) fn resize(&mut self, octets_max: u32) {
        self.octets_max = octets_max as usize;
        self.evict_to(self.octets_max);
    }

    fn evict_to(&mut self, octets: usize) {
        while self.octets > octets
            && let Some((name, value)) = self.entries.pop_back()
        {
            self.octets -= name.len() + value.len() + FIELD_OVERHEAD_BYTES;
        }
    }
}

/// RFC 7541 Appendix A; the first stands at index 1.
static STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];
