//! What install, remove and show do to the rules: in place of the older ones, in one piece or not at all, and without a trace.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use crate::network::{Network, Place, assert_same, said};
use crate::paths::BACKENDS;
use crate::support::sidecar::{attestry, program};

const ONE: &str = "--inbound-port 15006 --outbound-port 15001 --uid 1337 --skip-inbound-ports 22,9000-9100";
const OTHER: &str =
    "--inbound-port 4143 --inbound-mode tproxy --outbound-port 4140 --mark 7 --own-ports 4191";

/// Rules of somebody else's, of each kind; they also bring the tables into being that iptables keeps for ever once it was used.
const FOREIGN: &str = "
    nft add table inet foreign; nft add chain inet foreign c '{ type filter hook input priority 0 ; }'
    nft add rule inet foreign c tcp dport 1 counter drop
    ip rule add fwmark 0x99 lookup 99; ip route add local default dev lo table 99
    for n in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do
        for t in raw nat mangle; do
            $n -t $t -N FOREIGN; $n -t $t -A FOREIGN -p tcp --dport 2 -j RETURN; $n -t $t -A PREROUTING -j FOREIGN
            $n -t $t -A OUTPUT -p tcp --dport 3 -j ACCEPT
        done
    done";

#[test]
fn an_installation_replaces_the_one_before_and_leaves_no_trace() {
    let Some(network) = Network::make("redirect::installing") else { return };
    let run = |arguments: &str| network.attestry_must(Place::Pod, arguments);
    network.sh(Place::Pod, FOREIGN);
    let before = network.traces(Place::Pod);
    assert!(run("redirect remove").starts_with("nothing was installed"));
    assert!(run("redirect show").starts_with("nothing is installed"));
    assert_same(&network.traces(Place::Pod), &before, "looking makes nothing");
    for backend in BACKENDS {
        let installed = run(&format!("redirect install {ONE} --backend {backend}"));
        assert!(installed.starts_with(&format!("installed with {backend} (")), "{installed}");
        let first = network.traces(Place::Pod);
        run(&format!("redirect install {ONE} --backend {backend}"));
        assert_same(&network.traces(Place::Pod), &first, &format!("{backend}: twice is once"));
        run(&format!("redirect install {OTHER} --backend {backend}"));
        let other = network.traces(Place::Pod);
        assert!(other.contains("4143") && !other.contains("15006"), "{backend}: {other}");
        run(&format!("redirect install {ONE} --backend {backend}"));
        assert_same(&network.traces(Place::Pod), &first, &format!("{backend}: there and back"));
        assert_eq!(
            run("redirect remove --dry-run").matches("END'").count(),
            if backend == "nft" { 1 } else { 2 }
        );
        assert_same(&network.traces(Place::Pod), &first, &format!("{backend}: a dry run"));
        assert!(run("redirect remove").starts_with("removed from"));
        assert_same(&network.traces(Place::Pod), &before, &format!("{backend}: a trace"));
    }
    for backend in BACKENDS {
        run(&format!("redirect install {OTHER} --backend {backend}"));
        let shown = run("redirect show");
        assert_eq!(
            shown.matches("installed with").count(),
            1,
            "another back end's rules are replaced too: {shown}"
        );
    }
    run("redirect remove");
    assert_same(&network.traces(Place::Pod), &before, "in the end");
}

/// The plan that `show` prints makes the same rules again, with the same back end and with each other.
#[test]
fn what_is_shown_installs_the_same_again() {
    let Some(network) = Network::make("redirect::showing") else { return };
    let run = |arguments: &str| network.attestry_must(Place::Pod, arguments);
    let mut plans = Vec::new();
    for backend in BACKENDS {
        for plan in [ONE, OTHER] {
            run(&format!("redirect install {plan} --backend {backend}"));
            let (shown, rules) = (run("redirect show"), network.traces(Place::Pod));
            let (_, options) = shown.split_once("plan:\n").unwrap();
            let (options, listing) = options.split_once("\nrules:\n").unwrap();
            assert!(listing.contains(if plan == ONE { "15006" } else { "4143" }), "{shown}");
            run(&format!("redirect install --backend {backend} {}", options.replace('\n', " ")));
            assert_same(&network.traces(Place::Pod), &rules, &format!("{backend} {plan}"));
            plans.push(options.to_owned());
        }
    }
    assert!(
        plans[0] == plans[2] && plans[0] == plans[4] && plans[1] == plans[3] && plans[1] == plans[5],
        "{plans:?}"
    );
    assert_ne!(plans[0], plans[1]);
}

