//! The processes that make a host: a re-execution of this binary (single-threaded, so that it may fork), and its child in
//! new user, mount, network, process, host-name and IPC namespaces. The child becomes process 1 of the host.
//!
//! Nothing of the host runs before every part of its isolation stands: each step returns a [`Failure`], and a failure ends
//! the child.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, getegid, geteuid, setgroups, setresgid, setresuid, setsid};

use super::control::{Channel, Making, Order, Report};
use super::error::{Failure, Stage};
use super::filesystem::{self, Tree};
use super::{INIT_ARGUMENT, OWN_BINARY, network};

/// The user and group outside that a host runs as when root starts it: `nobody`, as the kernel's overflow id. Root's own
/// id would own the machine's files, devices and kernel settings inside the namespace as well.
const UNPRIVILEGED: u32 = 65534;

const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC;

/// The re-executed process: makes the namespaces, maps the ids, and waits for the host to end.
pub(super) fn run() -> i32 {
    close_inherited_descriptors();
    let Ok(control) = Channel::from_stdin() else {
        return 1;
    };
    match make(&control) {
        Ok(code) => code,
        Err(failure) => report(&control, failure),
    }
}

fn report(control: &Channel, failure: Failure) -> i32 {
    // When the parent has gone too there is nobody left to tell.
    let _ = control.send(&Report::Failed(failure), &[]);
    1
}

fn make(control: &Channel) -> Result<i32, Failure> {
    let failed =
        |what: &'static str| move |error: nix::Error| Failure::new(Stage::Namespaces, what, error);
    // Out of the operator's terminal and process group: Ctrl-C is the operator's to handle, and the host must not be able to
    // read or write the terminal.
    setsid().map_err(failed("leave the terminal"))?;
    // Only root may take the binary along like this; it matters where the binary lies below a home that others cannot enter.
    let binary = filesystem::own_binary().ok();
    let (mut wait_for_map, go) =
        io::pipe().map_err(|error| Failure::new(Stage::Namespaces, "make a pipe", error))?;

    // SAFETY: this process has one thread, so the child may go on as if it had been forked. No stack is given, so it keeps
    // a copy of ours.
    let child = unsafe { libc::syscall(libc::SYS_clone, NAMESPACES | libc::SIGCHLD, 0, 0, 0, 0) };
    match child {
        -1 => Err(failed("make the namespaces of the host")(nix::Error::last())),
        0 => {
            drop(go);
            // End of file means that the parent failed and has reported why.
            if wait_for_map.read(&mut [0]).is_ok_and(|length| length == 1) {
                let failure = become_the_host(control, binary);
                report(control, failure);
            }
            std::process::exit(1);
        }
        pid => {
            drop(wait_for_map);
            let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
            if let Err(failure) = map_ids(pid) {
                drop(go);
                let _ = waitpid(pid, None);
                return Err(failure);
            }
            let mut go = go;
            // A child that has died in between is reported by its own status.
            let _ = go.write_all(b"1");
            Ok(wait(pid))
        }
    }
}

/// Waits for process 1. The kernel lets it be reaped only after every other process of its namespace has gone.
fn wait(pid: Pid) -> i32 {
    loop {
        match waitpid(pid, None) {
            Err(nix::Error::EINTR) => {}
            Ok(WaitStatus::Exited(_, code)) => return code,
            Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as i32,
            Ok(_) => {}
            Err(_) => return 1,
        }
    }
}

/// Maps root of the host to one unprivileged id outside.
fn map_ids(pid: Pid) -> Result<(), Failure> {
    let write = |file: &str, text: &str| {
        fs::write(format!("/proc/{pid}/{file}"), text).map_err(|error| {
            Failure::new(Stage::IdMap, format!("write the {file} of the host"), error)
        })
    };
    if geteuid().is_root() {
        let nobody = format!("0 {UNPRIVILEGED} 1");
        if write("gid_map", &nobody).is_ok() {
            return write("uid_map", &nobody);
        }
        // Root inside a container may map only itself.
    }
    write("setgroups", "deny")?;
    write("gid_map", &format!("0 {} 1", getegid()))?;
    write("uid_map", &format!("0 {} 1", geteuid()))
}

