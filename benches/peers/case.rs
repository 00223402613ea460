//! What is measured: kinds of work, and which peers do each of them.
//!
//! The rows of the table of targets are measured through all peers. What only feeds the plots, loads and message sizes in between, is measured for shorter and through
//! those peers that the plots show.

use super::load::Shape;
use super::peer::Peer;
use std::fmt;

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Unary echoes, as many at a time as the shape says.
    Unary { shape: Shape, payload_bytes: u32 },
    /// Calls that are answered with 10,000 messages of 1 KiB, one at a time on each connection.
    Streams { connections: u32 },
    /// One call of so many messages of 64 KiB.
    Upload { messages: u32 },
    /// Connections that have made one call.
    Idle { connections: u32 },
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unary { shape, payload_bytes } => write!(f, "unary {shape} {payload_bytes} B"),
            Self::Streams { connections } => write!(f, "streams {connections}x1 10000 x 1024 B"),
            Self::Upload { messages } => write!(f, "upload {} MiB", messages / UPLOADED_MESSAGES_PER_MIB),
            Self::Idle { connections } => write!(f, "idle {connections} connections"),
        }
    }
}

/// One kind of work, and who does it.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) work: Work,
    pub(super) peers: Vec<Peer>,
    /// Feeds a plot only.
    pub(super) is_brief: bool,
}

const UPLOADED_MESSAGES_PER_MIB: u32 = 16;
const MIB_PER_GIB: u32 = 1024;

const ALL: &[Peer] = &[
    Peer::Direct,
    Peer::Nghttpx,
    Peer::Haproxy,
    Peer::Nginx,
    Peer::Envoy,
    Peer::EnvoyLog,
    Peer::EnvoyTap,
    Peer::Attestry,
];
/// Without the two that differ from Envoy only in what they write of each call.
const PLAIN: &[Peer] =
    &[Peer::Direct, Peer::Nghttpx, Peer::Haproxy, Peer::Nginx, Peer::Envoy, Peer::Attestry];
pub(super) const PLOTTED: &[Peer] = &[Peer::Nghttpx, Peer::Nginx, Peer::Envoy, Peer::Attestry];
const QUICK: &[Peer] = &[Peer::Direct, Peer::Nghttpx, Peer::Envoy, Peer::Attestry];

/// One call at a time, and the shape of most rows.
pub(super) const SINGLE: Shape = Shape { connections: 1, streams: 1 };
pub(super) const BUSY: Shape = Shape { connections: 8, streams: 32 };
pub(super) const WIDE: Shape = Shape { connections: 32, streams: 1 };

/// Streams on each of 8 connections, and bytes of a message, that the plots go through.
pub(super) const PLOTTED_STREAMS: [u64; 5] = [1, 4, 16, 32, 64];
pub(super) const PLOTTED_PAYLOADS_BYTES: [u32; 5] = [100, 1024, 4096, 16_384, 65_536];
/// The message size of the plots against load.
pub(super) const PLOTTED_LOAD_BYTES: u32 = 1024;

/// What the targets speak of besides unary calls.
pub(super) const GIB_UPLOAD: Work = Work::Upload { messages: MIB_PER_GIB * UPLOADED_MESSAGES_PER_MIB };
pub(super) const IDLE: Work = Work::Idle { connections: 1000 };
pub(super) const STREAMS: Work = Work::Streams { connections: 1 };
const STREAMS_OF_EIGHT: Work = Work::Streams { connections: 8 };

pub(super) const fn unary(shape: Shape, payload_bytes: u32) -> Work {
    Work::Unary { shape, payload_bytes }
}

/// Everything.
pub(super) fn full() -> Vec<Case> {
    let case = |work, peers: &[Peer]| Case { work, peers: peers.to_vec(), is_brief: false };
    let with_two = [ALL, &[Peer::AttestryTwo]].concat();
    let mut cases = vec![
        case(unary(SINGLE, 100), ALL),
        case(unary(BUSY, 100), &with_two),
        case(unary(BUSY, 1024), &with_two),
        case(unary(BUSY, 16_384), ALL),
        case(unary(WIDE, 1024), ALL),
        case(STREAMS, PLAIN),
        case(STREAMS_OF_EIGHT, PLAIN),
        case(GIB_UPLOAD, PLAIN),
        case(IDLE, &PLAIN[1..]),
    ];
    let loads = PLOTTED_STREAMS.map(|streams| unary(Shape { connections: 8, streams }, PLOTTED_LOAD_BYTES));
    let sizes = PLOTTED_PAYLOADS_BYTES.map(|payload_bytes| unary(BUSY, payload_bytes));
    let single_sizes = [1024, 16_384].map(|payload_bytes| unary(SINGLE, payload_bytes));
    for work in loads.into_iter().chain(sizes).chain(single_sizes) {
        if !cases.iter().any(|case| case.work == work) {
            cases.push(Case { work, peers: PLOTTED.to_vec(), is_brief: true });
        }
    }
    cases
}

/// A smoke run: one of each kind.
pub(super) fn quick() -> Vec<Case> {
    let case = |work, peers: &[Peer]| Case { work, peers: peers.to_vec(), is_brief: true };
    let ours = [Peer::Direct, Peer::Attestry];
    vec![
        case(unary(SINGLE, 100), QUICK),
        case(unary(BUSY, 100), QUICK),
        case(STREAMS, &ours),
        case(Work::Upload { messages: 64 * UPLOADED_MESSAGES_PER_MIB }, &ours),
        case(Work::Idle { connections: 50 }, &[Peer::Attestry]),
    ]
}
