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

/// Zeros written at a time while a spare is filled: a piece of 256 KiB costs as much CPU as one of 1 MiB, which keeps a commit waiting for half a
/// millisecond.
pub const SPARE_WRITE_BYTES: usize = 1024 * 1024;

/// Bytes of a write past the page cache that are copied to where they can be written from; longer ones are written from where they stand.
pub const COPIED_WRITE_BYTES_MAX: usize = 32 * 1024;

/// Entries in one group commit: some ten milliseconds of hashing at the most.
pub const BATCH_ENTRIES_MAX: usize = 16_384;

/// Rows of the lookup tables that wait for sled. Past it they are made from the segments instead, later.
pub const INDEX_QUEUE_MAX: usize = 65_536;

/// Bytes of a segment of which one frame has a row: a commit of one call makes a frame of some 700 bytes and sled keeps 300 bytes for a row, so a row for
/// each would be a second log. What is read on the way from a row to its frame takes no longer than the lookup of the row.
pub const INDEX_ROW_SPACING_BYTES: u64 = 32 * KIB;

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

/// Time in which a draining connection is waited for to be quiet. A client of HTTP/1 that calls without a pause never is, and cannot be told
/// to go away; behind this it is left at the first moment without a call, so that none is cut when the whole time is over.
pub const DRAIN_PATIENCE_MS: u64 = 1_000;

/// Life of a connection whose calls are answered here: soon enough over that the client's next one tries again.
pub const LOCAL_ANSWERS_MS: u64 = 5_000;

/// Wait for a client to read the last bytes that it was sent.
pub const LINGER_MS: u64 = 1_000;

// Interception and detection.

/// Wait for more bytes of a client whose first ones leave open what it speaks. It runs from that first byte on, never
/// while both sides are silent, so that no server-first protocol waits for it; a client that sends half a preface and
/// stops has sent all that it will within two seconds, on any network.
pub const DETECT_TIMEOUT_MS: u64 = 2_000;
/// From "at once" in a test to ten minutes.
pub const DETECT_TIMEOUT_MS_RANGE: RangeInclusive<u64> = 1..=600_000;

/// Bytes of a client that are read to tell what it speaks: the largest ClientHello that TLS implementations accept is
/// 64 KiB, and every other preface is shorter.
pub const DETECT_BYTES_MAX: usize = 64 * 1024;
/// A ClientHello with post-quantum key shares takes 1.7 KiB; past 1 MiB nothing that is still unknown becomes known.
pub const DETECT_BYTES_MAX_RANGE: RangeInclusive<usize> = 2 * 1024..=1024 * 1024;

// TLS.

/// Wait for one TLS handshake: some round trips and some milliseconds of signing, so ten seconds only pass where the
/// other side has stopped, or sends its bytes one by one to hold a place.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 10_000;
/// From "at once" in a test to ten minutes.
pub const HANDSHAKE_TIMEOUT_MS_RANGE: RangeInclusive<u64> = 1..=600_000;

/// Handshakes under way at a time in the whole process: each holds some 100 KiB and costs about a millisecond of a
/// core, so 256 are a quarter of a second of work and 25 MiB. A flood of unfinished ones ends here.
pub const HANDSHAKES_MAX: NonZeroUsize = count(256);
/// One does them in turn; more than connections there cannot be.
pub const HANDSHAKES_MAX_RANGE: RangeInclusive<NonZeroUsize> = count(1)..=count(1_000_000);

/// Protocols that a listener offers by ALPN: two are known, and a few more leave room for private ones.
pub const ALPN_PROTOCOLS_MAX: usize = 16;

/// Name of one of them (RFC 7301 section 3.1).
pub const ALPN_BYTES_MAX: usize = 255;

/// A SPIFFE id (SPIFFE-ID section 2.3).
pub const SPIFFE_ID_BYTES_MAX: usize = 2_048;

// TCP.

/// Silence of a connection after which the kernel asks whether its peer is still there. Half a minute is half of the time after which connection
/// tracking forgets a half-closed connection (60 s); an answer that came later would be lost between NAT and its client.
pub const KEEPALIVE_MS: u64 = 30_000;
/// Zero asks never; the kernel takes at most nine hours, in seconds.
pub const KEEPALIVE_MS_RANGE: RangeInclusive<u64> = 0..=32_767_000;

