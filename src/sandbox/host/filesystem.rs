//! The host's private file system.
//!
//! It is made from nothing: an empty tmpfs that becomes the root. Only what programs need is taken from the machine, and only
//! read-only: `/usr` without `/usr/local`, and the libraries. Homes, `/root`, `/mnt`, `/opt`, `/var` and whatever else an
//! operator keeps files in are not masked but absent, so nothing can uncover them.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};

use super::control::Making;
use super::error::{Failure, Stage};
pub(super) use super::mount::Tree;
use super::standins;
use super::{MARKER, OWN_BINARY, etc};

/// Where the machine's own folders of programs are kept; the host's `/usr/bin` and the like hold links into it.
const MACHINE: &str = ".m8trx/machine";

/// Folders with programs. Each becomes a folder of links, so that a program can be hidden or replaced whatever path is used.
const PROGRAMS: [&str; 4] = ["usr/bin", "usr/sbin", "bin", "sbin"];

/// Folders (or, on most machines, links) that programs load from. `/nix` and `/gnu` are where NixOS and Guix keep everything.
const LIBRARIES: [&str; 13] = [
    "usr/lib",
    "usr/lib32",
    "usr/lib64",
    "usr/libx32",
    "usr/libexec",
    "usr/share",
    "usr/include",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "nix/store",
    "gnu/store",
];

/// Programs of the machine that a fresh host lacks until apt installs them, besides the stand-ins themselves.
const HIDDEN: [&str; 8] = [
    "aws_completer",
    "dockerd",
    "docker-proxy",
    "docker-init",
    "containerd",
    "runc",
    "snap",
    "cloud-init",
];

/// Folders that a fresh host has, with their modes.
const FOLDERS: [(&str, u32); 33] = [
    ("etc", 0o755),
    ("etc/systemd/system", 0o755),
    ("etc/apt/sources.list.d", 0o755),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("run/systemd/system", 0o755),
    ("run/log", 0o755),
    ("tmp", 0o1777),
    ("root", 0o700),
    ("home/ubuntu", 0o750),
    ("var/log", 0o755),
    ("var/log/apt", 0o755),
    ("var/tmp", 0o1777),
    ("var/cache/apt/archives", 0o755),
    ("var/lib/apt/lists", 0o755),
    ("var/lib/dpkg", 0o755),
    ("var/lib/cloud/data", 0o755),
    ("var/lib/cloud/instance/scripts", 0o755),
    ("var/lib/cloud/instance/sem", 0o755),
    ("var/spool/cron", 0o755),
    ("usr/local/bin", 0o755),
    ("usr/local/sbin", 0o755),
    ("usr/local/lib/systemd/system", 0o755),
    ("usr/local/share", 0o755),
    ("usr/local/etc", 0o755),
    ("usr/share", 0o755),
    ("opt", 0o755),
    ("srv", 0o755),
    ("mnt", 0o755),
    ("media", 0o755),
    ("sys", 0o555),
    ("proc", 0o555),
    ("dev", 0o755),
];

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// A detached copy of the running program's own file.
pub(super) fn own_binary() -> io::Result<Tree> {
    Tree::copy(&std::env::current_exe()?)?.read_only()
}

