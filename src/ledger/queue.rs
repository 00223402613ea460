//! The commit queue: handles put jobs in, the commit thread takes them out.
//!
//! Whoever puts a job in while the commit thread sleeps owes it a [`Nudge`], and decides when to give it. A thread that is woken by the first job of many displaces, on
//! a busy core, the very worker that is about to put in the others, and commits that one alone; nudged when the worker has served what was ready, it commits all of
//! them at once. A nudge is given at the latest when it is dropped, and a thread that is owed one wakes by itself when its wait is over.

use super::committer::Job;
use std::collections::VecDeque;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A queue without bound: places in it are given out by `handle`.
pub(super) fn queue() -> (JobSender, JobReceiver) {
    let shared = Arc::new(Shared::default());
    shared.lock().senders = 1;
    (JobSender(Arc::clone(&shared)), JobReceiver(shared))
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    senders: usize,
    is_abandoned: bool,
    is_asleep: bool,
    is_nudge_owed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end where jobs are put in.
pub(super) struct JobSender(Arc<Shared>);

impl JobSender {
    /// Puts a job in; `None` where nobody will take it. The nudge is the caller's to give.
    pub fn send(&self, job: Job) -> Option<Nudge> {
        let mut state = self.0.lock();
        if state.is_abandoned {
            return None;
        }
        state.jobs.push_back(job);
        let is_first = state.is_asleep && !state.is_nudge_owed;
        state.is_nudge_owed |= is_first;
        Some(Nudge(is_first.then(|| Arc::clone(&self.0))))
    }
}

impl Clone for JobSender {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for JobSender {
    /// The last one to go wakes the thread for its end.
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        if state.senders == 0 {
            self.0.arrived.notify_one();
        }
    }
}

/// What a sleeping commit thread is owed, if anything. Given by being dropped.
pub(super) struct Nudge(Option<Arc<Shared>>);

impl Nudge {
    /// Whether there is anything to give.
    pub fn is_owed(&self) -> bool {
        self.0.is_some()
    }

    /// Wakes the commit thread.
    pub fn give(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.lock().is_nudge_owed = false;
            shared.arrived.notify_one();
        }
    }
}

impl Drop for Nudge {
    fn drop(&mut self) {
        self.give();
    }
}

/// The end where jobs are taken out.
pub(super) struct JobReceiver(Arc<Shared>);

impl JobReceiver {
    /// The next job, waited for if there is none.
    pub fn recv_timeout(&self, wait: Duration) -> Result<Job, RecvTimeoutError> {
        let mut state = self.0.lock();
        if state.jobs.is_empty() {
            state.is_asleep = true;
            let sleeps =
                |state: &mut State| (state.jobs.is_empty() || state.is_nudge_owed) && state.senders > 0;
            let waited = self.0.arrived.wait_timeout_while(state, wait, sleeps);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            (state.is_asleep, state.is_nudge_owed) = (false, false);
        }
        let over =
            if state.senders == 0 { RecvTimeoutError::Disconnected } else { RecvTimeoutError::Timeout };
        state.jobs.pop_front().ok_or(over)
    }

    /// The next job, if there is one.
    pub fn try_recv(&self) -> Option<Job> {
        self.0.lock().jobs.pop_front()
    }
}

impl Drop for JobReceiver {
    /// Whoever waits for an answer learns that there will be none.
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_abandoned = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        drop(jobs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Submission;
    use std::thread;
    use tokio::sync::oneshot;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(60);

    fn job(wire_bytes: u64) -> Job {
        let submission = Submission { wire_bytes, ..Submission::default() };
        Job { submission, answer: oneshot::channel().0, _place: None }
    }

    fn taken(receiver: &JobReceiver) -> Vec<u64> {
        std::iter::from_fn(|| receiver.try_recv()).map(|job| job.submission.wire_bytes).collect()
    }

    fn wait_until_asleep(sender: &JobSender) {
        while !sender.0.lock().is_asleep {
            thread::yield_now();
        }
    }

    #[test]
    fn a_sleeper_is_owed_one_nudge_and_gets_all_that_came_before_it() {
        let (sender, receiver) = queue();
        let sleeper = thread::spawn(move || {
            let first = receiver.recv_timeout(LONG).unwrap();
            (first.submission.wire_bytes, taken(&receiver))
        });
        wait_until_asleep(&sender);
        let mut nudges: Vec<Nudge> = (0..3).map(|number| sender.send(job(number)).unwrap()).collect();
        assert_eq!(nudges.iter().map(Nudge::is_owed).collect::<Vec<_>>(), [true, false, false]);
        nudges.truncate(1);
        assert!(sender.0.lock().is_asleep, "nobody has nudged it");
        drop(nudges);
        assert_eq!(sleeper.join().unwrap(), (0, vec![1, 2]));
    }

    #[test]
    fn a_nudge_that_never_comes_is_not_waited_for_for_ever() {
        let (sender, receiver) = queue();
        let sleeper = thread::spawn(move || receiver.recv_timeout(Duration::from_millis(50)).is_ok());
        wait_until_asleep(&sender);
        std::mem::forget(sender.send(job(0)));
        assert!(sleeper.join().unwrap());
    }

    #[test]
    fn who_is_awake_is_owed_nothing() {
        let (sender, receiver) = queue();
        assert!(!sender.send(job(7)).unwrap().is_owed());
        assert_eq!(receiver.recv_timeout(LONG).unwrap().submission.wire_bytes, 7);
        assert!(matches!(receiver.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout)));
        assert!(!sender.send(job(8)).unwrap().is_owed(), "it slept, and does no more");
    }

    #[test]
    fn the_ends_learn_of_each_others_end() {
        let (sender, receiver) = queue();
        let sleeper = thread::spawn(move || receiver.recv_timeout(LONG).err());
        wait_until_asleep(&sender);
        drop((sender.clone(), sender));
        assert_eq!(sleeper.join().unwrap(), Some(RecvTimeoutError::Disconnected));

        let (sender, receiver) = queue();
        let (answer, mut receipt) = oneshot::channel();
        let submission = Submission::default();
        assert!(sender.send(Job { submission, answer, _place: None }).is_some());
        drop(receiver);
        assert!(matches!(receipt.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert!(sender.send(job(0)).is_none());
    }
}
