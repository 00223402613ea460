//! `attestry demo`, being made.

/// Not yet.
pub fn demo() {}