/// The kernel refuses a rule in the middle of an installation: what was in force stays in force, the older plan or none.
#[test]
fn a_failed_installation_leaves_the_rules_before_it() {
    let Some(network) = Network::make("redirect::failing") else { return };
    // What a wrapper adds to what it is fed: things that no kernel takes, but only the kernel can tell.
    let cases = [
        ("nft", "nft", "cat; echo 'add chain inet attestry broken { type nat hook forward priority 0 ; }'"),
        // After the mangle table is committed: in the middle of the nat table.
        ("iptables-nft", "iptables-nft-restore", BROKEN_NAT_TABLE),
        ("iptables-legacy", "iptables-legacy-restore", BROKEN_NAT_TABLE),
        // After all of IPv4 is committed.
        ("iptables-nft", "ip6tables-nft-restore", BROKEN_NAT_TABLE),
        ("iptables-legacy", "ip6tables-legacy-restore", BROKEN_NAT_TABLE),
    ];
    network.sh(Place::Pod, FOREIGN);
    let none = network.traces(Place::Pod);
    for (backend, wrapped, spoil) in cases {
        let path = spoiling(&network, wrapped, spoil);
        let install = |plan: &str| {
            let line = format!("PATH={path} {} redirect install {plan} --backend {backend}", program());
            network.command(Place::Pod, &["sh", "-c", &line]).output().unwrap()
        };
        must_fail(&install(ONE), wrapped);
        assert_same(
            &network.traces(Place::Pod),
            &none,
            &format!("{backend}, {wrapped}: with nothing before"),
        );
        must_fail(&install(OTHER), wrapped);
        assert_same(
            &network.traces(Place::Pod),
            &none,
            &format!("{backend}, {wrapped}: with nothing before"),
        );
        network.attestry_must(Place::Pod, &format!("redirect install {ONE} --backend {backend}"));
        let before = network.traces(Place::Pod);
        must_fail(&install(OTHER), wrapped);
        assert_same(
            &network.traces(Place::Pod),
            &before,
            &format!("{backend}, {wrapped}: with rules before"),
        );
        network.attestry_must(Place::Pod, "redirect remove");
    }
}

/// Where the zone is refused nothing is installed, and it is said what was refused.
#[test]
fn a_refused_zone_is_a_failure_that_names_it() {
    let Some(network) = Network::make("redirect::zone") else { return };
    network.sh(Place::Pod, FOREIGN);
    let none = network.traces(Place::Pod);
    let no_such_target = "sed 's/-j CT --zone-orig .*/-j TPROXY --on-port 1/'";
    for (backend, wrapped, spoil) in [
        ("nft", "nft", "sed 's/ct original zone set .* comment/ct original zone set 99999999 comment/'"),
        ("iptables-nft", "iptables-nft-restore", no_such_target),
        ("iptables-legacy", "iptables-legacy-restore", no_such_target),
    ] {
        let path = spoiling(&network, wrapped, spoil);
        let line = format!("PATH={path} {} redirect install {ONE} --backend {backend}", program());
        let output = network.command(Place::Pod, &["sh", "-c", &line]).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{backend}: {complaint}");
        assert!(complaint.contains("refuses the zone of connection tracking"), "{backend}: {complaint}");
        assert_same(&network.traces(Place::Pod), &none, backend);
    }
}

