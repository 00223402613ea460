//! What the entries of an opaque connection say, and that the first bytes of each direction wait for theirs.

use std::io::Write as _;

use sha2::{Digest as _, Sha256};

use crate::driver::End;
use crate::duet::{addr_of, bind};
use crate::held::Scene;
use crate::socket::{accept, connect, pass, receive, to_the_end};
use crate::support::sidecar::Sidecar;
use crate::told::{connections, hex};

#[test]
fn no_byte_goes_on_before_its_direction_is_in_the_ledger() {
    let mut scene = Scene::start();
    scene.client.write_all(b"\x01question").unwrap();
    scene.holds(&["opened"], &scene.server);
    scene.holds(&["is opaque", "first 9 bytes"], &scene.server);
    receive(&mut scene.server, b"\x01question");
    scene.server.write_all(b"\x02answer").unwrap();
    scene.holds(&["first 7 bytes"], &scene.client);
    receive(&mut scene.client, b"\x02answer");
    // The rest has no evidence but its sum at the end, and waits for nobody.
    pass(&mut scene.client, &mut scene.server, b"more");
    pass(&mut scene.server, &mut scene.client, b"and more");
}

#[test]
fn a_greeting_waits_for_the_ledger_and_for_nothing_else() {
    let mut scene = Scene::start();
    scene.server.write_all(b"220 hello\r\n").unwrap();
    scene.holds(&["opened"], &scene.client);
    scene.holds(&["is opaque", "first 11 bytes"], &scene.client);
    receive(&mut scene.client, b"220 hello\r\n");
}

/// There is no answer that its client would understand.
#[test]
fn a_connection_that_cannot_be_committed_is_broken_off() {
    let mut scene = Scene::start();
    scene.client.write_all(b"\x01question").unwrap();
    scene.holds(&["opened"], &scene.server);
    assert_eq!(scene.refuses("the disk is full"), ["is opaque", "first 9 bytes"]);
    assert_eq!(to_the_end(&mut scene.client), (Vec::new(), End::Reset));
    assert_eq!(to_the_end(&mut scene.server).0, b"");
}

/// Neither side may take what it has for all of it.
#[test]
fn a_connection_that_can_be_committed_no_more_is_broken_off_on_both_sides() {
    let mut scene = Scene::start();
    scene.client.write_all(b"\x01question").unwrap();
    scene.holds(&["opened"], &scene.server);
    scene.holds(&["is opaque", "first 9 bytes"], &scene.server);
    receive(&mut scene.server, b"\x01question");
    scene.server.write_all(b"\x02answer").unwrap();
    assert_eq!(scene.refuses("the disk is full"), ["first 7 bytes"]);
    assert_eq!(to_the_end(&mut scene.client), (Vec::new(), End::Reset));
    assert_eq!(to_the_end(&mut scene.server), (Vec::new(), End::Reset));
}

#[test]
fn a_connection_is_told_with_its_peers_its_bytes_and_their_digests() {
    let upstream = bind();
    let mut sidecar = Sidecar::start(addr_of(&upstream));
    let (mut client, mut server) = (connect(sidecar.addr), accept(&upstream));
    pass(&mut server, &mut client, b"220 hello\r\n");
    pass(&mut client, &mut server, b"EHLO a\r\n");
    pass(&mut server, &mut client, b"250 a\r\n");
    let peer = client.local_addr().unwrap().to_string();
    // While it lasts, its beginning is known.
    let open = &connections(&sidecar)[0];
    assert_eq!((&open["state"], &open["bytes_to_server"]), (&"open".into(), &serde_json::Value::Null));
    drop((client, server));
    sidecar.stop();
    sidecar.verify();
    let connection = &connections(&sidecar)[0];
    assert_eq!(connection["peer"], peer);
    assert_eq!(connection["listener"], sidecar.addr.to_string());
    assert_eq!(connection["upstream_address"], addr_of(&upstream).to_string());
    assert_eq!(
        (&connection["interception"], &connection["local_reason"]),
        (&"fixed".into(), &serde_json::Value::Null)
    );
    assert_eq!((&connection["bytes_to_server"], &connection["bytes_to_client"]), (&8.into(), &18.into()));
    assert_eq!(connection["unread"], "the server spoke first");
    assert!(connection["duration_ms"].as_f64().unwrap() > 0.0);
    let first = |way: &str| {
        (connection[way]["length"].as_u64().unwrap(), connection[way]["sha256"].as_str().unwrap().to_owned())
    };
    assert_eq!(first("first_bytes_to_client"), (11, hex(&Sha256::digest(b"220 hello\r\n"))));
    assert_eq!(first("first_bytes_to_server"), (8, hex(&Sha256::digest(b"EHLO a\r\n"))));
    assert!(sidecar.calls().is_empty());
}
