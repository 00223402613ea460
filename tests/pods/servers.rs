//! MariaDB, PostgreSQL, Redis and Exim as Debian has them, in the pod: unprivileged where they insist, with TLS to be asked for within the protocol.
//!
//! Their data is in the network's folder. Each is dropped with the network's test, which kills it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::authority::{Authority, Issued};
use crate::network::{Network, PATIENCE, Place};
use crate::placed::own;
use crate::support::process::Process;

pub(crate) const MARIADB: u16 = 5306;
pub(crate) const POSTGRESQL: u16 = 5432;
pub(crate) const REDIS: u16 = 5379;
pub(crate) const SMTP: u16 = 5025;

/// Nobody in particular: none of them runs as root.
const USER: &str = "65534";

/// What must be installed: a program of each package, and where its name is not enough.
const PROGRAMS: [&str; 9] = [
    "mariadbd",
    "mariadb-install-db",
    "mariadb",
    "psql",
    "redis-server",
    "redis-cli",
    "exim4",
    "openssl",
    "python3",
];

/// The servers.
pub(crate) struct Servers {
    /// They end with it.
    _running: Vec<Process>,
    /// Where Exim puts its mail.
    pub(crate) spool: PathBuf,
}

/// The first of the programs that is not there, as a complaint.
pub(crate) fn missing() -> Option<String> {
    let is_missing = |name: &&&str| {
        !Command::new("sh")
            .args(["-c", &format!("PATH=$PATH:/usr/sbin command -v {name}")])
            .output()
            .unwrap()
            .status
            .success()
    };
    let program = PROGRAMS.iter().find(is_missing).map(|name| format!("{name} is not installed"));
    program
        .or_else(|| postgresql().is_none().then(|| "no PostgreSQL server in /usr/lib/postgresql".to_owned()))
}

/// The folder of PostgreSQL's programs, which Debian keeps out of the path.
fn postgresql() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    versions.flatten().map(|version| version.path().join("bin")).find(|folder| folder.join("initdb").exists())
}

impl Servers {
    /// Starts all four; when this returns, each answers.
    pub(crate) fn start(network: &Network) -> Self {
        let folder = network.folder.path();
        let authority = Authority::new(folder, "authority");
        let issued = authority.issue_for("server", "DNS:pod.example,IP:10.77.1.2");
        let running = vec![
            mariadb(network, &issued),
            postgres(network, &issued),
            redis(network),
            exim(network, &issued),
        ];
        let servers = Self { _running: running, spool: folder.join("exim/spool/input") };
        let dial = |port: u16| {
            format!(
                "timeout 60 bash -c 'until (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.05; done'"
            )
        };
        for port in [MARIADB, POSTGRESQL, REDIS, SMTP] {
            network.sh(Place::Pod, &dial(port));
        }
        servers
    }
}

/// A folder of a server's own, with its certificate.
fn home(network: &Network, name: &str, issued: Option<&Issued>) -> PathBuf {
    let folder = network.folder.path().join(name);
    fs::create_dir(&folder).unwrap();
    if let Some(issued) = issued {
        fs::copy(&issued.certificate, folder.join("tls.crt")).unwrap();
        fs::copy(&issued.key, folder.join("tls.key")).unwrap();
        network.sh(Place::Node, &format!("chmod 600 {}", folder.join("tls.key").display()));
    }
    own(network, &folder, USER);
    folder
}

/// The program as an unprivileged user, in its folder.
fn start(network: &Network, name: &str, folder: &Path, command: &str) -> Process {
    let user = format!(
        "cd {} && exec setpriv --reuid {USER} --regid {USER} --clear-groups {command}",
        folder.display()
    );
    network.start(Place::Pod, name, &["sh", "-c", &user])
}

fn mariadb(network: &Network, issued: &Issued) -> Process {
    let folder = home(network, "mariadb", Some(issued));
    let home = folder.display();
    network.sh(Place::Pod, &format!(
        "mkdir {home}/data && mariadb-install-db --no-defaults --datadir={home}/data --auth-root-authentication-method=normal --skip-test-db \
         && printf \"%s\\n\" \"CREATE USER pod@'%' IDENTIFIED BY 'secret';\" \"GRANT ALL ON *.* TO pod@'%';\" 'CREATE DATABASE pods;' > {home}/init.sql"
    ));
    own(network, &folder, USER);
    let options = "--skip-name-resolve --max-allowed-packet=64M --innodb-buffer-pool-size=32M";
    let files = format!(
        "--datadir={home}/data --socket={home}/socket --pid-file={home}/pid --init-file={home}/init.sql --ssl-cert={home}/tls.crt --ssl-key={home}/tls.key"
    );
    start(
        network,
        "mariadbd",
        &folder,
        &format!(
            "$(PATH=$PATH:/usr/sbin command -v mariadbd) --no-defaults --port={MARIADB} {options} {files}"
        ),
    )
}

fn postgres(network: &Network, issued: &Issued) -> Process {
    let folder = home(network, "postgresql", Some(issued));
    let (home, programs) = (folder.display(), postgresql().expect("it was looked for before"));
    let programs = programs.display();
    let user = format!("setpriv --reuid {USER} --regid {USER} --clear-groups");
    network.sh(Place::Pod, &format!(
        "cd {home} && echo secret > password && chmod 644 password && {user} {programs}/initdb -D {home}/data -U pod -A scram-sha-256 --pwfile=password \
         && echo 'host all all all scram-sha-256' >> {home}/data/pg_hba.conf"
    ));
    let options = format!(
        "-c listen_addresses=* -c ssl=on -c ssl_cert_file={home}/tls.crt -c ssl_key_file={home}/tls.key -c fsync=off"
    );
    start(
        network,
        "postgres",
        &folder,
        &format!("{programs}/postgres -D {home}/data -p {POSTGRESQL} -k {home} {options}"),
    )
}

fn redis(network: &Network) -> Process {
    let folder = home(network, "redis", None);
    start(
        network,
        "redis",
        &folder,
        &format!("redis-server --port {REDIS} --bind '*' '-::*' --protected-mode no --save '' --dir ."),
    )
}

/// It takes every mail, and keeps it in its queue.
fn exim(network: &Network, issued: &Issued) -> Process {
    let folder = home(network, "exim", Some(issued));
    let home = folder.display();
    let config = format!(
        "primary_hostname = mail.pods.example\nspool_directory = {home}/spool\nlog_file_path = {home}/%slog\npid_file_path = {home}/pid\n\
         exim_user = {USER}\nexim_group = {USER}\ndaemon_smtp_ports = {SMTP}\nlocal_interfaces = <; ::0 ; 0.0.0.0\nqueue_only = true\nhost_lookup =\n\
         rfc1413_query_timeout = 0s\ntls_advertise_hosts = *\ntls_certificate = {home}/tls.crt\ntls_privatekey = {home}/tls.key\n\
         acl_smtp_rcpt = all\nacl_smtp_data = all\nbegin acl\nall:\n  accept\n"
    );
    fs::write(folder.join("exim.conf"), config).unwrap();
    start(network, "exim", &folder, "$(PATH=$PATH:/usr/sbin command -v exim4) -bdf -C $PWD/exim.conf")
}

/// Where a session was begun that lasts, as `psql` and `redis-cli` have them: they say so by a line.
pub(crate) fn session(network: &Network, name: &str, command: &str, first: &str) -> Process {
    let session = network.start(Place::Peer, name, &["sh", "-c", &format!("exec {command}")]);
    if !first.is_empty() {
        session.line_after(first, PATIENCE);
    }
    session
}