/// nft where it works; where the kernel takes nothing from it, or it is not there, the iptables that does.
#[test]
fn auto_takes_what_works() {
    let Some(network) = Network::make("redirect::auto") else { return };
    let cases = [
        (&[][..], "installed with nft ("),
        (&["nft"][..], "installed with iptables ("),
        (&["nft", "iptables-restore", "iptables-nft-restore"][..], "installed with iptables-legacy ("),
    ];
    for (number, (broken, expected)) in cases.into_iter().enumerate() {
        let folder = network.folder.path().join(format!("auto-{number}"));
        fs::create_dir(&folder).unwrap();
        for program in broken {
            let real = network.sh(Place::Pod, &format!("command -v {program}"));
            // As on a kernel without nf_tables: it can be asked for its version, and for nothing that works.
            let fails = "echo 'Could not initialize' >&2; exit 1";
            let script = format!(
                "#!/bin/sh\ncase \"$*\" in *version*|*list*) exec {} \"$@\";; esac\n{fails}\n",
                real.trim()
            );
            fs::write(folder.join(program), script).unwrap();
            fs::set_permissions(folder.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let line = format!("PATH={}:$PATH {} redirect install {ONE}", folder.display(), program());
        // Rules of a back end that no longer works cannot be removed any more, and that is said.
        network.attestry_must(Place::Pod, &format!("redirect install {OTHER} --backend nft"));
        let output = network.command(Place::Pod, &["sh", "-c", &line]).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_alone = broken.is_empty();
        assert_eq!(output.status.success(), is_alone, "{broken:?}: {complaint}");
        assert_eq!(
            complaint.contains("older rules of another back end may still be there"),
            !is_alone,
            "{complaint}"
        );
        assert!(complaint.matches("Could not initialize").count() <= 1, "said twice: {complaint}");
        network.attestry_must(Place::Pod, "redirect remove");
        let said = network.sh(Place::Pod, &line);
        assert!(said.starts_with(expected), "{broken:?}: {said}");
        assert_eq!(network.attestry_must(Place::Pod, "redirect show").matches("installed with").count(), 1);
        network.attestry_must(Place::Pod, "redirect remove");
    }
}

const BROKEN_NAT_TABLE: &str = "awk '/^\\*nat/ { nat = 1 } /^COMMIT/ && nat && !d { print \"-A PREROUTING -p tcp -j TPROXY --on-port 1\"; d = 1 } { print }'";

/// A PATH on which one program spoils what it is fed, except when it only checks.
fn spoiling(network: &Network, wrapped: &str, spoil: &str) -> String {
    let folder = network.folder.path().join(format!("spoiling-{wrapped}"));
    fs::create_dir(&folder).unwrap();
    let real = network.sh(Place::Pod, &format!("command -v {wrapped}"));
    let real = real.trim();
    // Only what installs is spoilt, and that once: going back must be possible.
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n*check*|*test*|*version*|*list*) exec {real} \"$@\" ;;\nesac\n\
         if [ -e {done} ]; then rm {done}; exec {real} \"$@\"; fi\ntouch {done}\n{{ {spoil}\n}} | {real} \"$@\"\n",
        done = folder.join("done").display()
    );
    let script = if wrapped == "nft" { script.replace("touch", ": #") } else { script };
    fs::write(folder.join(wrapped), script).unwrap();
    fs::set_permissions(folder.join(wrapped), fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:$PATH", folder.display())
}

fn must_fail(output: &Output, program: &str) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{program}: {complaint}");
    assert!(complaint.contains(program) && complaint.contains("--dry-run"), "{complaint}");
    assert!(!complaint.contains("put back"), "{complaint}");
}

/// The script that a dry run prints does what the installation does; the run itself needs neither root nor any program.
#[test]
fn a_dry_run_prints_the_installation_as_a_script() {
    for backend in BACKENDS {
        for plan in [ONE, OTHER] {
            let mut dry = Command::new(program());
            dry.args(["redirect", "install", "--dry-run", "--ipv6", "yes", "--backend", backend]);
            dry.args(plan.split_whitespace()).env("PATH", "");
            let script = said(&dry.output().unwrap()).unwrap();
            assert!(script.contains(if backend == "nft" { "nft -f - <<" } else { "-restore" }), "{script}");
            let Some(network) = Network::make("redirect::dry_run") else { return };
            let arguments = format!("redirect install {plan} --ipv6 yes --backend {backend}");
            network.attestry_must(Place::Pod, &arguments);
            network.attestry_must(Place::Pod, "redirect remove");
            network.sh(Place::Pod, &script);
            let by_script = network.traces(Place::Pod);
            network.attestry_must(Place::Pod, "redirect remove");
            network.attestry_must(Place::Pod, &arguments);
            assert_eq!(by_script, network.traces(Place::Pod), "{backend} {plan}");
        }
    }
}

