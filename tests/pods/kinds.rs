//! The kinds of connections that the thousand are: what is spoken on each, where it is dialled, and how much there is of it.

use std::fmt;

/// What one connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// gRPC, unary calls and streams, in plaintext.
    Grpc,
    /// HTTP/1.1, kept alive.
    Http1,
    /// The server speaks first.
    Greeting,
    /// The client speaks first, in no protocol that anybody knows, and half-closes in the end.
    Chatter,
    /// The same within TLS of the peers' own, that nobody opens.
    Sealed,
    /// gRPC within the application's own mTLS, that the sidecar at the service opens.
    Secure,
    /// gRPC, in plaintext for both peers, in mTLS between the sidecars.
    Mesh,
}

/// In each forty connections.
const SHARES: [(Kind, usize); 7] = [
    (Kind::Grpc, 10),
    (Kind::Http1, 8),
    (Kind::Greeting, 5),
    (Kind::Chatter, 5),
    (Kind::Sealed, 3),
    (Kind::Secure, 4),
    (Kind::Mesh, 5),
];

impl Kind {
    /// The kind of the connection with this number.
    pub(crate) fn of(number: usize) -> Self {
        let all: usize = SHARES.iter().map(|(_, share)| share).sum();
        let mut rest = number % all;
        for (kind, share) in SHARES {
            if rest < share {
                return kind;
            }
            rest -= share;
        }
        unreachable!("the shares sum up to all")
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        SHARES.into_iter().map(|(kind, _)| kind)
    }

    /// The service's port.
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Grpc => 5010,
            Self::Http1 => 5011,
            Self::Greeting => 5012,
            Self::Chatter => 5013,
            Self::Sealed => 5014,
            Self::Secure => 5015,
            Self::Mesh => 5016,
        }
    }

    /// Whether its calls can be read at the client's sidecar, and at the service's.
    pub(crate) fn is_read_at(self) -> [bool; 2] {
        match self {
            Self::Grpc | Self::Http1 | Self::Mesh => [true, true],
            Self::Secure => [false, true],
            Self::Greeting | Self::Chatter | Self::Sealed => [false, false],
        }
    }

    /// Whether a connection is left and made anew after some calls, and not only when it has to be: so that certificates are shown again,
    /// and because a conversation that nobody can read has no other end that a drain could wait for.
    pub(crate) fn is_brief(self) -> bool {
        !matches!(self, Self::Grpc | Self::Http1)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{self:?}").to_lowercase())
    }
}
