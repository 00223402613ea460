//! Random identifiers of calls and connections: attestry's own, never the caller's.

/// An identifier of a call.
pub type CallId = [u8; 16];

type Fill = Box<dyn FnMut(&mut [u8])>;

/// Gives random identifiers from a small pool, so that the system is asked once for many.
pub struct Ids {
    pool: Vec<u8>,
    fill: Fill,
}

const POOL_BYTES: usize = 1024;

impl Ids {
    /// From the system's random source.
    pub fn random() -> Self {
        Self::from_source(|bytes| getrandom::fill(bytes).expect("Linux always gives random bytes after boot"))
    }

    /// From another source, for tests that must be repeatable.
    pub fn from_source(fill: impl FnMut(&mut [u8]) + 'static) -> Self {
        Self { pool: Vec::new(), fill: Box::new(fill) }
    }

    /// An identifier of a call.
    pub fn call(&mut self) -> CallId {
        if self.pool.len() < 16 {
            self.pool.resize(POOL_BYTES, 0);
            (self.fill)(&mut self.pool);
        }
        let mut id = [0; 16];
        let left = self.pool.len() - 16;
        id.copy_from_slice(&self.pool[left..]);
        self.pool.truncate(left);
        id
    }

    /// An identifier of a connection; not zero.
    pub fn connection(&mut self) -> u64 {
        let id = self.call();
        u64::from_le_bytes(*id.first_chunk().expect("8 of 16 bytes")).max(1)
    }
}
