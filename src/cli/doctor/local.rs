//! What stands on this machine: configuration, secret files, the state directory, programs.

use std::path::Path;

use super::Check;
use crate::cli::target::Target;
use crate::config::{self, Flags};
use crate::plan::journal;
use crate::secret_file;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub(super) fn configuration(target: &Target, flags: &Flags) -> Check {
    const NAME: &str = "configuration";
    if target.is_sandbox() {
        return Check::ok(NAME, "the sandbox's own; no file is read");
    }
    match config::shown::file(flags, &variable) {
        Some(path) if path.exists() => Check::ok(NAME, path.display().to_string()),
        Some(path) => Check::ok(
            NAME,
            format!(
                "no file at {}: flags, environment and defaults decide (m8trx init writes one)",
                path.display()
            ),
        ),
        None => Check::ok(NAME, "no file: flags, environment and defaults decide"),
    }
}

/// Each file with a secret: there, and read by its owner alone.
pub(super) fn secret_files(flags: &Flags) -> Vec<Check> {
    const NAME: &str = "secret-file";
    let files = config::shown::secret_files(flags, &variable);
    let check = |(origin, path): (String, std::path::PathBuf)| match secret_file::check(&path) {
        Ok(()) => Check::ok(NAME, format!("{} ({origin}): yours alone", path.display())),
        Err(problem) => Check::wrong(
            NAME,
            format!("{} ({origin}) {problem}", path.display()),
            match problem {
                secret_file::Problem::Open(_) => format!("chmod 600 {}", path.display()),
                secret_file::Problem::Unreadable(_) => {
                    format!("write the secret into it, or take {origin} out")
                }
            },
        ),
    };
    files.into_iter().map(check).collect()
}

/// Journals of runs and copies of the policy file are kept there.
pub(super) fn state_directory() -> Check {
    const NAME: &str = "state-directory";
    let Some(directory) = journal::default_directory(&variable) else {
        return Check::advice(
            NAME,
            "neither XDG_STATE_HOME nor HOME is set: no journal of a run is kept",
            "set one of them",
        );
    };
    // Made with the first run: until then, what is above it counts.
    let there = directory.ancestors().find(|path| path.exists());
    let writable = there.is_some_and(|path| {
        nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok() && path.is_dir()
    });
    if writable {
        Check::ok(NAME, directory.display().to_string())
    } else {
        Check::advice(
            NAME,
            format!(
                "{} cannot be written to: no journal of a run is kept",
                directory.display()
            ),
            "give yourself the directory, or set XDG_STATE_HOME to one of yours",
        )
    }
}

/// Whether a program is found as a shell finds it.
pub(in crate::cli) fn is_program(name: &str) -> bool {
    let is_one = |path: &Path| {
        path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
    };
    if name.contains('/') {
        return is_one(Path::new(name));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| is_one(&directory.join(name)))
}

/// What `m8trx ssh` and `m8trx logs` reach a host with.
pub(super) fn programs() -> Vec<Check> {
    const NAME: &str = "reaching-hosts";
    let tailscale = is_program("tailscale");
    let session = is_program("aws") && is_program("session-manager-plugin");
    vec![match (tailscale, session) {
        (true, true) => Check::ok(NAME, "by Tailscale SSH, and by Session Manager"),
        (true, false) => Check::ok(NAME, "by Tailscale SSH"),
        (false, true) => Check::ok(NAME, "by Session Manager"),
        (false, false) => Check::advice(
            NAME,
            "this machine has neither `tailscale` nor `aws` with its session-manager-plugin: m8trx ssh cannot reach a host, and m8trx logs shows its console only",
            "install Tailscale and join the tailnet with tag:m8trx-team, or install the AWS CLI and its Session Manager plugin",
        ),
    }]
}
