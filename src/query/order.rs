//! Puts what is finished back into the order in which it began.
//!
//! A call (or a connection) waits for those that began before it and still run. Invariant: at most [`WAITING_MAX`] wait;
//! beyond that the oldest go out at once, and one that outlasted so many comes when it ends. So one stream that stays
//! open for days does not fill the memory.

use std::collections::BTreeMap;

/// What is finished and waits for something that began before it: some tens of MiB.
const WAITING_MAX: usize = 65_536;

/// Items by their first entry.
#[derive(Debug)]
pub struct InOrder<T> {
    waiting: BTreeMap<u64, T>,
}

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new() }
    }
}

impl<T> InOrder<T> {
    /// Takes a finished item, whose first entry is `first_index`.
    pub fn push(&mut self, first_index: u64, item: T) {
        self.waiting.insert(first_index, item);
    }

    /// The next item, where none that began before it is unfinished.
    pub fn pop(&mut self, oldest_unfinished: Option<u64>) -> Option<T> {
        let first = *self.waiting.first_key_value()?.0;
        let is_due = oldest_unfinished.is_none_or(|oldest| first < oldest);
        if is_due || self.waiting.len() > WAITING_MAX { self.waiting.remove(&first) } else { None }
    }
}
