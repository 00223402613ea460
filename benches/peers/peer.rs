//! The peers: what the calls can go through, what each is called, and which program and Debian package it is.
//!
//! How they are configured is in `settings`, how they are started in `running`, how they get onto the machine in `install`.

use std::fmt;

/// What the calls go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Peer {
    /// Nothing: the client speaks to the backend.
    Direct,
    Nghttpx,
    Haproxy,
    Nginx,
    /// Envoy that only proxies.
    Envoy,
    /// Envoy with an access log in a file.
    EnvoyLog,
    /// Envoy with its HTTP tap, a file for each call, bodies cut at 1 KiB.
    EnvoyTap,
    Attestry,
    /// attestry with two workers on two cores.
    AttestryTwo,
}

impl Peer {
    /// The program that it is, and its Debian package; `None` for what needs none.
    pub(super) fn debian(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Nghttpx => Some(("nghttpx", "nghttp2-proxy")),
            Self::Haproxy => Some(("haproxy", "haproxy")),
            Self::Nginx => Some(("nginx", "nginx")),
            _ => None,
        }
    }

    pub(super) fn is_envoy(self) -> bool {
        matches!(self, Self::Envoy | Self::EnvoyLog | Self::EnvoyTap)
    }

    pub(super) fn is_attestry(self) -> bool {
        matches!(self, Self::Attestry | Self::AttestryTwo)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Nghttpx => "nghttpx",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
            Self::EnvoyLog => "Envoy, access log",
            Self::EnvoyTap => "Envoy, HTTP tap",
            Self::Attestry => "attestry",
            Self::AttestryTwo => "attestry, two cores",
        })
    }
}
