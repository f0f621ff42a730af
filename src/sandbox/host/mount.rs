//! The mount system calls that have no safe wrapper: detached copies of trees with attributes of their own.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

// From <linux/mount.h>.
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

impl MountAttributes {
    const READ_ONLY: MountAttributes = MountAttributes {
        set: MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID,
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
}

fn path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        other => Ok(other),
    }
}

/// A copy of a mounted tree, with everything mounted below it, that is not attached anywhere yet.
#[derive(Debug)]
pub(super) struct Tree(OwnedFd);

impl Tree {
    /// Copies the tree at `from` (`open_tree`, Linux 5.2).
    pub fn copy(from: &Path) -> io::Result<Tree> {
        let from = path(from)?;
        let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as libc::c_uint;
        // SAFETY: the path is a NUL-terminated string that outlives the call.
        let fd = check(unsafe {
            libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, from.as_ptr(), flags)
        })?;
        let fd = i32::try_from(fd).expect("a descriptor");
        // SAFETY: the kernel has just made this descriptor and nothing else holds it.
        Ok(Tree(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes the tree and everything mounted below it read-only (`mount_setattr`, Linux 5.12).
    pub fn read_only(self) -> io::Result<Tree> {
        let attributes = MountAttributes::READ_ONLY;
        // SAFETY: the empty path means the descriptor itself, and the size given is that of the structure.
        check(unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                self.0.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
                std::ptr::from_ref(&attributes),
                std::mem::size_of::<MountAttributes>(),
            )
        })?;
        Ok(self)
    }

    /// Attaches the tree at `to`, which must exist (a folder for a folder, a file for a file).
    pub fn attach(self, to: &Path) -> io::Result<()> {
        let to = path(to)?;
        // SAFETY: both paths are NUL-terminated strings that outlive the call.
        check(unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                self.0.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                to.as_ptr(),
                MOVE_MOUNT_F_EMPTY_PATH,
            )
        })?;
        Ok(())
    }
}

/// Makes the mount at `at` and everything mounted below it read-only, where they are.
pub(super) fn make_read_only(at: &Path) -> io::Result<()> {
    let at = path(at)?;
    let attributes = MountAttributes::READ_ONLY;
    // SAFETY: the path is a NUL-terminated string, and the size given is that of the structure.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            at.as_ptr(),
            libc::AT_RECURSIVE,
            std::ptr::from_ref(&attributes),
            std::mem::size_of::<MountAttributes>(),
        )
    })?;
    Ok(())
}