#[test]
fn ports_and_modes_are_taken_from_the_configuration_and_options_win() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.toml");
    let config = "[proxy]\nlisten = \"127.0.0.1:4000\"\nupstream = \"127.0.0.1:50051\"\n\
        [inbound]\nlisten = \"[::]:4143\"\nmode = \"tproxy\"\nskip_ports = [22, 4190]\n\
        [outbound]\nlisten = \"[::]:4140\"\nskip_ports = [3306]\n[admin]\nlisten = \"0.0.0.0:4191\"\n";
    fs::write(&file, config).unwrap();
    let dry = |options: &str| {
        let mut arguments = vec!["redirect", "install", "--dry-run", "--config", file.to_str().unwrap()];
        arguments.extend(options.split_whitespace());
        attestry(&arguments)
    };
    let script = said(&dry("--uid 7 --backend nft")).unwrap();
    for expected in [
        "--inbound-port 4143",
        "--inbound-mode tproxy",
        "--skip-inbound-ports 22",
        "--skip-inbound-ports 4190",
        "--outbound-port 4140",
        "--skip-outbound-ports 3306",
        "--own-ports 4000",
        "--own-ports 4140",
        "--own-ports 4143",
        "--own-ports 4191",
        "tproxy to :4143",
        "redirect to :4140",
        "ip -4 route",
    ] {
        assert!(script.contains(expected), "{expected} is not in {script}");
    }
    let script =
        said(&dry("--uid 7 --backend nft --inbound-mode redirect --inbound-port 9 --skip-inbound-ports 80"))
            .unwrap();
    assert!(
        script.contains("redirect to :9") && !script.contains("tproxy") && !script.contains("dport 22 "),
        "{script}"
    );
    let no_owner = dry("");
    assert_eq!(no_owner.status.code(), Some(2));

    fs::write(&file, config.replace("[::]:4143", "127.0.0.1:4143").replace("[::]:4140", "127.0.0.1:4140"))
        .unwrap();
    let complaint = String::from_utf8_lossy(&dry("--uid 7").stderr).into_owned();
    assert!(
        complaint.contains("[inbound] listen is 127.0.0.1:4143, where redirected connections do not arrive"),
        "{complaint}"
    );
    assert!(!complaint.contains("[outbound] listen is 127.0.0.1:4140, where"), "{complaint}");
    let complaint = |ipv6: &str| {
        let output = dry(&format!("--uid 7 --ipv6 {ipv6}"));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(complaint("yes").contains("[outbound] listen is 127.0.0.1:4140, which takes one version of IP"));
    assert!(!complaint("no").contains("one version of IP"));
    fs::write(&file, "[inbound]\nlisten = \"nonsense\"\n[nonsense]\n").unwrap();
    let faulty = dry("--uid 7");
    assert_eq!(faulty.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&faulty.stderr).lines().count() >= 2, "all faults at once: {faulty:?}");
}

#[test]
fn what_cannot_be_done_is_said_with_its_remedy() {
    let install = ["redirect", "install", "--inbound-port", "15006"];
    let faulty = attestry(&["redirect", "install", "--outbound-port", "0", "--inbound-ports", "80"]);
    let complaint = String::from_utf8_lossy(&faulty.stderr);
    assert_eq!((faulty.status.code(), complaint.lines().count()), (Some(2), 3), "{complaint}");
    let networks = attestry(&[&install[..], &["--skip-outbound-networks", "10.1.2.3/8"]].concat());
    assert_eq!(networks.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&networks.stderr).contains("write 10.0.0.0/8"), "{networks:?}");

    let alone =
        |arguments: &[&str]| Command::new(program()).args(arguments).env("PATH", "").output().unwrap();
    for arguments in [&install[..], &["redirect", "remove"], &["redirect", "show"]] {
        let output = alone(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        assert!(complaint.contains("install the package nftables or iptables"), "{complaint}");
    }
    let Some(network) = Network::make("redirect::unprivileged") else { return };
    for backend in BACKENDS {
        let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"];
        let command = [&user[..], &[program()], &install[..], &["--backend", backend]].concat();
        let output = network.command(Place::Pod, &command).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        assert!(complaint.contains("run this as root, or with CAP_NET_ADMIN"), "{backend}: {complaint}");
    }
}
