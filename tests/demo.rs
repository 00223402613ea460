//! The demo does what the README promises: calls of all shapes through the sidecar, an intact ledger, and one flipped bit found.

#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

use std::process::{Command, Stdio};

#[test]
fn the_demo_shows_calls_a_timeline_and_both_verdicts() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_attestry"))
        .arg("demo")
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for method in ["GetBalance", "Deposit", "Statement", "Transfer"] {
        assert!(
            text.contains(&format!("/attestry.demo.v1.Accounts/{method}")),
            "{method} is not listed:\n{text}"
        );
    }
    for status in ["OK", "NOT_FOUND", "CANCELLED"] {
        assert!(text.contains(status), "no call is {status}:\n{text}");
    }
    assert!(text.contains("SERVER_MESSAGE"), "no timeline:\n{text}");
    assert!(text.contains("intact"), "no green verdict:\n{text}");
    assert!(
        text.contains("payload-digest") || text.contains("damaged-frame"),
        "the flipped bit is not named:\n{text}"
    );
    assert!(text.contains("it speaks of call "), "the damaged call is not named:\n{text}");
    assert!(!text.contains("alice-s-token"), "a secret is shown:\n{text}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "the demo cleans up behind itself");
}
