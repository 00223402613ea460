//! Attacks by frames of HTTP/2.

use crate::frames::{self, code, flag, kind};
use crate::hpack::{self, at};
use crate::siege::{Bounds, besiege, builder};
use crate::upstream::Upstream;

/// A request's head of an attacker.
fn head() -> Vec<u8> {
    [
        hpack::indexed(at::POST),
        hpack::indexed(at::HTTP),
        hpack::literal_at(at::PATH, "/attack.A/B"),
        hpack::literal_at(at::CONTENT_TYPE, "application/grpc"),
    ]
    .concat()
}

#[test]
fn hpack_bombs() {
    let upstream = Upstream::http2();
    let bounds = Bounds { memory_kib: 64 * 1024, ledger_bytes_per_byte: 100.0 };
    besiege("hpack bombs", builder(&upstream), &bounds, 1, 1 << 20, |attack| {
        let Some(socket) = attack.connect_http2() else { return };
        let fill = [head(), hpack::keep("x-bomb", vec![b'b'; 4_000])].concat();
        attack.send(&socket, &frames::headers(1, flag::END_STREAM, &fill));
        let bomb = [head(), hpack::indexed(hpack::NEWEST).repeat(250)].concat();
        for round in 0.. {
            let bombs: Vec<u8> = (0..230)
                .flat_map(|n| frames::headers(3 + 2 * (230 * round + n), flag::END_STREAM, &bomb))
                .collect();
            if !attack.send(&socket, &bombs) {
                break;
            }
        }
        let _ = (code::CANCEL, kind::DATA);
    });
}
