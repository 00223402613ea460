//! What a capture tells its caller of a read: the same words for each protocol.

use super::Failure;
use crate::entry::Submission;

/// What a read was found to be.
pub struct Observed {
    /// Its evidence, to be committed before any of its bytes go on. Without entries, nothing has to be waited for.
    pub submission: Submission,
    /// Bytes at its beginning that may go on then.
    pub forward: usize,
    /// What becomes true for the peers when they do.
    pub milestones: Vec<Milestone>,
    /// Why the connection must end behind them.
    pub failure: Option<Failure>,
}

/// What a forwarded read changes for the peers: enough to answer the open calls ourselves, should it come to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// The client has opened a stream.
    Opened {
        /// Its number.
        stream: u32,
        /// Whether it is a gRPC call.
        is_grpc: bool,
    },
    /// The client has a response header block of this stream.
    Responded(u32),
    /// The stream has ended for the client: nothing more may be sent on it.
    Ended(u32),
    /// The client has a GOAWAY with this last stream.
    GoAway(u32),
    /// The client waits for an acknowledgement of its SETTINGS.
    Settings,
    /// The client waits for an answer to a PING.
    Ping([u8; 8]),
    /// What follows is no HTTP any more, and nobody can answer it.
    Opaque,
}
