//! gRPC over HTTP/2 as bytes: length-prefixed messages inside DATA, and what headers and codes mean in gRPC's terms.
//!
//! Source: gRPC's PROTOCOL-HTTP2.md and http-grpc-status-mapping.md. Invariants: forwarding never waits for a whole
//! message, nothing is buffered but the five octets of a prefix, and no input makes these modules panic.
//!
//! Not here: frames and header blocks (`http2`), which DATA belongs to which call (`capture`), decompression and
//! protobuf (messages stay the bytes that they were).

mod meaning;
mod message;

pub use meaning::{
    decode_grpc_message, is_grpc_content_type, is_grpc_web_content_type, parse_timeout, status_from_http,
    status_from_reset, status_name,
};
pub use message::{MessageParser, PREFIX_LEN, Piece};
