//! The private directory of a running sandbox.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::random;

/// A directory 0700, removed with everything in it when this is dropped.
///
/// It is locked for as long as its process lives, so that the directory of a process that died can be told from one in
/// use, whatever became of the process id.
pub(crate) struct Stage {
    path: PathBuf,
    _lock: Flock<fs::File>,
}

const PREFIX: &str = "m8trx-sandbox-";
const LOCK: &str = "lock";

impl Stage {
    /// Makes a stage below `$XDG_RUNTIME_DIR`, or the temporary directory without one, and removes those that dead
    /// processes of the same user left there.
    pub fn new() -> io::Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute() && path.is_dir());
        Self::beneath(&runtime.unwrap_or_else(std::env::temp_dir))
    }

    fn beneath(parent: &Path) -> io::Result<Self> {
        remove_stale(parent);
        let path = parent.join(format!("{PREFIX}{}", random::hex(16)));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        // The mode above is subject to the umask, which can only take away; nothing may be missing for the owner.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        // Locked before it gets the name by which another sandbox would look for it.
        let unnamed = path.join("lock.new");
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unnamed)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| io::Error::from(error))?;
        fs::rename(unnamed, path.join(LOCK))?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file 0600 and gives its path.
    pub fn write_secret(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        writeln!(file, "{text}")?;
        Ok(path)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Failures are passed over: what cannot be removed now is tried again by the next sandbox.
fn remove_stale(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    let own = nix::unistd::geteuid().as_raw();
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry
                .metadata()
                .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == own);
        if !ours {
            continue;
        }
        let Ok(file) = fs::File::open(entry.path().join(LOCK)) else {
            continue;
        };
        if Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_private_and_goes_away_and_dead_ones_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let stage = Stage::beneath(parent.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(stage.path()), 0o700);
        let secret = stage.write_secret("token", "abc").unwrap();
        assert_eq!(mode(&secret), 0o600);

        let dead = parent.path().join(format!("{PREFIX}dead"));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        let other = parent.path().join("somebody-elses");
        fs::create_dir(&other).unwrap();
        let second = Stage::beneath(parent.path()).unwrap();
        assert!(!dead.exists() && other.exists());
        assert!(stage.path().exists(), "a stage in use is left alone");

        let path = second.path().to_owned();
        drop(second);
        assert!(!path.exists());
    }
}
