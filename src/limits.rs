//! Every default bound of attestry, each with its unit in the name and the reason for its value.
//!
//! Invariants: a default lies inside the range that stands under it (`config` tests it), and nothing here is
//! computed at run time. A bound that an operator may change has a `_RANGE` beside it and a key in `proxy.toml`; one
//! without a range is fixed. The reading of that file is in `config`, the enforcement in the module that owns the
//! resource.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

const fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("each count in this file is written out and is not zero")
}

// Workers and waits of the proxy.

/// Worker threads; 0 means one for each core that the process may use, which is what a container's CPU set says.
pub const WORKERS: usize = 0;
/// Beyond 256 a typing error is likelier than such a machine.
pub const WORKERS_RANGE: RangeInclusive<usize> = 0..=256;

/// Wait for a TCP connection to the upstream. The upstream of a sidecar is one hop away, so five seconds only pass
/// when it is down, and most callers' own deadlines are longer than that.
pub const CONNECT_TIMEOUT_MS: u64 = 5_000;
/// From "at once" in a test to ten minutes, after which no caller waits any more.
pub const CONNECT_TIMEOUT_MS_RANGE: RangeInclusive<u64> = 1..=600_000;

/// Time for open calls to end after SIGTERM: the grace period that Kubernetes gives a pod by default.
pub const DRAIN_TIMEOUT_MS: u64 = 30_000;
/// Zero cuts open calls at once; an hour is the longest grace period seen in practice.
pub const DRAIN_TIMEOUT_MS_RANGE: RangeInclusive<u64> = 0..=3_600_000;

// HTTP/2, per connection.

/// Decoded size of one header list as RFC 9113 section 6.5.2 counts it. Servers accept between 8 KiB and 16 MiB, few
/// callers send more than 64 KiB, and the relay must not be the strictest on the way.
pub const HEADER_LIST_BYTES_MAX: u32 = 1024 * 1024;
/// From the smallest to the largest default bound among the gRPC implementations.
pub const HEADER_LIST_BYTES_MAX_RANGE: RangeInclusive<u32> = 8 * 1024..=16 * 1024 * 1024;

/// Payload of one frame: the largest that RFC 9113 section 4.2 allows. The two peers agree on their own frame size
/// end to end; a lower bound here would break a connection that both of them find correct.
pub const FRAME_BYTES_MAX: u32 = 16_777_215;
/// Every peer may send 2^14 bytes unasked (RFC 9113 section 4.2), and no peer may ask for 2^24.
pub const FRAME_BYTES_MAX_RANGE: RangeInclusive<u32> = 16_384..=16_777_215;

/// Streams of one connection that are tracked at a time. Servers allow 100 to 1,000, so this is reached by a flood of
/// resets and by nothing else.
pub const STREAMS_MAX: NonZeroUsize = count(10_000);
/// A million tracked streams is some hundred MiB, for one connection.
pub const STREAMS_MAX_RANGE: RangeInclusive<NonZeroUsize> = count(1)..=count(1_000_000);

/// Bytes held in one direction of one connection until their commit. One MiB is what a link of 1 Gbit/s carries in 8 ms,
/// many times the wait for a commit. The relay raises it to one frame of the largest size where it is lower.
pub const HOLD_BYTES_MAX: usize = 1024 * 1024;
/// Below 64 KiB, the default window of HTTP/2, every commit would stall the peer.
pub const HOLD_BYTES_MAX_RANGE: RangeInclusive<usize> = 64 * 1024..=1024 * 1024 * 1024;

/// CONTINUATION frames of one header block: 1,024 of the default frame size carry 16 MiB, the largest header list
/// that can be configured; a flood of empty ones ends here.
pub const CONTINUATIONS_MAX: u32 = 1_024;
/// One may still be needed for any list above one frame; 65,536 is beyond any use.
pub const CONTINUATIONS_MAX_RANGE: RangeInclusive<u32> = 1..=65_536;

// The whole process.

/// Connections open at a time, each with one upstream connection: 8,192 sockets, within the usual limit of file
/// descriptors in a container.
pub const CONNECTIONS_MAX: NonZeroUsize = count(4_096);
/// A million needs a machine that was tuned for it.
pub const CONNECTIONS_MAX_RANGE: RangeInclusive<NonZeroUsize> = count(1)..=count(1_000_000);

/// Submissions that wait for the committer: one for each connection that may be open. Past it, reading stops.
pub const COMMIT_QUEUE_MAX: NonZeroUsize = count(4_096);
/// One makes every submission wait for the one before it, which is slow and correct.
pub const COMMIT_QUEUE_MAX_RANGE: RangeInclusive<NonZeroUsize> = count(1)..=count(1_000_000);

// The ledger.

