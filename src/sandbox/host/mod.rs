//! A customer host, without root: user-data runs unmodified in namespaces of its own.
//!
//! `namespace` makes the processes, `filesystem` and `network` what they see, `init` is process 1, `systemd` its service
//! manager, and `standins` are the commands that a host of the sandbox cannot have for real (apt-get, systemctl, aws,
//! tailscale). All of it is this one binary, re-executed: see [`run_if_reexecuted`].

mod cloud_init;
mod console;
mod control;
mod error;
mod etc;
mod filesystem;
mod imds;
mod init;
mod mount;
mod namespace;
mod network;
mod standins;
mod systemd;

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

pub use console::Console;
pub use error::HostError;

use control::{Channel, Making, Order, Report};

/// First argument of the process that makes the namespaces.
const HOST_ARGUMENT: &str = "__sandbox-host";
/// First argument of process 1 inside.
const INIT_ARGUMENT: &str = "__sandbox-init";
/// First argument of the process that does cloud-init's work inside.
const CLOUD_INIT_ARGUMENT: &str = "__sandbox-cloud-init";

/// This program inside a host.
const OWN_BINARY: &str = "/.m8trx/bin/m8trx";
/// Its existence says that this process runs inside a host; it holds what the stand-ins need to know.
const MARKER: &str = "/.m8trx/host.json";

/// Far above what was measured (0.1 s), for machines under heavy load.
const SETUP_LIMIT: Duration = Duration::from_secs(30);
/// How long a host may take to end by itself before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// What a host needs to start.
#[derive(Debug, Clone)]
pub struct HostSpec {
    /// The instance id, `i-` and hexadecimal digits.
    pub instance_id: String,
    /// The host name, such as `ip-172-31-0-10`.
    pub hostname: String,
    /// Further lines of `/etc/hosts`.
    pub hosts: Vec<(IpAddr, String)>,
    /// Addresses to add to the host's loopback device, each as a /32.
    pub addresses: Vec<Ipv4Addr>,
    /// Listeners to open inside the host; [`Host::take_listener`] hands them out by name.
    pub listeners: Vec<(&'static str, SocketAddr)>,
    /// A certificate authority that programs on the host trust, in PEM.
    pub ca_certificate_pem: String,
    /// Faults of the host itself.
    pub conditions: HostConditions,
}

/// Conditions of the host itself that make a boot fail, for drills. The default has none.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct HostConditions {
    /// What is wrong with the package manager.
    pub apt: Option<AptFault>,
    /// systemd does not answer a `daemon-reload` any more.
    pub systemd_fails: bool,
    /// The pauses of user-data pass at once.
    pub pauses_pass: bool,
    /// The image has no working cloud-init: the host boots, but user-data never runs.
    pub user_data_never_runs: bool,
    /// How often the heartbeat's timer beats, by drop-ins that look for a new key at every beat; no fault, but a hurry.
    pub heartbeat_every: Option<Duration>,
}

/// What is wrong with the package manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AptFault {
    /// No package mirror can be reached.
    MirrorDown,
    /// Another process holds the package lock and does not let go.
    LockHeld,
    /// The archive does not have this package.
    PackageMissing(String),
}

/// A running host. Dropping it ends every process of the host, but only [`Host::stop`] waits for that.
#[derive(Debug)]
pub struct Host {
    control: Option<Channel>,
    child: Child,
    console: Console,
    reader: JoinHandle<()>,
    listeners: HashMap<&'static str, std::net::TcpListener>,
}

impl Host {
    /// Makes the namespaces, the private file system and the listeners; process 1 then waits for [`Host::boot`].
    ///
    /// Everything a host writes lies in memory that goes with its last process, so nothing is kept in `stage`, the sandbox's
    /// own folder; it only has to exist.
    ///
    /// # Errors
    /// [`HostError::Refused`] where the machine does not allow it, and the others of [`HostError`]. Nothing is left running.
    pub async fn start(spec: HostSpec, stage: &Path) -> Result<Host, HostError> {
        Self::start_from(spec, stage, Path::new("/proc/self/exe")).await
    }

