//! The ways from a client to a server: how many sidecars stand between, and who speaks TLS.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::stacks::target;
use super::support::sidecar::{Builder, Sidecar};

/// The name in the certificates, which is also the authority that clients ask for.
const NAME: &str = "interop.test";

/// How a client reaches a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// client → server
    Direct,
    /// client → attestry → server
    One,
    /// client → attestry → attestry → server
    Two,
    /// client ⇒ server, both with certificates
    DirectTls,
    /// client ⇒ attestry ⇒ server: terminated and originated anew, with certificates on all sides
    Terminated,
    /// client → attestry ⇒ attestry → server: plaintext in the pods, certificates between them
    Mesh,
}

impl Way {
    /// The ways through sidecars.
    pub(super) const RELAYED: [Self; 4] = [Self::One, Self::Two, Self::Terminated, Self::Mesh];

    /// The way without sidecars that this one must be like.
    pub(super) fn direct(self) -> Self {
        if self.has_tls_peers() { Self::DirectTls } else { Self::Direct }
    }

    /// The credentials of the client and of the server, if they speak TLS.
    pub(super) fn credentials(self) -> Option<&'static Path> {
        self.has_tls_peers().then(credentials)
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::One => "one sidecar",
            Self::Two => "two sidecars",
            Self::DirectTls => "direct, mutual TLS",
            Self::Terminated => "one sidecar, mutual TLS on both its sides",
            Self::Mesh => "two sidecars, mutual TLS between them",
        }
    }

    /// There is TLS somewhere on the way.
    pub(super) fn has_tls(self) -> bool {
        matches!(self, Self::DirectTls | Self::Terminated | Self::Mesh)
    }

    fn has_tls_peers(self) -> bool {
        matches!(self, Self::DirectTls | Self::Terminated)
    }
}

/// The sidecars of one way, running.
pub(super) struct Route {
    /// Where the client connects.
    pub(super) addr: SocketAddr,
    /// The one before the server first.
    pub(super) sidecars: Vec<Sidecar>,
}

impl Route {
    pub(super) fn start(way: Way, server: SocketAddr) -> Self {
        let builders: Vec<fn(Builder) -> Builder> = match way {
            Way::Direct | Way::DirectTls => vec![],
            Way::One => vec![plain],
            Way::Two => vec![plain, plain],
            Way::Terminated => vec![|builder| originating(terminating(builder))],
            Way::Mesh => vec![terminating, originating],
        };
        let mut route = Self { addr: server, sidecars: Vec::new() };
        for configure in builders {
            let sidecar = configure(Sidecar::builder(route.addr)).start();
            route.addr = sidecar.addr;
            route.sidecars.push(sidecar);
        }
        route
    }
}

fn plain(builder: Builder) -> Builder {
    builder
}

fn terminating(builder: Builder) -> Builder {
    with_files(builder).set("proxy", "client_tls", "\"require\"").set(
        "proxy",
        "client_certificates",
        "\"required\"",
    )
}

fn originating(builder: Builder) -> Builder {
    with_files(builder).set("proxy", "upstream_tls", "\"originate\"").set(
        "proxy",
        "upstream_name",
        &format!("{NAME:?}"),
    )
}

fn with_files(builder: Builder) -> Builder {
    let file = |name: &str| format!("{:?}", credentials().join(name).to_str().unwrap());
    builder.set("tls", "certificate_file", &file("cert.pem")).set("tls", "key_file", &file("key.pem")).set(
        "tls",
        "authorities_file",
        &file("ca.pem"),
    )
}

/// A folder with an authority, and a certificate and key of it for everybody; made anew by each run.
fn credentials() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = target().join("interop-credentials");
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        openssl(&folder, AUTHORITY);
        openssl(&folder, LEAF);
        folder
    })
}

const AUTHORITY: &str = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=interop-authority \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign -keyout ca-key.pem -out ca.pem";
const LEAF: &str = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=interop-peer \
    -CA ca.pem -CAkey ca-key.pem -addext basicConstraints=critical,CA:FALSE -addext keyUsage=critical,digitalSignature \
    -addext extendedKeyUsage=serverAuth,clientAuth -addext subjectAltName=DNS:interop.test -keyout key.pem -out cert.pem";

/// Why there is no TLS to be had here, if so.
pub(super) fn missing_openssl() -> Option<String> {
    let version = Command::new("openssl").arg("version").output();
    version.err().map(|error| format!("cannot run openssl: {error}"))
}

fn openssl(folder: &Path, arguments: &str) {
    let output =
        Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}
