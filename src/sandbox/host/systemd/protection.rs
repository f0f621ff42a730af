//! The private mounts of a hardened service, for real: a script that writes where `ProtectSystem=strict` forbids it fails here as it
//! does on a customer's host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::unit::Unit;
use crate::host::mount::{Tree, make_read_only};

/// Folders that a service may always write to under `ProtectSystem=strict`.
const ALWAYS_WRITABLE: [&str; 2] = ["/dev", "/proc"];

/// What of the file system a service may not see or change.
#[derive(Debug, Default)]
pub(super) struct Protection {
    system: Option<String>,
    home: Option<String>,
    private_tmp: bool,
    private_network: bool,
    /// Each with whether it may be missing.
    writable: Vec<(PathBuf, bool)>,
    read_only: Vec<(PathBuf, bool)>,
    hidden: Vec<(PathBuf, bool)>,
}

impl Protection {
    pub fn of(unit: &Unit) -> Protection {
        let paths = |key: &str| {
            let names = unit.names("Service", key).into_iter();
            let optional = |path: String| match path.trim_start_matches('+').strip_prefix('-') {
                Some(path) => (PathBuf::from(path), true),
                None => (PathBuf::from(path.trim_start_matches('+')), false),
            };
            names.map(optional).collect::<Vec<_>>()
        };
        let setting = |key: &str| {
            let value = unit.last("Service", key)?;
            (!matches!(value, "no" | "false" | "0" | "off")).then(|| value.to_owned())
        };
        let dynamic = unit.flag("Service", "DynamicUser");
        let mut writable = paths("ReadWritePaths");
        for (key, base) in super::places::DIRECTORIES {
            writable.extend(
                unit.names("Service", key)
                    .iter()
                    .map(|name| (Path::new(base).join(name), false)),
            );
        }
        Protection {
            // `DynamicUser=` implies these (`man systemd.exec`).
            system: setting("ProtectSystem").or(dynamic.then(|| "strict".to_owned())),
            home: setting("ProtectHome").or(dynamic.then(|| "read-only".to_owned())),
            private_tmp: unit.flag("Service", "PrivateTmp") || dynamic,
            private_network: unit.flag("Service", "PrivateNetwork"),
            writable,
            read_only: paths("ReadOnlyPaths"),
            hidden: paths("InaccessiblePaths"),
        }
    }

    fn is_none(&self) -> bool {
        self.system.is_none()
            && self.home.is_none()
            && !self.private_tmp
            && self.read_only.is_empty()
            && self.hidden.is_empty()
    }

    /// Applies it to the calling process, which is about to execute the service's program.
    pub fn apply(&self) -> io::Result<()> {
        if self.private_network {
            unshare(CloneFlags::CLONE_NEWNET)?;
        }
        if self.is_none() {
            return Ok(());
        }
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;

        // Taken before anything becomes read-only, put back afterwards.
        let mut writable = Vec::new();
        for (path, optional) in &self.writable {
            if path.exists() || !optional {
                writable.push((path.clone(), Tree::copy(path)?));
            }
        }
        match self.system.as_deref() {
            Some("strict") => {
                for path in ALWAYS_WRITABLE.map(PathBuf::from) {
                    writable.push((path.clone(), Tree::copy(&path)?));
                }
                make_read_only(Path::new("/"))?;
            }
            Some(level) => {
                protect(Path::new("/usr"))?;
                if level == "full" {
                    protect(Path::new("/etc"))?;
                }
            }
            None => {}
        }
        for (path, tree) in writable {
            tree.attach(&path)?;
        }
        if self.private_tmp {
            for path in ["/tmp", "/var/tmp"] {
                tmpfs(Path::new(path), "mode=1777")?;
            }
        }
        if let Some(home) = self.home.as_deref() {
            for path in ["/home", "/root"].map(Path::new) {
                match home {
                    "read-only" => protect(path)?,
                    "tmpfs" => tmpfs(path, "mode=755")?,
                    _ => hide(path)?,
                }
            }
        }
        for (path, optional) in &self.read_only {
            if path.exists() || !optional {
                protect(path)?;
            }
        }
        for (path, optional) in &self.hidden {
            if path.exists() || !optional {
                hide(path)?;
            }
        }
        // The working folder was entered before; enter it again in the new mounts.
        let folder = std::env::current_dir()?;
        std::env::set_current_dir(folder)
    }
}

fn protect(path: &Path) -> io::Result<()> {
    Tree::copy(path)?.read_only()?.attach(path)
}

fn tmpfs(path: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        flags,
        Some(options),
    )?)
}

fn hide(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        // The host's root has no capability that systemd's would not have, so mode 000 does not stop it; being empty does.
        return tmpfs(path, "mode=000");
    }
    Tree::copy(Path::new("/dev/null"))?.attach(path)
}