    /// As [`Host::start`], with another program file than the running one. It must call [`run_if_reexecuted`] first thing in
    /// its `main`. Tests need it, because they run in a program of their own.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub async fn start_from(
        spec: HostSpec,
        stage: &Path,
        binary: &Path,
    ) -> Result<Host, HostError> {
        if !stage.is_dir() {
            let missing = format!("needs the folder {}, which does not exist", stage.display());
            return Err(HostError::Setup(missing));
        }
        let names: Vec<_> = spec.listeners.iter().map(|(name, _)| *name).collect();
        let making = making(spec);
        let spawn_failed = |source| HostError::Spawn {
            binary: binary.to_owned(),
            source,
        };

        let (ours, theirs) = Channel::pair().map_err(HostError::Control)?;
        let (read, write) = io::pipe().map_err(HostError::Control)?;
        let child = Command::from(command(binary, theirs, write.into()).map_err(spawn_failed)?)
            .kill_on_drop(true)
            .spawn()
            .map_err(spawn_failed)?;
        let console = Console::default();
        nix::fcntl::fcntl(
            &read,
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
        )
        .map_err(|error| HostError::Control(error.into()))?;
        let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(read.into())
            .map_err(HostError::Control)?;
        let reader = tokio::spawn(console.clone().follow(pipe));

        let shaking =
            tokio::task::spawn_blocking(move || shake_hands(&ours, making).map(|fds| (ours, fds)));
        let shaken = shaking
            .await
            .map_err(|error| HostError::Setup(error.to_string()))?;
        let (control, fds) = match shaken {
            Ok(shaken) => shaken,
            Err(HostError::Ended(_)) => {
                drop(child);
                // The child's last words, such as a panic, are on the console.
                let _ = tokio::time::timeout(STOP_LIMIT, reader).await;
                let words = String::from_utf8_lossy(&console.bytes()).trim().to_owned();
                let words = if words.is_empty() {
                    words
                } else {
                    format!(": {words}")
                };
                return Err(HostError::Ended(words));
            }
            Err(error) => return Err(error),
        };
        let listeners = names
            .into_iter()
            .zip(fds.into_iter().map(Into::into))
            .collect();
        Ok(Host {
            control: Some(control),
            child,
            console,
            reader,
            listeners,
        })
    }

    /// A listener of the specification, once. It must be served before the boot, which asks the metadata service.
    pub fn take_listener(&mut self, name: &str) -> Option<TcpListener> {
        let listener = self.listeners.remove(name)?;
        listener.set_nonblocking(true).ok()?;
        TcpListener::from_std(listener).ok()
    }

    /// Lets process 1 start the boot: it fetches user-data from the metadata service and runs it.
    ///
    /// # Errors
    /// [`HostError::Ended`] where the host has ended already.
    pub fn boot(&mut self) -> Result<(), HostError> {
        let ended = || HostError::Ended(String::new());
        let control = self.control.as_ref().ok_or_else(ended)?;
        control.send(&Order::Boot, &[]).map_err(|_| ended())
    }

    /// What the host writes to its console.
    pub fn console(&self) -> Console {
        self.console.clone()
    }

    /// Resolves when every process of the host is gone, and its last words have arrived on the console.
    pub async fn exited(&mut self) {
        // An error means that the child has been waited for already.
        let _ = self.child.wait().await;
        if !self.reader.is_finished() {
            let _ = (&mut self.reader).await;
        }
    }

    /// Ends every process of the host; returns when they are gone.
    pub async fn stop(&mut self) {
        if let Some(control) = self.control.take() {
            control.hang_up();
        }
        self.listeners.clear();
        if tokio::time::timeout(STOP_LIMIT, self.exited())
            .await
            .is_err()
        {
            // Process 1 is killed with its parent, and everything else with process 1.
            let _ = self.child.start_kill();
            self.exited().await;
        }
    }
}

fn making(spec: HostSpec) -> Making {
    Making {
        instance_id: spec.instance_id,
        hostname: spec.hostname,
        hosts: spec.hosts,
        addresses: spec.addresses,
        listeners: spec.listeners.iter().map(|(_, address)| *address).collect(),
        ca_certificate_pem: spec.ca_certificate_pem,
        conditions: spec.conditions,
    }
}

