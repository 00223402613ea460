//! Connections that were turned away, summed: a flood of them makes one entry for each reason and interval, not one each.

use crate::entry::{Body, PendingEntry, Submission};
use crate::generated::v1::{self, notice};
use crate::limits::TURNED_AWAY_PLACES;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// All places for connections are taken.
    Connections,
    /// All places for handshakes are.
    Handshakes,
    /// It goes nowhere.
    Way,
}

/// What has not been said in the ledger yet.
#[derive(Debug)]
pub struct TurnedAway {
    sums: Mutex<BTreeMap<Why, v1::Notice>>,
    places: Arc<Semaphore>,
}

impl Default for TurnedAway {
    fn default() -> Self {
        Self { sums: Mutex::default(), places: Arc::new(Semaphore::new(TURNED_AWAY_PLACES)) }
    }
}

impl TurnedAway {
    /// One more. Of each sum the first reason stands, as an example.
    pub(super) fn add(&self, why: Why, reason: &str, now_unix_nanos: u64) {
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let notice = sums.entry(why).or_insert_with(|| v1::Notice {
            r#type: notice::Type::TurnedAway.into(),
            reason: reason.to_owned(),
            count: 0,
            from_unix_nanos: now_unix_nanos,
            to_unix_nanos: now_unix_nanos,
        });
        notice.count += 1;
        notice.to_unix_nanos = now_unix_nanos;
    }

    /// A place for telling a client in words; where there is none, it gets a reset.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// What is to be said now, if anything.
    pub(super) fn take(&self) -> Option<Submission> {
        let sums = std::mem::take(&mut *self.sums.lock().unwrap_or_else(PoisonError::into_inner));
        let entries: Vec<_> =
            sums.into_values().map(|notice| PendingEntry::new(&Body::Notice(notice))).collect();
        (!entries.is_empty()).then_some(Submission { entries, wire_bytes: 0 })
    }
}
