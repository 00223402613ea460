//! A child process of a test: its lines of standard output one by one, its standard error in a file, each wait bounded.
//!
//! The end of the process is noticed as the end of its standard output, so nothing here polls or sleeps. Dropping a
//! `Process` kills it, and tells its standard error if the test failed. Which programs are run, and what they say, stands with the callers.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// At most this much of a child's standard error is quoted in a panic.
const QUOTED_BYTES_MAX: usize = 8 * 1024;
/// And this much of the last line that it was told.
const QUOTED_LINE_CHARS_MAX: usize = 200;

/// A running child process.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    last_said: String,
    lines: Receiver<String>,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command`; its standard error goes to a file `NAME.stderr` in `folder`.
    pub(crate) fn start(name: &str, command: &mut Command, folder: &Path) -> Self {
        let stderr = folder.join(format!("{name}.stderr"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            // The send fails only once the Process is gone; the pipe is emptied all the same, so that the child never blocks.
            stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Self { name: name.to_owned(), child, stdin, last_said: String::new(), lines, stderr }
    }

    /// The process id, for signals and for reading `/proc`.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of standard output; panics with the standard error if none comes within `bound`.
    pub(crate) fn line(&self, bound: Duration) -> String {
        self.lines.recv_timeout(bound).unwrap_or_else(|error| {
            panic!(
                "{} said nothing more ({error}, bound {bound:?}); its standard error:\n{}",
                self.name,
                self.stderr()
            )
        })
    }

    /// The rest of the first line that starts with `prefix`.
    pub(crate) fn line_after(&self, prefix: &str, bound: Duration) -> String {
        let end = Instant::now() + bound;
        loop {
            let line = self.line(end.saturating_duration_since(Instant::now()));
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Writes one line to the standard input.
    pub(crate) fn say(&mut self, line: &str) {
        self.last_said = line.chars().take(QUOTED_LINE_CHARS_MAX).collect();
        let stdin = self.stdin.as_mut().expect("nobody says anything after closing the standard input");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).unwrap_or_else(|error| {
            panic!("{} does not listen any more ({error}); its standard error:\n{}", self.name, self.stderr())
        });
    }

    /// Sends a signal by its name without SIG, such as TERM, STOP or CONT.
    pub(crate) fn signal(&self, signal: &str) {
        let sent =
            Command::new("sh").args(["-c", &format!("kill -{signal} {}", self.pid())]).status().unwrap();
        assert!(sent.success(), "cannot send SIG{signal} to {}", self.name);
    }

    /// Ends it at once, as SIGKILL does, and waits until it is gone.
    pub(crate) fn kill(&mut self) -> ExitStatus {
        // The kill fails only where the process is gone already.
        let _ = self.child.kill();
        self.child.wait().unwrap()
    }

    /// Waits for the end of the process; panics if it does not come within `bound`.
    pub(crate) fn wait(&mut self, bound: Duration) -> ExitStatus {
        let end = Instant::now() + bound;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => {
                    panic!(
                        "{} did not end within {bound:?}; its standard error:\n{}",
                        self.name,
                        self.stderr()
                    )
                }
            }
        }
    }

    /// The end of what it wrote to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        let text = fs::read(&self.stderr).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(QUOTED_BYTES_MAX)..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let stderr = self.stderr();
        if thread::panicking() && !stderr.is_empty() {
            eprintln!("{} wrote to its standard error:\n{stderr}", self.name);
        }
    }
}
