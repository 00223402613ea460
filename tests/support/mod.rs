//! What several test files share: child processes with bounds on every wait, and `attestry run` as a sidecar.
//!
//! Each test file declares `mod support;` and uses a part of it. Nothing here knows a case.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its report, in its helpers too")]

pub(crate) mod process;
pub(crate) mod sidecar;

/// True where everything must run: a test that would skip for want of a tool fails instead.
pub(crate) fn nothing_may_be_skipped() -> bool {
    std::env::var("ATTESTRY_REQUIRE_ALL").is_ok_and(|value| value == "1")
}

/// Says loudly that a test did not run, or fails where nothing may be skipped.
pub(crate) fn skip(test: &str, why: &str) {
    assert!(
        !nothing_may_be_skipped(),
        "{test} cannot run, and ATTESTRY_REQUIRE_ALL=1 forbids skipping it: {why}"
    );
    eprintln!("SKIPPED {test}: {why}");
}
