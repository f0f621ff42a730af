//! Files that hold a secret: one rule for all of them, wherever they are named.

use std::path::Path;

/// Why a file with a secret is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The group or others may read or write it.
    #[error("can be read by others (mode {0:03o})")]
    Open(u32),
    /// It is not there, or not for this user.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

/// Whether a file with a secret can be read, and by its owner alone. Pipes (`<(…)`, `/dev/stdin`) have no other readers.
pub fn check(path: &Path) -> Result<(), Problem> {
    use std::os::unix::fs::PermissionsExt as _;
    let unreadable = |e: std::io::Error| Problem::Unreadable(e.to_string());
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(Problem::Open(mode));
    }
    std::fs::File::open(path).map(drop).map_err(unreadable)
}

/// What to do about it.
pub fn remedy(path: &Path) -> String {
    format!(
        "chmod 600 {}",
        shell_words::quote(&path.display().to_string())
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_the_owner_may_read_a_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert!(matches!(check(&path), Err(Problem::Unreadable(_))));
        std::fs::write(&path, "secret").unwrap();
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check(&path).is_ok(), good, "{mode:o}");
        }
        assert_eq!(check(Path::new("/dev/null")), Ok(()));
    }
}
