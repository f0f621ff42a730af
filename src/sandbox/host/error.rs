//! What can keep a host from starting, with the remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The part of the set-up that failed; it picks the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    Namespaces,
    IdMap,
    Mounts,
    Network,
    Files,
    Init,
}

/// A failed set-up as the child reports it over the control socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub stage: Stage,
    /// What was tried, in words that complete "could not …".
    pub what: String,
    /// The system's error number, or 0 where there is none.
    pub errno: i32,
}

impl Failure {
    pub fn new(stage: Stage, what: impl Into<String>, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let what = match error.raw_os_error() {
            Some(_) => what.into(),
            None => format!("{}: {error}", what.into()),
        };
        Failure {
            stage,
            what,
            errno: error.raw_os_error().unwrap_or(0),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}", self.what)?;
        if self.errno != 0 {
            write!(f, ": {}", io::Error::from_raw_os_error(self.errno))?;
        }
        Ok(())
    }
}

/// Why a host of the sandbox did not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The machine refuses what a private host needs. The remedy is for the machine's administrator.
    #[error(
        "this machine does not let m8trx make a private host ({cause}).\n{remedy}\nThe sandbox does not run a host without its isolation."
    )]
    Refused {
        /// The system call that was refused, in words.
        cause: String,
        /// What to do about it, as text with commands that can be pasted.
        remedy: String,
    },
    /// The kernel lacks a system call the private file system needs.
    #[error("the sandbox's host needs Linux 5.12 or newer ({cause})")]
    KernelTooOld {
        /// What was missing.
        cause: String,
    },
    /// Something else went wrong while the host was made.
    #[error("the sandbox's host {0}")]
    Setup(String),
    /// The program that becomes the host did not start.
    #[error("cannot start the host's process from {}", binary.display())]
    Spawn {
        /// The program that was tried.
        binary: PathBuf,
        /// Why it did not start.
        source: io::Error,
    },
    /// The host ended, or said nothing, where an answer was expected.
    #[error("the sandbox's host ended while it was being made{0}")]
    Ended(String),
    /// The connection to the host's first process broke.
    #[error("cannot reach the sandbox's host")]
    Control(#[source] io::Error),
}

impl From<Failure> for HostError {
    fn from(failure: Failure) -> Self {
        let cause = failure.to_string();
        match failure.errno {
            libc_errno::ENOSYS => HostError::KernelTooOld { cause },
            libc_errno::EPERM | libc_errno::EACCES | libc_errno::ENOSPC | libc_errno::EUSERS
                if failure.stage != Stage::Files =>
            {
                HostError::Refused {
                    remedy: remedy(&Machine::observe(), failure.errno),
                    cause,
                }
            }
            _ => HostError::Setup(cause),
        }
    }
}

mod libc_errno {
    pub use nix::libc::{EACCES, ENOSPC, ENOSYS, EPERM, EUSERS};
}

/// The settings of this machine that decide about unprivileged namespaces.
#[derive(Debug, Default)]
struct Machine {
    apparmor_restricts: bool,
    clone_switched_off: bool,
    no_user_namespaces_left: bool,
    container: bool,
    root: bool,
}

impl Machine {
    fn observe() -> Self {
        let sysctl = |name: &str| {
            std::fs::read_to_string(Path::new("/proc/sys").join(name))
                .map(|text| text.trim().to_owned())
                .unwrap_or_default()
        };
        Machine {
            apparmor_restricts: sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1",
            clone_switched_off: sysctl("kernel/unprivileged_userns_clone") == "0",
            no_user_namespaces_left: sysctl("user/max_user_namespaces") == "0",
            container: Path::new("/.dockerenv").exists()
                || Path::new("/run/.containerenv").exists()
                || Path::new("/run/systemd/container").exists()
                || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
            root: nix::unistd::geteuid().is_root(),
        }
    }
}

fn remedy(machine: &Machine, errno: i32) -> String {
    if machine.no_user_namespaces_left {
        return "User namespaces are switched off (user.max_user_namespaces is 0). As root:\n  \
                sysctl -w user.max_user_namespaces=15000"
            .to_owned();
    }
    if machine.clone_switched_off && !machine.root {
        return "Ordinary users may not make user namespaces (kernel.unprivileged_userns_clone is 0). As root:\n  \
                sysctl -w kernel.unprivileged_userns_clone=1"
            .to_owned();
    }
    if machine.apparmor_restricts && !machine.root {
        return "AppArmor restricts user namespaces of ordinary users (the default of Ubuntu 24.04). As root, until the next boot:\n  \
                sysctl -w kernel.apparmor_restrict_unprivileged_userns=0\n\
                To allow m8trx alone, give its path an AppArmor profile with `userns,` (see `man apparmor.d`)."
            .to_owned();
    }
    if machine.container {
        return "m8trx runs inside a container, which may not make containers of its own. Start it with\n  \
                docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined …\n\
                or run m8trx on the machine itself."
            .to_owned();
    }
    if errno == libc_errno::ENOSPC || errno == libc_errno::EUSERS {
        return "The limit of namespaces is reached. End other sandboxes and containers, or as root:\n  \
                sysctl -w user.max_user_namespaces=15000"
            .to_owned();
    }
    "A security module or seccomp filter forbids it. Run m8trx on a machine, or as a user, that may make user namespaces \
     (`unshare --user --map-root-user --mount --net --pid --fork true` must succeed)."
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: i32) -> HostError {
        Failure {
            stage: Stage::Namespaces,
            what: "make the namespaces".into(),
            errno,
        }
        .into()
    }

    #[test]
    fn refusals_and_old_kernels_are_told_apart() {
        assert!(matches!(
            refused(nix::libc::EPERM),
            HostError::Refused { .. }
        ));
        assert!(matches!(
            refused(nix::libc::ENOSYS),
            HostError::KernelTooOld { .. }
        ));
        assert!(matches!(refused(nix::libc::EIO), HostError::Setup(_)));
        assert!(
            refused(nix::libc::EPERM)
                .to_string()
                .contains("could not make the namespaces: ")
        );
    }

    #[test]
    fn each_restriction_has_its_own_remedy() {
        let text = |machine: Machine| remedy(&machine, nix::libc::EPERM);
        let apparmor = Machine {
            apparmor_restricts: true,
            ..Machine::default()
        };
        assert!(text(apparmor).contains("kernel.apparmor_restrict_unprivileged_userns=0"));
        let clone = Machine {
            clone_switched_off: true,
            ..Machine::default()
        };
        assert!(text(clone).contains("kernel.unprivileged_userns_clone=1"));
        let none = Machine {
            no_user_namespaces_left: true,
            ..Machine::default()
        };
        assert!(text(none).contains("user.max_user_namespaces=15000"));
        let container = Machine {
            container: true,
            root: true,
            ..Machine::default()
        };
        assert!(text(container).contains("seccomp=unconfined"));
        assert!(text(Machine::default()).contains("unshare --user"));
    }

    #[test]
    fn a_failure_without_errno_keeps_its_reason() {
        let failure = Failure::new(
            Stage::Files,
            "find bash",
            io::Error::other("not in /usr/bin"),
        );
        assert_eq!(failure.to_string(), "could not find bash: not in /usr/bin");
    }
}
