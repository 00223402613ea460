//! `attestry run` in a place of the network, behind the rules that `attestry redirect` installs there, as a user of its own without any privilege.
//!
//! What its ledger has to say is checked by the tests; here it is only fetched.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::network::{Network, PATIENCE, Place, said};
use crate::support::process::Process;
use crate::support::sidecar::{attestry, program};

/// The user that sidecars run as.
const UID: &str = "1337";

/// The least that a segment may have: a sidecar prepares twice as much at its start.
const SEGMENT_BYTES: u32 = 4_194_304;

/// A running sidecar.
pub(crate) struct Placed {
    pub(crate) process: Process,
    pub(crate) ledger: PathBuf,
    name: String,
}

impl Placed {
    /// Starts one with this configuration beside `[ledger]`; `name` names its folder.
    pub(crate) fn start(network: &Network, place: Place, name: &str, config: &str) -> Self {
        let folder = network.folder.path().join(name);
        fs::create_dir(&folder).unwrap();
        let (ledger, file) = (folder.join("ledger"), folder.join("proxy.toml"));
        fs::write(
            &file,
            format!("{config}\n[ledger]\ndir = \"{}\"\nsegment_bytes = {SEGMENT_BYTES}\n", ledger.display()),
        )
        .unwrap();
        own(network, &folder, UID);
        let user = [
            "setpriv",
            "--reuid",
            UID,
            "--regid",
            UID,
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
        ];
        let run = [&user[..], &[program(), "run", "--config", file.to_str().unwrap()]].concat();
        let process = network.start(place, name, &run);
        for _ in config.matches("\nlisten = ") {
            process.line_after("listening on ", PATIENCE);
        }
        Self { process, ledger, name: name.to_owned() }
    }

    /// Asks for the orderly end, which must come.
    pub(crate) fn stop(&mut self) {
        self.process.signal("TERM");
        self.ended();
    }

    /// Waits for the orderly end that was asked for.
    pub(crate) fn ended(&mut self) {
        let status = self.process.wait(PATIENCE);
        assert!(status.success(), "{}: {status}\n{}", self.name, self.process.stderr());
    }

    /// What `attestry connections` lists.
    pub(crate) fn connections(&self) -> Vec<Value> {
        let output = attestry(&["connections", "--ledger", self.ledger.to_str().unwrap(), "-o", "jsonl"]);
        let text = said(&output).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Gives a folder and what is in it to a user, who must also be able to get there.
pub(crate) fn own(network: &Network, folder: &Path, user: &str) {
    network.sh(
        Place::Node,
        &format!("chmod 755 {} && chown -R {user} {}", network.folder.path().display(), folder.display()),
    );
}

/// A member of a JSON object that is a text.
pub(crate) fn text<'a>(object: &'a Value, member: &str) -> &'a str {
    object[member].as_str().unwrap_or_else(|| panic!("{member} is no text in {object}"))
}
