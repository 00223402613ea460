//! What clients and servers put on a connection: the same bytes in each run, shaped as grpc-go shapes them.

use super::hpack;
use attestry::http2::{FrameHeader, frame};
use bytes::Bytes;

/// SETTINGS_MAX_FRAME_SIZE that every peer takes (RFC 9113 section 6.5.2).
const FRAME_BYTES_MAX: usize = 16_384;

const REQUEST: [(&str, &str); 9] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/shop.v1.Orders/PlaceOrder"),
    (":authority", "orders.shop.svc.cluster.local:8443"),
    ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.71.0"),
    ("te", "trailers"),
    ("grpc-accept-encoding", "gzip"),
    ("x-tenant", "wholesale-emea"),
];
const RESPONSE: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];
const TRAILERS: [(&str, &str); 2] = [("grpc-status", "0"), ("grpc-message", "")];

/// One connection's sides, each with its header table.
#[derive(Default)]
pub(crate) struct Http2 {
    client: Encoder,
    server: Encoder,
    calls: u32,
}

impl Http2 {
    /// The next `calls` unary calls, in one chunk of each direction: all requests, and all responses.
    pub(crate) fn unary(&mut self, calls: u32, message_bytes: usize) -> (Bytes, Bytes) {
        let (mut requests, mut responses) = (Vec::new(), Vec::new());
        for _ in 0..calls {
            let stream = self.begin_call(&mut requests);
            put_message(&mut requests, stream, message_bytes, true);
            self.begin_response(stream, &mut responses);
            put_message(&mut responses, stream, message_bytes, false);
            let trailers = self.server.block(&TRAILERS);
            put_headers(&mut responses, stream, frame::flag::END_STREAM, &trailers);
        }
        (requests.into(), responses.into())
    }

    /// A call whose response does not end: its request, the response's beginning, and `chunks` chunks of `messages` messages.
    pub(crate) fn stream(
        &mut self,
        chunks: usize,
        messages: usize,
        message_bytes: usize,
    ) -> (Bytes, Bytes, Vec<Bytes>) {
        let (mut request, mut response, mut chunk) = (Vec::new(), Vec::new(), Vec::new());
        let stream = self.begin_call(&mut request);
        put_message(&mut request, stream, message_bytes, true);
        self.begin_response(stream, &mut response);
        for _ in 0..messages {
            put_message(&mut chunk, stream, message_bytes, false);
        }
        let chunks = (0..chunks).map(|_| Bytes::from(chunk.clone())).collect();
        (request.into(), response.into(), chunks)
    }

    /// Fields that differ from call to call are sent as literals, Huffman coded.
    fn begin_call(&mut self, out: &mut Vec<u8>) -> u32 {
        self.calls += 1;
        let stream = 2 * self.calls - 1;
        let mut block = self.client.block(&REQUEST);
        let trace = format!("00-{:032x}-{:016x}-01", 0x1234_5678_9abc_def0_u64 ^ u64::from(stream), stream);
        for (name, value) in [("grpc-timeout", "999m"), ("traceparent", &trace)] {
            block.extend([vec![0], hpack::huffman(name), hpack::huffman(value)].concat());
        }
        put_headers(out, stream, 0, &block);
        stream
    }

    fn begin_response(&mut self, stream: u32, out: &mut Vec<u8>) {
        let block = self.server.block(&RESPONSE);
        put_headers(out, stream, 0, &block);
    }
}

/// Puts each field into its peer's table once, and names its place from then on (RFC 7541 sections 6.1 and 6.2.1).
#[derive(Default)]
struct Encoder {
    kept: Vec<(&'static str, &'static str)>,
}

impl Encoder {
    fn block(&mut self, fields: &[(&'static str, &'static str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for field in fields {
            if let Some(at) = self.kept.iter().rev().position(|kept| kept == field) {
                block.extend(hpack::indexed(hpack::NEWEST + at));
            } else {
                block.extend(hpack::keep(field.0, field.1));
                self.kept.push(*field);
            }
        }
        block
    }
}

fn put_headers(out: &mut Vec<u8>, stream: u32, flags: u8, block: &[u8]) {
    put_frame(out, frame::kind::HEADERS, flags | frame::flag::END_HEADERS, stream, block);
}

/// A message behind its prefix of five octets (gRPC over HTTP/2, "Length-Prefixed-Message").
fn put_message(out: &mut Vec<u8>, stream: u32, message_bytes: usize, ends: bool) {
    let length = u32::try_from(message_bytes).expect("messages here are short");
    let mut message = vec![0];
    message.extend_from_slice(&length.to_be_bytes());
    message.extend(content(message_bytes));
    let frames = message.len().div_ceil(FRAME_BYTES_MAX);
    for (number, part) in message.chunks(FRAME_BYTES_MAX).enumerate() {
        let flags = if ends && number + 1 == frames { frame::flag::END_STREAM } else { 0 };
        put_frame(out, frame::kind::DATA, flags, stream, part);
    }
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a frame has at most FRAME_BYTES_MAX");
    out.extend_from_slice(&FrameHeader { length, kind, flags, stream }.encode());
    out.extend_from_slice(payload);
}

/// The next exchange of an HTTP/1.1 connection that stays open: request and response.
pub(crate) fn http1(body_bytes: usize) -> (Bytes, Bytes) {
    let request = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: orders.shop.svc.cluster.local\r\nUser-Agent: python-requests/2.32\r\n\
         Accept: */*\r\nContent-Type: application/json\r\nContent-Length: {body_bytes}\r\n\r\n"
    );
    let response = format!(
        "HTTP/1.1 200 OK\r\nDate: Fri, 20 Nov 2026 12:00:00 GMT\r\nServer: nginx\r\n\
         Content-Type: application/json\r\nContent-Length: {body_bytes}\r\n\r\n"
    );
    let with_body = |head: String| head.into_bytes().into_iter().chain(content(body_bytes)).collect();
    (with_body(request), with_body(response))
}

/// Bytes without a meaning.
pub(crate) fn content(bytes: usize) -> impl Iterator<Item = u8> {
    (b'!'..=b'z').cycle().take(bytes)
}
