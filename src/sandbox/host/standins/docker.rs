//! `docker`: installed for others, not used by the boot. It shows that it is there, and says that it is not real.

use super::{err, out};

/// Runs `docker`.
pub(super) fn run(arguments: &[String]) -> i32 {
    match arguments.first().map(String::as_str) {
        Some("--version" | "-v") => {
            out("Docker version 27.5.1, build 27.5.1-0ubuntu3~22.04.2");
            0
        }
        Some("version") => {
            out(
                "Client:\n Version:           27.5.1\n OS/Arch:           linux/amd64\n\nServer:\n Engine:\n  Version:          27.5.1 (m8trx sandbox)",
            );
            0
        }
        Some("info") => {
            out(
                "Client:\n Version:    27.5.1\n\nServer:\n Containers: 0\n Images: 0\n Server Version: 27.5.1 (m8trx sandbox)",
            );
            0
        }
        Some(command) => {
            err(format!(
                "docker: {command}: not in the sandbox; its host has no containers"
            ));
            1
        }
        None => {
            out("Usage:  docker [OPTIONS] COMMAND");
            0
        }
    }
}