/// Builds the file system and moves into it; the machine's own is no longer reachable afterwards.
pub(super) fn make(making: &Making, binary: Tree) -> Result<(), Failure> {
    let mounts = |what: &str| {
        let what = what.to_owned();
        move |error: nix::Error| Failure::new(Stage::Mounts, what, error)
    };
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(mounts("separate the host's mounts from the machine's"))?;
    // Any folder will do to put the new root on: only this mount namespace sees it.
    let root = Path::new(if Path::new("/tmp").is_dir() {
        "/tmp"
    } else {
        "/run"
    });
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("m8trx"),
        root,
        Some("tmpfs"),
        flags,
        Some("mode=0755,size=1g"),
    )
    .map_err(mounts("mount a private tmpfs"))?;

    let root = Root(root.to_owned());
    root.fill(making, binary)?;

    chdir(&root.0).map_err(mounts("enter the host's root"))?;
    pivot_root(".", ".").map_err(mounts("make the private tmpfs the host's root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(mounts("let go of the machine's file system"))?;
    chdir("/").map_err(mounts("enter the host's root"))?;
    if !Path::new("/bin/bash").exists() && !Path::new("/usr/bin/bash").exists() {
        let missing =
            io::Error::other("neither /usr/bin nor /bin has it; install bash on this machine");
        return Err(Failure::new(
            Stage::Files,
            "find bash, which runs user-data",
            missing,
        ));
    }
    Ok(())
}

/// The new root while it is being built.
struct Root(PathBuf);

impl Root {
    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn fill(&self, making: &Making, binary: Tree) -> Result<(), Failure> {
        let files =
            |what: &'static str| move |error: io::Error| Failure::new(Stage::Files, what, error);
        let mounts =
            |what: &'static str| move |error: io::Error| Failure::new(Stage::Mounts, what, error);
        self.folders().map_err(files("make the host's folders"))?;
        self.programs()
            .map_err(mounts("take over the machine's programs"))?;
        self.libraries()
            .map_err(mounts("take over the machine's libraries"))?;
        etc::write(&self.at("etc"), &self.at("var"), making)
            .map_err(files("write the host's /etc"))?;

        let own = self.at(OWN_BINARY.trim_start_matches('/'));
        self.file(&own)
            .map_err(files("make a place for m8trx itself"))?;
        binary
            .attach(&own)
            .map_err(mounts("bring m8trx itself into the host"))?;
        standins::install_base(&self.0).map_err(files("put the stand-ins in place"))?;
        let marker = standins::Marker::new(making);
        let marker = serde_json::to_vec(&marker)
            .map_err(|error| files("describe the host")(error.into()))?;
        fs::write(self.at(MARKER.trim_start_matches('/')), marker)
            .map_err(files("describe the host"))?;

        self.devices().map_err(mounts("make the host's /dev"))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(
            Some("proc"),
            &self.at("proc"),
            Some("proc"),
            flags,
            None::<&str>,
        )
        .map_err(|error| Failure::new(Stage::Mounts, "mount a /proc of the host's own", error))
    }

    fn folders(&self) -> io::Result<()> {
        for (path, mode) in FOLDERS {
            let path = self.at(path);
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        symlink("/run", self.at("var/run"))?;
        symlink("/run/lock", self.at("var/lock"))
    }

    fn file(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(&self.0))?;
        fs::write(path, "")
    }

    /// Copies the tree at `/path` of the machine, with everything mounted below it, to `to`.
    fn take(&self, path: &str, to: &str) -> io::Result<()> {
        fs::create_dir_all(self.at(to))?;
        Tree::copy(&Path::new("/").join(path))?
            .read_only()?
            .attach(&self.at(to))
    }

    fn programs(&self) -> io::Result<()> {
        for path in PROGRAMS {
            let machine = Path::new("/").join(path);
            match fs::symlink_metadata(&machine) {
                Err(_) => continue,
                Ok(metadata) if metadata.is_symlink() => {
                    symlink(fs::read_link(&machine)?, self.at(path))?;
                    continue;
                }
                Ok(_) => {}
            }
            let kept = format!("{MACHINE}/{path}");
            self.take(path, &kept)?;
            let folder = self.at(path);
            fs::create_dir_all(&folder)?;
            for entry in fs::read_dir(&machine)? {
                let entry = entry?;
                let name = entry.file_name();
                let text = name.to_string_lossy();
                if HIDDEN.contains(&&*text) || standins::replaces(&text) {
                    continue;
                }
                let target = if entry.file_type()?.is_symlink() {
                    fs::read_link(entry.path())?
                } else {
                    Path::new("/").join(&kept).join(&name)
                };
                symlink(target, folder.join(&name))?;
            }
        }
        Ok(())
    }

    fn libraries(&self) -> io::Result<()> {
        for path in LIBRARIES {
            let machine = Path::new("/").join(path);
            match fs::symlink_metadata(&machine) {
                Ok(metadata) if metadata.is_symlink() => {
                    symlink(fs::read_link(&machine)?, self.at(path))?
                }
                Ok(metadata) if metadata.is_dir() => self.take(path, path)?,
                _ => continue,
            }
            // Programs that look for their libraries beside themselves (python3) find them here.
            if let Some(name) = path.strip_prefix("usr/") {
                symlink(
                    format!("/usr/{name}"),
                    self.at(&format!("{MACHINE}/usr/{name}")),
                )?;
            }
        }
        Ok(())
    }

    fn devices(&self) -> io::Result<()> {
        let dev = self.at("dev");
        for name in DEVICES {
            let machine = Path::new("/dev").join(name);
            if !fs::metadata(&machine).is_ok_and(|metadata| metadata.file_type().is_char_device()) {
                continue;
            }
            fs::write(dev.join(name), "")?;
            // Read-only protects the machine's node (its mode and owner); reading and writing the device still works.
            Tree::copy(&machine)?.read_only()?.attach(&dev.join(name))?;
        }
        for (name, target) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
            ("ttyS0", "console"),
        ] {
            symlink(target, dev.join(name))?;
        }
        // Process 1 reads it and passes everything on to the real console.
        nix::unistd::mkfifo(
            &dev.join("console"),
            nix::sys::stat::Mode::from_bits_truncate(0o620),
        )?;
        fs::create_dir(dev.join("shm"))?;
        fs::set_permissions(dev.join("shm"), Permissions::from_mode(0o1777))?;
        fs::create_dir(dev.join("pts"))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        let options = Some("newinstance,ptmxmode=0666,mode=620");
        mount(
            Some("devpts"),
            &dev.join("pts"),
            Some("devpts"),
            flags,
            options,
        )?;
        Ok(())
    }
}
