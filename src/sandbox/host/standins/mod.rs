//! The commands that a host of the sandbox cannot have for real. Each is this binary under another name; it checks what it is
//! given the way the real one would, prints what the real one prints, and ends with the same exit code.

mod apt;
mod aws;
mod docker;
mod dpkg;
mod https;
mod journalctl;
mod packages;
mod systemctl;
mod tailscale;
mod tailscaled;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::control::Making;
use super::{HostConditions, MARKER, OWN_BINARY};

/// On every fresh host.
const BASE: [&str; 7] = [
    "apt",
    "apt-cache",
    "apt-get",
    "dpkg",
    "dpkg-query",
    "journalctl",
    "systemctl",
];

/// Only once their package is installed, even where the operator's machine has them.
const PACKAGED: [&str; 5] = ["aws", "docker", "jq", "tailscale", "tailscaled"];

/// What the stand-ins know about their host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Marker {
    pub instance_id: String,
    pub conditions: HostConditions,
}

impl Marker {
    pub fn new(making: &Making) -> Marker {
        Marker {
            instance_id: making.instance_id.clone(),
            conditions: making.conditions.clone(),
        }
    }

    pub fn read() -> io::Result<Marker> {
        Ok(serde_json::from_slice(&fs::read(MARKER)?)?)
    }
}

/// Whether a command of this name is a stand-in, now or after its package has been installed.
pub(super) fn replaces(name: &str) -> bool {
    BASE.contains(&name) || PACKAGED.contains(&name)
}

/// Puts the commands of a fresh host below `root`, and its package state.
pub(super) fn install_base(root: &Path) -> io::Result<()> {
    let folder = root.join("usr/bin");
    for name in BASE {
        symlink(OWN_BINARY, folder.join(name))?;
    }
    packages::install_base(root)
}

/// Runs the stand-in `name`.
pub(super) fn run(name: &str, arguments: &[String]) -> i32 {
    match name {
        "apt-get" => apt::run("apt-get", arguments),
        "apt" => apt::run("apt", arguments),
        "apt-cache" => apt::cache(arguments),
        "dpkg" => dpkg::run(arguments),
        "dpkg-query" => dpkg::query(arguments),
        "systemctl" => systemctl::run(arguments),
        "journalctl" => journalctl::run(arguments),
        "aws" => aws::run(arguments),
        "tailscale" => tailscale::run(arguments),
        "tailscaled" => tailscaled::run(arguments),
        "docker" => docker::run(arguments),
        "jq" => {
            err(
                "jq: this machine has no jq of its own to run on the host; install jq on it to use it in the sandbox",
            );
            127
        }
        _ => 127,
    }
}

/// Writes a line to standard output. A reader that has gone is not this program's concern.
fn out(line: impl AsRef<str>) {
    let _ = writeln!(io::stdout().lock(), "{}", line.as_ref());
}

/// Writes a line to standard error.
fn err(line: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", line.as_ref());
}

/// Tells the operator, on the console, about something that would be harmful on a real host though it works.
fn warn_operator(text: &str) {
    if let Ok(mut console) = fs::File::options().write(true).open("/dev/console") {
        let _ = console.write_all(format!("m8trx-sandbox: {text}\r\n").as_bytes());
    }
}
