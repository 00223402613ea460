//! Puts finished calls back into the order in which they began.
//!
//! A call waits for those that began before it and still run. Invariant: at most [`WAITING_CALLS_MAX`] wait;
//! beyond that the oldest go out at once, and a call that outlasted so many comes when it ends. So one stream
//! that stays open for days does not fill the memory.

use super::calls::CallSummary;
use std::collections::BTreeMap;

/// Finished calls that wait for one that began before them: some tens of MiB.
const WAITING_CALLS_MAX: usize = 65_536;

/// Calls by their first entry.
#[derive(Debug, Default)]
pub struct InOrder {
    waiting: BTreeMap<u64, CallSummary>,
}

impl InOrder {
    /// Takes a finished call.
    pub fn push(&mut self, call: CallSummary) {
        self.waiting.insert(call.first_index, call);
    }

    /// The next call, where none that began before it is unfinished.
    pub fn pop(&mut self, oldest_unfinished: Option<u64>) -> Option<CallSummary> {
        let first = *self.waiting.first_key_value()?.0;
        let is_due = oldest_unfinished.is_none_or(|oldest| first < oldest);
        if is_due || self.waiting.len() > WAITING_CALLS_MAX { self.waiting.remove(&first) } else { None }
    }
}
