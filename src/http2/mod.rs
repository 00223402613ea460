//! HTTP/2 as bytes on the wire (RFC 9113): frames, header blocks and the units that a byte stream is cut into.
//!
//! The relay forwards the bytes themselves and reads a copy through these modules, so nothing here alters, completes or
//! repairs what a peer sent. Invariants: no input makes these modules panic, every amount is bounded by a limit of the
//! caller, and the passive HPACK state equals the receiver's as long as no error was returned.
//!
//! Not here: stream states, flow control and who may send what (`capture` follows the calls), sockets (`proxy`), and
//! gRPC's messages inside DATA (`grpc`).

pub mod frame;
pub mod hpack;
pub mod malformed;
pub mod scheme;
pub mod unit;

pub use frame::FrameHeader;
pub use hpack::{Decoder, Field, HpackError};
pub use malformed::Malformed;
pub use scheme::Scheme;
pub use unit::{Prefix, Unit, UnitBody, UnitError, UnitLimits, UnitReader};

/// What a client sends before its first frame (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Error codes of RST_STREAM and GOAWAY (RFC 9113 section 7).
pub mod code {
    /// Not the result of an error, such as a graceful GOAWAY.
    pub const NO_ERROR: u32 = 0x0;
    /// An unspecific breach of the protocol.
    pub const PROTOCOL_ERROR: u32 = 0x1;
    /// An unexpected fault inside the sender.
    pub const INTERNAL_ERROR: u32 = 0x2;
    /// The peer broke the flow-control rules.
    pub const FLOW_CONTROL_ERROR: u32 = 0x3;
    /// SETTINGS were not acknowledged in time.
    pub const SETTINGS_TIMEOUT: u32 = 0x4;
    /// A frame came for a half-closed stream.
    pub const STREAM_CLOSED: u32 = 0x5;
    /// A frame of an invalid size.
    pub const FRAME_SIZE_ERROR: u32 = 0x6;
    /// The stream was refused before any processing.
    pub const REFUSED_STREAM: u32 = 0x7;
    /// The stream is no longer wanted.
    pub const CANCEL: u32 = 0x8;
    /// The header compression state cannot be kept.
    pub const COMPRESSION_ERROR: u32 = 0x9;
    /// The connection behind a CONNECT was reset.
    pub const CONNECT_ERROR: u32 = 0xa;
    /// The peer's behaviour may cause excessive load.
    pub const ENHANCE_YOUR_CALM: u32 = 0xb;
    /// The transport does not meet the security requirements.
    pub const INADEQUATE_SECURITY: u32 = 0xc;
    /// HTTP/1.1 is wanted instead.
    pub const HTTP_1_1_REQUIRED: u32 = 0xd;

    /// The registered name of `code`, or `None` for a code outside RFC 9113's registry.
    pub fn name(code: u32) -> Option<&'static str> {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        usize::try_from(code).ok().and_then(|index| NAMES.get(index).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::code;

    #[test]
    fn code_names_stand_at_their_numbers() {
        assert_eq!(code::name(code::NO_ERROR), Some("NO_ERROR"));
        assert_eq!(code::name(code::REFUSED_STREAM), Some("REFUSED_STREAM"));
        assert_eq!(code::name(code::ENHANCE_YOUR_CALM), Some("ENHANCE_YOUR_CALM"));
        assert_eq!(code::name(code::HTTP_1_1_REQUIRED), Some("HTTP_1_1_REQUIRED"));
        assert_eq!(code::name(0xe), None);
        assert_eq!(code::name(u32::MAX), None);
    }
}