/// The re-execution: control socket as standard input, console as output, nothing of our environment.
fn command(binary: &Path, control: Channel, console: OwnedFd) -> io::Result<std::process::Command> {
    let mut command = std::process::Command::new(binary);
    command
        .arg(HOST_ARGUMENT)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(control.into_fd()))
        .stdout(Stdio::from(console.try_clone()?))
        .stderr(Stdio::from(console));
    Ok(command)
}

/// Sends what to make and waits until process 1 is up. Blocking.
fn shake_hands(control: &Channel, making: Making) -> Result<Vec<OwnedFd>, HostError> {
    control
        .time_out_after(SETUP_LIMIT)
        .map_err(HostError::Control)?;
    let expected = making.listeners.len();
    match control.send(&Order::Make(Box::new(making)), &[]) {
        // It has ended already, perhaps after saying why.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(HostError::Control(error));
        }
        _ => {}
    }
    let mut listeners = Vec::new();
    loop {
        match control.receive::<Report>() {
            Ok(Some((Report::Made, attached))) => listeners = attached,
            Ok(Some((Report::Up, _))) if listeners.len() == expected => return Ok(listeners),
            Ok(Some((Report::Failed(failure), _))) => return Err(failure.into()),
            Ok(Some((Report::Up, _)) | None) => return Err(HostError::Ended(String::new())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let late = format!("was not ready after {} s", SETUP_LIMIT.as_secs());
                return Err(HostError::Setup(late));
            }
            Err(error) => return Err(HostError::Control(error)),
        }
    }
}

/// Whether this machine allows what a host needs, found out by making one that has nothing to do (about 0.1 s). Blocking.
///
/// # Errors
/// As [`Host::start`]; the text says what is missing and the remedy.
pub fn check_support() -> Result<(), HostError> {
    check_support_from(Path::new("/proc/self/exe"))
}

/// As [`check_support`], with another program file than the running one; see [`Host::start_from`].
///
/// # Errors
/// As [`Host::start`].
pub fn check_support_from(binary: &Path) -> Result<(), HostError> {
    let spawn_failed = |source| HostError::Spawn {
        binary: PathBuf::from(binary),
        source,
    };
    let (ours, theirs) = Channel::pair().map_err(HostError::Control)?;
    let silent = std::fs::File::options()
        .write(true)
        .open("/dev/null")
        .map_err(HostError::Control)?;
    let mut child = command(binary, theirs, silent.into())
        .map_err(spawn_failed)?
        .spawn()
        .map_err(spawn_failed)?;
    let nothing = Making {
        instance_id: "i-0".into(),
        hostname: "localhost".into(),
        hosts: Vec::new(),
        addresses: vec![Ipv4Addr::new(169, 254, 169, 254)],
        listeners: Vec::new(),
        ca_certificate_pem: String::new(),
        conditions: HostConditions::default(),
    };
    let result = shake_hands(&ours, nothing).map(drop);
    drop(ours);
    // Its status says nothing beyond the result.
    let _ = child.wait();
    result
}

/// The parts of this program that run inside a host: decided by the first argument or, inside a host, by the name it was
/// called by. `Some` with the exit code when this process was one of them. To be called first thing in `main`, before any
/// thread or runtime starts.
pub fn run_if_reexecuted() -> Option<i32> {
    let mut arguments = std::env::args_os();
    let called = PathBuf::from(arguments.next()?);
    let arguments: Vec<String> = arguments
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    match arguments.first().map(String::as_str) {
        Some(HOST_ARGUMENT) => return Some(namespace::run()),
        Some(INIT_ARGUMENT) if inside() => return Some(init::run()),
        Some(CLOUD_INIT_ARGUMENT) if inside() => return Some(cloud_init::run()),
        _ => {}
    }
    let name = called.file_name()?.to_str()?;
    if !standins::replaces(name) || !inside() {
        return None;
    }
    let code = standins::run(name, &arguments);
    // A reader that has gone (`… | head`) is not a failure of ours.
    let _ = io::stdout().flush();
    Some(code)
}

fn inside() -> bool {
    Path::new(MARKER).exists()
}
