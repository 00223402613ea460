//! TLS that is passed on unopened, between OpenSSL's own client and server: their session, whole, and what its first message says.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::duet::{addr_of, bind};
use crate::socket::{accept, connect};
use crate::support::sidecar::Sidecar;
use crate::told::{connections, end, found};

/// What each side tells the other: more than one record, and more than one read.
const SAID_BYTES: usize = 1 << 20;
