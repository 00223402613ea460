//! Tests with `openssl s_client` and `openssl s_server` as the peer: another implementation, with its own reading of the standards.

use super::*;
use std::process::{Command, Output, Stdio};
use std::thread;

/// Runs `openssl s_client` against a link of ours that answers one line with another. Returns its output, and what the link has recorded.
fn with_s_client(
    scene: &Scene,
    certificates: ClientCertificates,
    arguments: &[&str],
) -> (Output, Result<v1::Tls, v1::Tls>) {
    let side = scene.server_side(certificates);
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &address, "-servername", "a.example", "-quiet", "-no_ign_eof"]);
        command
            .args(["-CAfile", scene.authority.certificate.to_str().unwrap(), "-verify_return_error"])
            .args(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, b"question\n").unwrap();
        let client = thread::spawn(move || child.wait_with_output().unwrap());
        let (tcp, _) = listener.accept().await.unwrap();
        let (early, hello) = read_hello(&tcp).await;
        let served = [b"h2".to_vec(), b"http/1.1".to_vec()];
        let tls = match accept(tcp, &early, &side, &served, &hello, LIMIT).await {
            Ok((link, tls)) => {
                let mut question = BytesMut::new();
                while !question.ends_with(b"\n") && read_some(&link, &mut question).await.unwrap() > 0 {}
                assert_eq!(&question[..], b"question\n");
                write_all(&link, b"answer\n").await.unwrap();
                link.shutdown_write();
                Ok(tls)
            }
            Err(failed) => Err(*failed.tls),
        };
        drop(stdin);
        let output = tokio::task::spawn_blocking(move || client.join().unwrap()).await.unwrap();
        (output, tls)
    })
}

#[test]
fn openssl_is_served_by_either_version_with_and_without_a_certificate() {
    let scene = Scene::new();
    let (certificate, key) = (scene.client.certificate.to_str().unwrap(), scene.client.key.to_str().unwrap());
    for (version, expected, suite) in [
        ("-tls1_3", "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        ("-tls1_2", "TLSv1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ] {
        let (output, tls) =
            with_s_client(&scene, ClientCertificates::Optional, &[version, "-alpn", "http/1.1,h2"]);
        let tls = tls.unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "answer\n",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(
            (tls.version.as_str(), tls.cipher_suite.as_str(), tls.alpn.as_str()),
            (expected, suite, "h2")
        );
        assert_eq!((tls.server_name.as_str(), tls.verified_peer), ("a.example", None));
        let (output, tls) = with_s_client(
            &scene,
            ClientCertificates::Required,
            &[version, "-cert", certificate, "-key", key],
        );
        assert_eq!(String::from_utf8_lossy(&output.stdout), "answer\n");
        assert_eq!(tls.unwrap().verified_peer.unwrap().spiffe_id, "spiffe://example.org/client");
    }
}

/// What another implementation prints of our alerts.
#[test]
fn openssl_reads_why_it_is_refused() {
    let scene = Scene::new();
    for (certificates, arguments, alert, recorded) in [
        (ClientCertificates::Required, &["-tls1_2"][..], "alert number 116", "no certificates"),
        (ClientCertificates::None, &["-alpn", "mqtt"], "alert number 120", "any known protocol"),
        (
            ClientCertificates::None,
            &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
            "alert number 70",
            "TLS 1.1 at the most",
        ),
    ] {
        let (output, tls) = with_s_client(&scene, certificates, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let failure = tls.expect_err("the handshake must fail").failure;
        assert!(!output.status.success() && said.contains(alert), "{arguments:?}: {said}");
        assert!(failure.contains(recorded), "{arguments:?}: {failure}");
    }
}

/// Originates to `openssl s_server`, which echoes lines reversed (-rev).
#[allow(clippy::result_large_err, reason = "both are what was learnt of the session")]
fn with_s_server(
    scene: &Scene,
    expect: Expect,
    alpn: &[&[u8]],
    arguments: &[&str],
) -> Result<(v1::Tls, Vec<u8>), v1::Tls> {
    let client = scene.client_side(expect);
    let port_file = scene.folder.path().join("s_server.out");
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", "127.0.0.1:0", "-rev", "-naccept", "1"]);
    command.args([
        "-cert",
        scene.server.certificate.to_str().unwrap(),
        "-key",
        scene.server.key.to_str().unwrap(),
    ]);
    command.args(["-CAfile", scene.authority.certificate.to_str().unwrap()]).args(arguments);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(port_file).unwrap())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    // "ACCEPT 127.0.0.1:41234": the port that it was given.
    let address = lines.find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(str::to_owned)).unwrap();
    let rest = thread::spawn(move || lines.count());
    let outcome = run(async {
        let tcp = TcpStream::connect(&address).await.unwrap();
        let alpn = alpn.iter().map(|name| name.to_vec()).collect();
        match originate(tcp, &client, "a.example", alpn, LIMIT).await {
            Err(failed) => Err(*failed.tls),
            Ok((link, tls)) => {
                write_all(&link, b"desrever\n").await.unwrap();
                let mut answer = BytesMut::new();
                while !answer.ends_with(b"\n") && read_some(&link, &mut answer).await.unwrap() > 0 {}
                link.shutdown_write();
                Ok((tls, answer.to_vec()))
            }
        }
    });
    let _ = child.kill();
    child.wait().unwrap();
    rest.join().unwrap();
    outcome
}

#[test]
fn openssl_servers_are_spoken_with_and_verified() {
    let scene = Scene::new();
    let id = || Expect::SpiffeId("spiffe://example.org/server".to_owned());
    for (version, expected) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        for expect in [Expect::Name, id()] {
            let outcome = with_s_server(
                &scene,
                expect,
                &[b"h2", b"http/1.1"],
                &[version, "-alpn", "http/1.1", "-Verify", "1"],
            );
            let (tls, answer) = outcome.unwrap();
            assert_eq!(answer, b"reversed\n");
            assert_eq!((tls.version.as_str(), tls.alpn.as_str()), (expected, "http/1.1"));
            assert_eq!(tls.verified_peer.unwrap().spiffe_id, "spiffe://example.org/server");
        }
    }
    let another = Expect::SpiffeId("spiffe://example.org/another".to_owned());
    let failed = with_s_server(&scene, another, &[], &[]).unwrap_err();
    assert!(failed.failure.contains("was expected"), "{}", failed.failure);
    let failed = with_s_server(&scene, Expect::Name, &[b"mqtt"], &["-alpn", "h2"]).unwrap_err();
    assert_eq!(failed.failure, "the peer sent the alert no_application_protocol(120)");
}