/// Length of one segment file: small enough to copy and verify by itself, large enough that a new one is rare.
pub const SEGMENT_BYTES: u64 = 64 * MIB;
/// A place in a segment is 32 bits, so the largest is one byte short of 4 GiB.
pub const SEGMENT_BYTES_RANGE: RangeInclusive<u64> = MIB..=4 * GIB - 1;

/// Wait for one commit until the ledger counts as failed. A healthy disk answers in a millisecond, a busy one in a
/// second; a call that was held for ten seconds is past most deadlines.
pub const COMMIT_WAIT_MS_MAX: u64 = 10_000;
/// From "at once" in a test to ten minutes.
pub const COMMIT_WAIT_MS_MAX_RANGE: RangeInclusive<u64> = 1..=600_000;

/// Pause between two tries to bring a refusing ledger back: a disk that was freed is seen within a second, and a
/// broken one is not hammered.
pub const RECOVERY_INTERVAL_MS: u64 = 1_000;
/// From 10 ms in a test to an hour.
pub const RECOVERY_INTERVAL_MS_RANGE: RangeInclusive<u64> = 10..=3_600_000;

/// Page cache of the index. Rows are small and mostly read when they are new, so a few MiB serve them.
pub const DB_CACHE_BYTES: u64 = 16 * MIB;
/// From what one query needs to what a dedicated reader may want.
pub const DB_CACHE_BYTES_RANGE: RangeInclusive<u64> = MIB..=16 * GIB;

/// Bytes of one group commit. An append of 1 MiB takes 0.3 ms and of 8 MiB a few, which is the longest that a small
/// call should wait behind large ones.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// 64 KiB holds one entry of the largest size; past 1 GiB a commit takes seconds.
pub const BATCH_BYTES_MAX_RANGE: RangeInclusive<usize> = 64 * 1024..=1024 * 1024 * 1024;

// Texts in the configuration.

/// The configuration file: the sample with every comment is 6 KiB, so a larger file is the wrong file.
pub const CONFIG_BYTES_MAX: u64 = MIB;

/// Faulty lines after which the reading of a configuration file stops: a file with more is not a configuration.
pub const SYNTAX_FAULTS_MAX: usize = 20;

/// A path or a log filter: what Linux accepts as a path (`PATH_MAX`).
pub const TEXT_BYTES_MAX: usize = 4_096;

/// An origin: a host name with a path, printed in every checkpoint and in every key's name.
pub const ORIGIN_BYTES_MAX: usize = 255;

/// One value of `[identity]`: Kubernetes names are at most 253 bytes, a SPIFFE id 2,048; all of them together must fit
/// well into one entry of 65,535 bytes.
pub const IDENTITY_BYTES_MAX: usize = 2_048;

// Fixed bounds of the ledger's writer.

/// Zeros written ahead in a segment for which no spare is ready: they delay a start by some ten milliseconds, and
/// last until the first spare is.
pub const SEGMENT_FIRST_FILL_BYTES: u64 = 8 * MIB;

/// A segment whose zeros are used up is left for a prepared one from this size on: smaller ones would only be many.
pub const SEGMENT_LEFT_EARLY_BYTES: u64 = 4 * MIB;

/// Zeros written at a time while a spare is filled: large enough to be quick, small enough to leave the disk to commits.
pub const SPARE_WRITE_BYTES: usize = 256 * 1024;

/// Entries in one group commit: some ten milliseconds of hashing at the most.
pub const BATCH_ENTRIES_MAX: usize = 16_384;

/// Rows of the lookup tables that wait for sled. Past it they are made from the segments instead, later.
pub const INDEX_QUEUE_MAX: usize = 65_536;

/// Time between two batches of rows: how far the lookup tables may be behind.
pub const INDEX_INTERVAL_MS: u64 = 100;

/// Time between two flushes of the lookup tables: they can always be rebuilt, so only how much has to be read again.
pub const INDEX_FLUSH_INTERVAL_MS: u64 = 1_000;

/// A file of a private key: a PKCS#8 PEM of Ed25519 is 119 bytes.
pub const KEY_FILE_BYTES_MAX: u64 = 16 * KIB;

// Fixed bounds of the data path.

/// Small DATA frames held in one direction of one connection. What is held for a commit is released at once, and a receiver may take a
/// burst of small frames for an attack: h2 allows some 2,300 at a window of 1 MiB. At a commit of 0.2 ms this still lets two million pass per second.
pub const HELD_SMALL_DATA_MAX: usize = 500;

/// Quiet time of a draining connection, without a call, before its last GOAWAY: calls that the client had sent before it read the first
/// one arrive within a round trip.
pub const DRAIN_QUIET_MS: u64 = 100;

/// Life of a connection whose calls are answered here: soon enough over that the client's next one tries again.
pub const LOCAL_ANSWERS_MS: u64 = 5_000;

/// Wait for a client to read the last bytes that it was sent.
pub const LINGER_MS: u64 = 1_000;
