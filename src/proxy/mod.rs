//! The data path: a connection is accepted, admitted, given its upstream, and relayed frame by frame.
//!
//! ```text
//!  accept ──▶ stack (limit) ──▶ connect ──▶ relay: read → capture → commit port ⇒ hold → write, once for each direction
//!                  │                │          │
//!                  └────────────────┴──────────┴──▶ local: what attestry answers itself when it may not or cannot forward
//! ```
//! It knows the commit port, not the ledger. TLS, protocol detection and original destinations have their places in `stack`.

mod accept;
mod answers;
mod connect;
mod local;
mod pipe;
mod relay;
mod session;
mod stack;

pub use accept::{Closed, Listeners, bind};
pub use connect::Upstream;
pub use stack::{Accepted, DrainSignals, Options};

use crate::entry::{CommitError, Receipt, Submission};
use tower::Service;

/// The commit port as the data path needs it.
pub trait CommitPort:
    Service<Submission, Response = Receipt, Error = CommitError, Future: Unpin> + Clone + 'static
{
}

impl<S> CommitPort for S where
    S: Service<Submission, Response = Receipt, Error = CommitError, Future: Unpin> + Clone + 'static
{
}