/// In the new namespaces: takes the new ids, makes network and files, and becomes process 1. Returns only when that fails.
fn become_the_host(control: &Channel, binary: Option<Tree>) -> Failure {
    let (listeners, making) = match prepare(control, binary) {
        Ok(prepared) => prepared,
        Err(failure) => return failure,
    };
    if let Err(error) = control.send(&Report::Made, &listeners) {
        return Failure::new(Stage::Init, "hand over the listeners", error);
    }
    drop((listeners, making));
    let error = Command::new(OWN_BINARY)
        .arg0("m8trx")
        .arg(INIT_ARGUMENT)
        .env_clear()
        .current_dir("/")
        .exec();
    Failure::new(Stage::Init, "start process 1 of the host", error)
}

fn prepare(
    control: &Channel,
    binary: Option<Tree>,
) -> Result<(Vec<OwnedFd>, Box<Making>), Failure> {
    take_ids()?;
    let message = control
        .receive::<Order>()
        .map_err(|error| Failure::new(Stage::Init, "read what to make", error))?;
    let Some((Order::Make(making), _)) = message else {
        // The parent has gone, or speaks another language.
        std::process::exit(1);
    };
    nix::unistd::sethostname(&making.hostname)
        .map_err(|error| Failure::new(Stage::Namespaces, "name the host", error))?;
    let listeners = network::make(&making)?;
    let binary = match binary {
        Some(tree) => tree,
        None => filesystem::own_binary()
            .map_err(|error| Failure::new(Stage::Mounts, "open m8trx's own program file", error))?,
    };
    filesystem::make(&making, binary)?;
    Ok((listeners, making))
}

fn take_ids() -> Result<(), Failure> {
    let failed =
        |what: &'static str| move |error: nix::Error| Failure::new(Stage::IdMap, what, error);
    let denied = fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny");
    if !denied {
        setgroups(&[]).map_err(failed("leave the operator's groups"))?;
    }
    let (gid, uid) = (Gid::from_raw(0), Uid::from_raw(0));
    setresgid(gid, gid, gid).map_err(failed("become the host's root group"))?;
    setresuid(uid, uid, uid).map_err(failed("become the host's root"))?;
    // A change of ids takes both away; they come back before anything else is done.
    prctl::set_dumpable(true).map_err(failed("stay inspectable to the host's own processes"))?;
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed("end together with m8trx"))?;
    // Died before the signal was armed? The parent lives in another process namespace, so it cannot be asked for; but
    // process 1 also ends when its control socket does.
    Ok(())
}

/// A shell or a test runner may have left descriptors open; the host gets none of them.
fn close_inherited_descriptors() {
    // SAFETY: nothing in this process holds a descriptor above the standard three yet. Kernels before 5.9 answer ENOSYS, and
    // are refused later by a clear error for lack of mount_setattr.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
}

/// Takes from this process, for ever, what a host has no use for: administration of mounts, of other processes, of the
/// kernel. What is executed next has only the rest, so it cannot uncover or remount anything.
pub(super) fn drop_dangerous_capabilities() -> io::Result<()> {
    const SYS_MODULE: u64 = 16;
    const SYS_RAWIO: u64 = 17;
    const SYS_PTRACE: u64 = 19;
    const SYS_ADMIN: u64 = 21;
    const SYS_BOOT: u64 = 22;
    for capability in [SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, SYS_BOOT] {
        // SAFETY: PR_CAPBSET_DROP takes one number and touches no memory.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    prctl::set_no_new_privs()?;
    Ok(())
}

/// The descriptor of standard output, on which the console is.
pub(super) fn console() -> io::Result<fs::File> {
    let stdout = io::stdout();
    debug_assert_eq!(stdout.as_raw_fd(), 1);
    Ok(fs::File::from(
        std::os::fd::AsFd::as_fd(&stdout).try_clone_to_owned()?,
    ))
}
