//! HTTP/1.0 and HTTP/1.1 as bytes on the wire (RFC 9112): the messages of one connection, both ways, found in a copy of what is relayed.
//!
//! The bytes themselves go on as they came, so nothing here alters, completes or repairs them. It reads as liberally as servers do in what every server reads alike (bare
//! line feeds, empty lines between messages, folded lines of responses), and not at all where two readers may see different messages in the same bytes
//! (RFC 9112 section 11.2, request smuggling): that is a [`Fault`]. Invariants: what is found does not depend on how the stream was cut; no input makes these modules panic; what
//! must be waited for is bounded by the head's limit of the caller, or by a constant here.
//!
//! Heads are parsed by `httparse`; what they mean for the body is `framing`, chunks are `chunk`, and who answers whom is `conversation`. Not here: what is recorded of it
//! (`capture`), and the protocols behind an upgrade.

mod chunk;
mod conversation;
mod framing;
mod head;

pub use conversation::{Conversation, HELD_BYTES_MAX, PARTS_MAX, Part};
pub use head::{FIELDS_MAX, RequestHead, ResponseHead, Version};

/// Why bytes cannot be read as HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The start line or a field breaks the grammar (RFC 9112 sections 3 to 5).
    #[error("the head is not HTTP/1: {0}; its sender is broken, or speaks another protocol")]
    Head(httparse::Error),
    /// A head or a trailer section without an end within the bound.
    #[error("the head is over {bytes_max} bytes; send less metadata or raise limits.header_list_bytes_max")]
    HeadTooLarge {
        /// The bound.
        bytes_max: usize,
    },
    /// More than [`FIELDS_MAX`] fields.
    #[error("the head has more than {FIELDS_MAX} fields; its sender must send fewer")]
    TooManyFields,
    /// A content-length that is not one decimal number.
    #[error("the content-length is no number; its sender is broken")]
    ContentLength,
    /// Several content-lengths that differ.
    #[error("the content-lengths differ; readers would disagree on where the message ends")]
    ContentLengthsDiffer,
    /// Both in one request (RFC 9112 section 6.1).
    #[error(
        "the request has a transfer-encoding and a content-length; readers would disagree on where it ends"
    )]
    CodingAndLength,
    /// A coding that is not known, or chunked twice or not as the last of a request.
    #[error(
        "the transfer-encoding is unknown, or chunked is not its last; readers would disagree on where the message ends"
    )]
    Coding,
    /// HTTP/1.0 has none (RFC 9112 section 6.1).
    #[error("a message of HTTP/1.0 has a transfer-encoding; readers would disagree on where it ends")]
    CodingInOldVersion,
    /// CONNECT has no content (RFC 9110 section 9.3.6).
    #[error("a CONNECT request has content; readers would disagree on where the tunnel begins")]
    ConnectContent,
    /// A line that is no chunk size, or bytes behind a chunk that are no line end (RFC 9112 section 7.1).
    #[error("the chunked body is broken; its sender is")]
    Chunk,
    /// The trailer section breaks the grammar.
    #[error("the trailers are broken: {0}; their sender is")]
    Trailers(httparse::Error),
    /// A response without a request.
    #[error("bytes that answer no request")]
    NoRequest,
    /// 101 to a request that asked for nothing of the kind.
    #[error("the protocol was switched (101) without a request for it")]
    SwitchUnasked,
    /// Too much came behind a request that may end HTTP, before its answer.
    #[error("more than {HELD_BYTES_MAX} bytes behind a request for another protocol, before its answer")]
    HeldTooLong,
    /// The sender ended in the middle of a message.
    #[error("the sender ended within a message")]
    Cut,
}

#[cfg(test)]
mod tests;
