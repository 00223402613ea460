//! Sidecars under other terms than the default ones, and what their terms do to a connection: a short time for detection, or a long one, and ports that nobody asks.

use std::net::SocketAddr;

use crate::duet::{Between, Case, Played, addr_of, bind, http};
use crate::socket::{accept, connect, pass};
use crate::support::sidecar::{Builder, Sidecar};
use crate::told::{connections, found};

macro_rules! between {
    ($name:ident, $settings:expr) => {
        pub(crate) struct $name(Sidecar);

        impl Between for $name {
            fn start(upstream: SocketAddr) -> Self {
                let settings: fn(Builder, SocketAddr) -> Builder = $settings;
                Self(settings(Sidecar::builder(upstream), upstream).start())
            }

            fn addr(&self) -> SocketAddr {
                self.0.addr
            }

            fn finish(self, played: &[Played]) -> Vec<String> {
                self.0.finish(played)
            }
        }
    };
}

between!(Patient, |builder, _| builder.set("detect", "timeout_ms", "60000"));
between!(Hasty, |builder, _| builder.set("detect", "timeout_ms", "100").set("detect", "bytes_max", "2048"));
between!(OpaquePort, |builder, upstream| {
    builder.set("detect", "timeout_ms", "60000").set(
        "proxy",
        "opaque_ports",
        &format!("[{}]", upstream.port()),
    )
});

macro_rules! undecided {
    ($client:literal, $server:literal) => {
        &[concat!(
            "opaque: undecided for 100 ms (detect.timeout_ms), with ",
            $client,
            " bytes of the client and ",
            $server,
            " of the server"
        )]
    };
}

/// Beginnings of what could be read, and then silence: they go on as what they are.
pub(crate) const STOPPED: &[Case] = &[
    http("half_a_method", &[], |wire| wire.exchange(b"GE", b"what?")).finding(undecided!(2, 0)),
    http("a_request_line_without_an_end", &[], |wire| {
        wire.exchange(b"GET / HTTP/1.1", b"what?")?;
        wire.exchange(b"\r\nhost: a\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n")
    })
    .finding(undecided!(14, 0)),
    http("half_a_preface", &[], |wire| wire.exchange(b"PRI * HTTP/2.0\r\n\r\nSM", b"?"))
        .finding(undecided!(20, 0)),
    http("half_a_client_hello", &[], |wire| wire.exchange(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"?"))
        .finding(undecided!(11, 0)),
    http("half_of_a_servers_settings", &[], |wire| {
        wire.answers(b"\0\0\x06\x04\0")?;
        wire.asks(b"PRI ")
    })
    .finding(undecided!(0, 5)),
    http("half_of_both", &[], |wire| {
        wire.says(b"PR")?;
        wire.answers(b"\0\0")?;
        wire.server_hears()
    })
    .finding(undecided!(2, 2)),
    http("more_bytes_than_anybody_asks_for", &[], |wire| {
        wire.asks(&[b"GET /", &[b'a'; 5000][..]].concat())?;
        wire.answers(b"HTTP/1.1 414 URI Too Long\r\n\r\n")
    })
    .finding(&["opaque: undecided after 2048 bytes (detect.bytes_max)"]),
];

/// The time does not run while nobody speaks: a connection that was silent for longer is read like any other.
#[test]
fn silence_is_not_a_beginning_that_stops() {
    let upstream = bind();
    let mut sidecar = Hasty::start(addr_of(&upstream)).0;
    let (mut silent, mut silent_server) = (connect(sidecar.addr), accept(&upstream));
    // This one goes on after the whole time for detection, all of which the other one was silent.
    let (mut stopped, mut stopped_server) = (connect(sidecar.addr), accept(&upstream));
    pass(&mut stopped, &mut stopped_server, b"GE");
    pass(&mut silent, &mut silent_server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    pass(&mut silent_server, &mut silent, b"\0\0\0\x04\0\0\0\0\0");
    drop((silent, silent_server, stopped, stopped_server));
    sidecar.stop();
    sidecar.verify();
    let mut found: Vec<String> = connections(&sidecar).iter().flat_map(found).collect();
    found.sort();
    assert_eq!(found, ["http2: the client's preface", undecided!(2, 0)[0]]);
}

const HINT: &[&str] = &["opaque: the destination's port is in opaque_ports"];

pub(crate) const TO_AN_OPAQUE_PORT: &[Case] = &[
    http("http1_to_an_opaque_port", &[], |wire| {
        wire.exchange(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n")
    })
    .finding(HINT),
    http("half_a_method_to_an_opaque_port", &[], |wire| wire.exchange(b"GE", b"what?")).finding(HINT),
    http("http2_to_an_opaque_port", &[], |wire| {
        wire.exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", b"\0\0\0\x04\0\0\0\0\0")
    })
    .finding(HINT),
    http("tls_to_an_opaque_port", &[], |wire| {
        wire.exchange(b"\x16\x03\x01\0\x05\x01\0\0\x01\0", b"\x15\x03\x01\0\x02\x02\x32")
    })
    .finding(HINT),
    http("a_greeting_from_an_opaque_port", &[], |wire| wire.answers(b"220 hello\r\n")).finding(HINT),
];
