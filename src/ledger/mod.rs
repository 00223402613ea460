//! The ledger on disk: append-only segments of signed group commits, and what can be rebuilt from them.
//!
//! Reading (`frame`, `segment`, `head`, `fsck`) builds without the `proxy` feature. Writing stands behind it. The format is
//! docs/ledger-format.md; the life of a commit and what each crash leaves is docs/commit-protocol.md.

pub mod frame;
pub mod fsck;
pub mod genuine;
pub mod head;
pub mod key;
mod placed;
pub mod row;
pub mod segment;

#[cfg(feature = "proxy")]
mod block_file;
#[cfg(feature = "proxy")]
mod committer;
#[cfg(feature = "proxy")]
pub mod disk;
#[cfg(feature = "proxy")]
mod handle;
#[cfg(feature = "proxy")]
mod health;
#[cfg(feature = "proxy")]
pub mod index;
#[cfg(feature = "proxy")]
pub mod open;
#[cfg(feature = "proxy")]
mod patience;
#[cfg(feature = "proxy")]
mod spare;
#[cfg(feature = "proxy")]
pub mod store;
#[cfg(feature = "proxy")]
mod tail;
#[cfg(feature = "proxy")]
pub mod writer;

#[cfg(feature = "proxy")]
pub use handle::{Commit, Ledger, LedgerHandle, Options};
#[cfg(feature = "proxy")]
pub use health::{Health, OnFailure};
