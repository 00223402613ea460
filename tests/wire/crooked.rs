//! Relays that lie, each in one way, and one that does not: they prove that the comparison sees such lies, and sees
//! nothing where there is nothing. Each lie is one that real proxies tell.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::frames::{Frame, PREFACE, code, flag, frame, kind};
use crate::hpack::{Decoder, literal};
use crate::script::{Between, addr_of, bind};

/// One way to lie, and the case that must uncover it.
pub(crate) struct Lie {
    pub(crate) case: &'static str,
    /// What becomes of each frame.
    tell: fn(Frame) -> Vec<u8>,
    resets_as_fin: bool,
}

/// A relay that tells one of [`LIES`].
pub(crate) struct Crooked<const LIE: usize>(SocketAddr);

/// The first is none: frames are taken apart and put together again, and nothing else.
pub(crate) const LIES: [Lie; 9] = [
    Lie { case: "", tell: whole, resets_as_fin: false },
    Lie { case: "server_aborts", tell: whole, resets_as_fin: true },
    lie("reset_codes_of_the_client", |frame| match frame.kind() {
        kind::RST_STREAM if frame.payload.ends_with(&[8]) => {
            crate::frames::rst_stream(frame.stream(), code::NO_ERROR)
        }
        _ => whole(frame),
    }),
    lie("padded_data", |frame| match (frame.kind(), frame.payload.first()) {
        (kind::DATA, Some(&pad)) if frame.has(flag::PADDED) => {
            let end = frame.payload.len() - usize::from(pad);
            crate::frames::data(frame.stream(), frame.flags() & !flag::PADDED, &frame.payload[1..end])
        }
        _ => whole(frame),
    }),
    lie(
        "unknown_frame_types",
        |frame| if frame.kind() > kind::CONTINUATION { Vec::new() } else { whole(frame) },
    ),
    lie("encodings_of_one_field", |frame| {
        match Decoder::new().decode(frame.fragment().unwrap_or_default()) {
            Some(fields) if frame.kind() == kind::HEADERS => {
                let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
                crate::frames::headers(frame.stream(), frame.flags(), &block)
            }
            _ => whole(frame),
        }
    }),
    lie("undefined_flags_and_reserved_bits", |frame| {
        crate::frames::frame(frame.kind(), frame.flags(), frame.stream(), &frame.payload)
    }),
    lie("goaway_with_debug_data_and_running_stream", |frame| match frame.goaway() {
        Some((last_stream, code)) => crate::frames::goaway(last_stream, code, b""),
        None => whole(frame),
    }),
    // Trailers-only made of HEADERS and an empty DATA frame.
    lie("trailers_only", |f| match f.kind() {
        kind::HEADERS if f.has(flag::END_STREAM) => {
            let open = frame(kind::HEADERS, f.flags() & !flag::END_STREAM, f.stream(), &f.payload);
            [open, crate::frames::data(f.stream(), flag::END_STREAM, b"")].concat()
        }
        _ => whole(f),
    }),
];

const fn lie(case: &'static str, tell: fn(Frame) -> Vec<u8>) -> Lie {
    Lie { case, tell, resets_as_fin: false }
}

fn whole(frame: Frame) -> Vec<u8> {
    [frame.head.to_vec(), frame.payload].concat()
}

impl<const LIE: usize> Between for Crooked<LIE> {
    fn start(upstream: SocketAddr) -> Self {
        let listener = bind();
        let addr = addr_of(&listener);
        // It ends with the test's process: nothing waits for it.
        thread::spawn(move || relay_all(&listener, upstream, &LIES[LIE]));
        Self(addr)
    }

    fn addr(&self) -> SocketAddr {
        self.0
    }

    fn finish(self, _paths: Vec<String>) -> Vec<String> {
        Vec::new()
    }
}

fn relay_all(listener: &TcpListener, upstream: SocketAddr, lie: &'static Lie) {
    while let Ok((client, _)) = listener.accept() {
        let Ok(server) = TcpStream::connect(upstream) else { continue };
        let (client, server) = (Arc::new(client), Arc::new(server));
        for (from, to, opening_bytes) in [(&client, &server, PREFACE.len()), (&server, &client, 0)] {
            let (from, to) = (Arc::clone(from), Arc::clone(to));
            let _ = to.set_nodelay(true);
            thread::spawn(move || pump(&from, &to, opening_bytes, lie));
        }
    }
}

/// Carries one direction to its end, frame by frame behind the preface.
fn pump(mut from: &TcpStream, mut to: &TcpStream, opening_bytes: usize, lie: &Lie) {
    let (mut held, mut buffer, mut opening) = (Vec::new(), vec![0; 1 << 16], opening_bytes);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => {
                let _ = to.write_all(&held);
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(count) => held.extend(&buffer[..count]),
            Err(error) => return end_with(error.kind(), from, to, lie),
        }
        let early = opening.min(held.len());
        let mut out: Vec<u8> = held.drain(..early).collect();
        opening -= early;
        let mut done = 0;
        while let Some(frame) = Frame::parse(&held[done..]).filter(|_| opening == 0) {
            done += frame.wire_len();
            out.extend((lie.tell)(frame));
        }
        held.drain(..done);
        if to.write_all(&out).is_err() {
            return;
        }
    }
}

fn end_with(error: ErrorKind, from: &TcpStream, to: &TcpStream, lie: &Lie) {
    if error == ErrorKind::ConnectionReset && !lie.resets_as_fin {
        // The reset leaves when the last handle goes: both threads have to let go, and a shutdown wakes the other one.
        let _ = SockRef::from(to).set_linger(Some(Duration::ZERO));
        let _ = to.shutdown(Shutdown::Read);
    } else {
        let _ = to.shutdown(Shutdown::Write);
    }
    let _ = from.shutdown(Shutdown::Both);
}
