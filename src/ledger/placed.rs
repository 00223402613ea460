//! A growing buffer whose first byte stands at a chosen place within a block of memory.
//!
//! A write past the page cache takes memory as it stands only where memory and file have the same place within a block (`block_file`). Nothing
//! but speed hangs on it: what stands elsewhere is copied.

/// Bytes of a block of memory and of a file: what O_DIRECT asks for on the disks that there are, or a multiple of it.
pub(super) const BLOCK_BYTES: usize = 4096;

/// The buffer.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// `start` bytes of nothing, then the content.
    bytes: Vec<u8>,
    start: usize,
    place: usize,
}

impl Placed {
    /// Empties the buffer; what is appended from now on has the place in memory that `offset` has in a file. There is room for so many `bytes`; what is too small for
    /// them is given back before there is a larger one.
    pub fn restart(&mut self, offset: u64, bytes: usize) {
        self.place = place_of_offset(offset);
        self.bytes.clear();
        if self.bytes.capacity() < BLOCK_BYTES + bytes {
            self.bytes = Vec::new();
            self.bytes.reserve_exact(BLOCK_BYTES + bytes + bytes / 4);
        }
        self.start = start_at(&self.bytes, self.place);
        self.bytes.resize(self.start, 0);
    }

    /// Makes room for `more` bytes behind the content.
    pub fn reserve(&mut self, more: usize) {
        if self.bytes.capacity() - self.bytes.len() >= more {
            return;
        }
        // A little over what is needed: while it is copied both are there.
        let needed = self.len() + more;
        let mut larger = Vec::with_capacity(BLOCK_BYTES + needed + needed / 4);
        let start = start_at(&larger, self.place);
        larger.resize(start, 0);
        larger.extend_from_slice(self.as_slice());
        (self.bytes, self.start) = (larger, start);
    }

    /// Appends `bytes`.
    pub fn append(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends zeros up to `length` bytes of content, or cuts it to as many.
    pub fn resize(&mut self, length: usize) {
        self.reserve(length.saturating_sub(self.len()));
        self.bytes.resize(self.start + length, 0);
    }

    /// Lets `write` append at most `bytes_max` bytes.
    pub fn append_with(&mut self, bytes_max: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.reserve(bytes_max);
        write(&mut self.bytes);
    }

    /// Bytes of the content.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The content.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The content, to be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

/// Where `bytes` begins within a block of memory.
pub(super) fn place_of(bytes: &[u8]) -> usize {
    bytes.as_ptr().addr() % BLOCK_BYTES
}

/// Where `offset` is within a block of a file.
pub(super) fn place_of_offset(offset: u64) -> usize {
    usize::try_from(offset % BLOCK_BYTES as u64).expect("less than a block")
}

/// How many bytes behind the beginning of `bytes` the `place` within a block comes next.
pub(super) fn start_at(bytes: &[u8], place: usize) -> usize {
    (place + BLOCK_BYTES - place_of(bytes)) % BLOCK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_stays_whole_and_at_its_place_while_it_grows() {
        let mut placed = Placed::default();
        for place in [0, 64, 4095, 5000_u64] {
            placed.restart(place, 0);
            let mut expected = Vec::new();
            for round in 0..50_u8 {
                let more = vec![round; 977 * usize::from(round)];
                placed.append(&more);
                expected.extend_from_slice(&more);
                assert_eq!(place_of(placed.as_slice()), place_of_offset(place));
            }
            placed.append_with(3, |out| out.extend_from_slice(b"end"));
            expected.extend_from_slice(b"end");
            assert!(placed.as_slice() == expected);
            placed.resize(7);
            assert_eq!(placed.as_slice(), &expected[..7]);
        }
    }
}
