//! The cases, and the function between whose beginning and end a case's instructions count.

use super::{captures, commits, relayed};
use anyhow::Context as _;
use std::hint::black_box;
use std::path::Path;

/// The name of [`counted_work`], as it stands within its symbol.
pub(crate) const COUNTED_FUNCTION: &str = "counted_work";

/// One fixed piece of work.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What it is counted for, such as a call.
    pub(crate) unit: &'static str,
    /// How many of those it does at scale 1.
    pub(crate) units: u64,
    /// A part may change by so many instructions to the unit without a word.
    pub(crate) noise: u64,
    pub(crate) work: Work,
}

/// Where nothing differs from run to run, what is nearly nothing may still change by a little.
pub(crate) const LITTLE: u64 = 20;

/// Work that is ready to be done.
pub(crate) type Ready = Box<dyn FnOnce()>;

/// How the work is set apart from what has to be done for it.
pub(crate) enum Work {
    /// All of it runs on one thread, and all that it needs is made before it counts.
    Alone(fn() -> Ready),
    /// It has threads of its own: the whole process counts, once with one and once with two times the units, and the difference is taken.
    WithThreads {
        /// Makes in a folder what the work needs, in a process that does not count.
        prepare: fn(&Path, u64) -> anyhow::Result<()>,
        run: fn(&Path, u64) -> anyhow::Result<()>,
    },
}

impl Case {
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self.work, Work::Alone(_))
    }

    pub(crate) fn prepare(&self, folder: &Path, scale: u64) -> anyhow::Result<()> {
        match self.work {
            Work::Alone(_) => Ok(()),
            Work::WithThreads { prepare, .. } => prepare(folder, scale),
        }
    }

    /// Does the work, in a process that counts.
    pub(crate) fn run(&self, folder: &Path, scale: u64) -> anyhow::Result<()> {
        match self.work {
            Work::Alone(make_ready) => {
                counted_work(make_ready());
                Ok(())
            }
            Work::WithThreads { run, .. } => run(folder, scale),
        }
    }
}

/// Counting begins where this is entered and ends where it is left.
#[inline(never)]
fn counted_work(work: Ready) {
    work();
    // Keeps the call above from becoming a jump out of this function.
    black_box(());
}

/// All of them, in the order of the table.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    captures::CASES.iter().chain(relayed::CASES).chain(commits::CASES)
}

pub(crate) fn named(name: &str) -> anyhow::Result<&'static Case> {
    all().find(|case| case.name == name).with_context(|| format!("there is no case \"{name}\""))
}
