//! The data path: a connection is accepted, admitted, given its upstream, understood, and relayed.
//!
//! ```text
//!  accept ──▶ stack (limit) ──▶ route ──▶ connect ──▶ detect ──▶ secure ──▶ relay: read → capture → commit port ⇒ hold → write, once for each direction
//!                  │              │          │          │           │          │
//!                  └──────────────┴──────────┴──────────┴───────────┴──────────┴──▶ local: what attestry answers itself when it may not or cannot forward
//! ```
//! It knows the commit port, not the ledger. What a protocol's bytes mean is `crate::capture`'s; which protocol it is, `talk` tells the relay.

mod accept;
mod answers;
mod connect;
mod detect;
mod drain;
mod half_closed;
mod link;
mod local;
mod pipe;
mod relay;
mod route;
mod secure;
mod session;
mod stack;
mod talk;
mod tls;
mod turned_away;

pub use accept::{Entrance, Listeners, bind};
pub use connect::Upstream;
pub use detect::Bounds;
pub use link::TcpOptions;
pub use route::{Role, Route};
pub use secure::{ClientTls, TlsTerms, UpstreamTls};
pub use stack::{Accepted, DrainSignals, Options};
pub use turned_away::TurnedAway;

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