/// Time that sent bytes may go unacknowledged before the kernel ends the connection (`TCP_USER_TIMEOUT`, RFC 5482).
/// Linux ends by it also a connection whose peer keeps its window at zero for that long, although it acknowledges every
/// probe, so a short one would cut slow readers; a quarter of an hour is what Linux allows a dead peer by itself.
pub const USER_TIMEOUT_MS: u64 = 900_000;
/// Zero leaves it to the kernel; a day is longer than any peer is worth waiting for.
pub const USER_TIMEOUT_MS_RANGE: RangeInclusive<u64> = 0..=86_400_000;

/// Silence of a connection of which one side has ended, until it is ended as a whole. A server may think long after
/// the client's end, and says something within five minutes or has forgotten it.
pub const HALF_CLOSE_TIMEOUT_MS: u64 = 300_000;
/// From "at once" in a test to a day.
pub const HALF_CLOSE_TIMEOUT_MS_RANGE: RangeInclusive<u64> = 1..=86_400_000;

/// SO_MARK of connections to upstreams: none, since setting one takes a capability.
pub const MARK: u32 = 0;
/// A mark is 32 bits, and 0 is none.
pub const MARK_RANGE: RangeInclusive<u32> = 0..=u32::MAX;

/// Wait for a client that is turned away to show what it speaks, so that it can be told why.
pub const TURN_AWAY_MS: u64 = 200;

/// Clients that are told why they are turned away at a time; the others get a reset.
pub const TURNED_AWAY_PLACES: usize = 256;

/// Time between two entries that sum up connections turned away.
pub const TURNED_AWAY_INTERVAL_MS: u64 = 1_000;

/// Time without a connection of the workload's own after which, at the end, none is expected any more.
pub const OUTBOUND_QUIET_MS: u64 = 500;

// The process and its admin endpoints.

/// File descriptors that are not connections: the ledger's files, listeners, runtimes and the log, doubled.
pub const DESCRIPTORS_OF_THE_PROCESS: u64 = 128;

/// Admin connections at a time: a few probes and one preStop hook.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;

/// Wait for the head of an admin request, and by whoever asks for a connection and an answer: on one machine.
pub const ADMIN_REQUEST_MS: u64 = 5_000;

/// The head of an admin request: a path and a few fields; no less is possible with hyper.
pub const ADMIN_REQUEST_BYTES_MAX: usize = 8 * 1024;

/// The answer to one: a line, with the reason of a disk that failed in it.
pub const ADMIN_ANSWER_BYTES_MAX: u64 = 64 * KIB;

/// Pause after an admin connection could not be accepted for want of descriptors.
pub const ADMIN_ACCEPT_PAUSE_MS: u64 = 100;

/// Wait of a preStop hook for inbound connections to end: a third of the grace period that Kubernetes gives a pod, so
/// that most of it is left for the calls that are open.
pub const PRE_STOP_WAIT_MS: u64 = 10_000;
/// Ten minutes; grace periods beyond that are for jobs, which have no inbound connections.
pub const PRE_STOP_WAIT_MS_MAX: u64 = 600_000;

/// Time without any inbound connection after which a preStop hook does not wait for more: how long the news that a pod
/// is not ready takes to reach those who connect.
pub const PRE_STOP_QUIET_MS: u64 = 3_000;

/// Bytes that one connection reads in a row before the others of its thread have a turn: some hundred microseconds of work.
pub const BUSY_BYTES_MAX: usize = 256 * 1024;

/// Evidence that one direction of a connection may have waiting for its commit, as a multiple of the bytes that it may hold: what a few compressed octets
/// say can be much longer.
pub const EVIDENCE_FACTOR_MAX: usize = 4;

/// Bytes of a client's that are read and forgotten so that it can read its last answer.
pub const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Wait for a client's TLS, where it is opened, once the server has greeted: longer than the way from the farthest client that a pod has.
pub const TLS_GRACE_MS: u64 = 300;

/// Wait for the acknowledgement of the last bytes to a redirected connection's destination, before its socket is closed.
pub const CLOSE_ACKNOWLEDGED_MS: u64 = 10_000;
