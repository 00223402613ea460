//! New certificates in a volume as Kubernetes makes it, under open streams: nothing breaks, and the ledger says what was taken and what was refused.

use super::authority::Issued;
use super::{BOUND, Scene, notices, peers, quoted, service};
use attestry::generated::v1::Notice;
use attestry::generated::v1::notice::Type;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// The files are links through `..data`, which is replaced as a whole.
struct Volume {
    folder: PathBuf,
    version: u32,
}

impl Volume {
    fn new(folder: &Path, issued: &Issued) -> Self {
        fs::create_dir(folder).unwrap();
        let mut volume = Self { folder: folder.to_owned(), version: 0 };
        volume.swap(&issued.certificate, &issued.key);
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), folder.join(name)).unwrap();
        }
        volume
    }

    fn swap(&mut self, certificate: &Path, key: &Path) {
        self.version += 1;
        let version = format!("..version_{}", self.version);
        fs::create_dir(self.folder.join(&version)).unwrap();
        fs::copy(certificate, self.folder.join(&version).join("tls.crt")).unwrap();
        fs::copy(key, self.folder.join(&version).join("tls.key")).unwrap();
        symlink(&version, self.folder.join("..data_tmp")).unwrap();
        fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data")).unwrap();
    }
}

#[test]
fn certificates_are_replaced_under_open_streams() {
    let scene = Scene::new();
    let [second, third] = ["second", "third"].map(|name| scene.authority.issue_for(name, "DNS:a.example"));
    let mut volume = Volume::new(&scene.folder.path().join("volume"), &scene.own);
    let mut sidecar = scene
        .sidecar(service::start())
        .set("tls", "certificate_file", &quoted(&volume.folder.join("tls.crt")))
        .set("tls", "key_file", &quoted(&volume.folder.join("tls.key")))
        .set("proxy", "client_tls", "\"terminate\"")
        .start();
    let (ledger, addr) = (sidecar.ledger_dir.clone(), sidecar.addr);
    // Whose certificate a new client is shown: it asks for HTTP/1, of a service that speaks HTTP/2 alone and so ends the connection.
    let shown = || {
        let mut client = peers::Client::start(&scene, addr, &["-servername", "a.example"]);
        client.say("GET / HTTP/1.0\r\n\r\n");
        client.wait().subject().to_owned()
    };
    service::run_bounded(async {
        let mut client = service::over_tls(&scene, addr, &[]).await;
        let (say, said) = mpsc::channel(1);
        let mut answers = client.transfer(ReceiverStream::new(said)).await.unwrap().into_inner();
        let mut talk = async |text: &str| {
            say.send(service::transfer(text, 1)).await.unwrap();
            assert_eq!(answers.message().await.unwrap().unwrap().reason, text);
        };
        talk("before").await;
        assert_eq!(shown(), "CN = own");
        volume.swap(&second.certificate, &second.key);
        wait_for(&ledger, &[Type::CredentialsLoaded]);
        assert_eq!(shown(), "CN = second");
        talk("after the first change").await;
        volume.swap(&third.certificate, &second.key);
        wait_for(&ledger, &[Type::CredentialsLoaded, Type::CredentialsRefused]);
        assert_eq!(shown(), "CN = second", "a bad set keeps the good one");
        volume.swap(&third.certificate, &third.key);
        wait_for(&ledger, &[Type::CredentialsLoaded, Type::CredentialsRefused, Type::CredentialsLoaded]);
        assert_eq!(shown(), "CN = third");
        talk("after all of them").await;
    });
    sidecar.stop();
    sidecar.verify();
    let told = notices(&sidecar.ledger_dir);
    assert!(
        told[1].reason.contains("the private key does not belong to the certificate"),
        "{}",
        told[1].reason
    );
    assert!(sidecar.stderr().contains("new credentials are refused"));
}

/// Waits until the ledger has these notices of credentials, and no others.
pub(super) fn wait_for(ledger: &Path, expected: &[Type]) {
    let end = Instant::now() + BOUND;
    loop {
        let found: Vec<Type> = notices(ledger).iter().map(Notice::r#type).collect();
        if found == expected {
            return;
        }
        assert!(
            found.len() <= expected.len() && Instant::now() < end,
            "the ledger has {found:?}, not {expected:?}"
        );
        std::thread::yield_now();
    }
}
