//! Process 1 of a host: reaps, boots, keeps the services and timers going, and ends with its control socket.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::control::{Channel, Order, Report};
use super::error::{Failure, Stage};
use super::standins::Marker;
use super::systemd::Manager;
use super::systemd::journal::{INFO, split_priority};
use super::systemd::protocol::SOCKET;
use super::{CLOUD_INIT_ARGUMENT, OWN_BINARY, namespace};

/// Seconds that a real host has been up when cloud-init's last stage begins (measured on t3 instances: 8 to 15 s); console
/// stamps begin there.
const BOOT_OFFSET: Duration = Duration::from_millis(9_214);

/// What an EC2 instance prints before cloud-init; `{}` is the host's name.
const BOOT_LINES: [(&str, &str); 9] = [
    (
        "    0.000000",
        "Linux version 6.8.0-1029-aws (buildd@lcy02-amd64-031) (x86_64-linux-gnu-gcc-12 (Ubuntu 12.3.0-1ubuntu1~22.04) 12.3.0, GNU ld (GNU Binutils for Ubuntu) 2.38) #31~22.04.1-Ubuntu SMP",
    ),
    (
        "    0.000000",
        "Command line: BOOT_IMAGE=/boot/vmlinuz-6.8.0-1029-aws root=PARTUUID=5198cbc0-01 ro console=tty1 console=ttyS0 nvme_core.io_timeout=4294967295 panic=-1",
    ),
    (
        "    0.000000",
        "DMI: Amazon EC2 t3.micro/, BIOS 1.0 10/16/2017",
    ),
    (
        "    1.842177",
        "EXT4-fs (nvme0n1p1): mounted filesystem with ordered data mode",
    ),
    (
        "    2.417903",
        "systemd[1]: systemd 249.11-0ubuntu3.16 running in system mode (m8trx sandbox)",
    ),
    (
        "    2.431688",
        "systemd[1]: Detected virtualization amazon.",
    ),
    ("    2.460019", "systemd[1]: Hostname set to <{}>."),
    (
        "    5.108422",
        "cloud-init[512]: Cloud-init v. 24.4-0ubuntu1~22.04.1 running 'init-local'. Up 5.10 seconds.",
    ),
    (
        "    7.651930",
        "cloud-init[561]: Cloud-init v. 24.4-0ubuntu1~22.04.1 running 'init'. Up 7.65 seconds.",
    ),
];

/// The stamp of a console line, as the kernel writes it.
pub(super) fn stamp(booted: Instant) -> String {
    let up = booted.elapsed() + BOOT_OFFSET;
    format!("[{:>5}.{:06}]", up.as_secs(), up.subsec_micros())
}

/// Seconds since the host's boot began, as its console counts them.
pub(super) fn seconds_up(since_boot: Duration) -> f64 {
    (since_boot + BOOT_OFFSET).as_secs_f64()
}

/// When the host's boot began, as its console counts. A machine that has itself just booted has no clock that far back.
pub(super) fn boot_began(booted: Instant) -> Instant {
    booted.checked_sub(BOOT_OFFSET).unwrap_or(booted)
}

/// Runs process 1 until the sandbox lets go of the host.
pub(super) fn run() -> i32 {
    let Ok(control) = Channel::from_stdin() else {
        return 1;
    };
    let init = Init::new(control);
    match init {
        Ok(mut init) => init.serve(),
        Err((control, error)) => {
            let failure = Failure::new(Stage::Init, "set up process 1 of the host", error);
            // Nobody to tell when the parent has gone.
            let _ = control.send(&Report::Failed(failure), &[]);
            1
        }
    }
}

struct Init {
    control: Channel,
    marker: Marker,
    console: File,
    signals: SignalFd,
    requests: UnixListener,
    syslog: UnixDatagram,
    /// What programs write to `/dev/console`.
    written: File,
    booted: Instant,
    manager: Manager,
    cloud_init: Option<Pid>,
}

impl Init {
    fn new(control: Channel) -> Result<Init, (Channel, io::Error)> {
        match Self::parts() {
            Ok((marker, console, signals, requests, syslog, written, manager, booted)) => {
                Ok(Init {
                    control,
                    marker,
                    console,
                    signals,
                    requests,
                    syslog,
                    written,
                    booted,
                    manager,
                    cloud_init: None,
                })
            }
            Err(error) => Err((control, error)),
        }
    }

    #[allow(clippy::type_complexity)]
    fn parts() -> io::Result<(
        Marker,
        File,
        SignalFd,
        UnixListener,
        UnixDatagram,
        File,
        Manager,
        Instant,
    )> {
        prctl::set_name(c"systemd")?;
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        let booted = Instant::now();
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let marker = Marker::read()?;
        let console = namespace::console()?;
        fs::create_dir_all("/run/systemd")?;
        let requests = UnixListener::bind(SOCKET)?;
        let syslog = UnixDatagram::bind("/run/systemd/dev-log")?;
        syslog.set_nonblocking(true)?;
        fs::set_permissions("/run/systemd/dev-log", Permissions::from_mode(0o666))?;
        std::os::unix::fs::symlink("/run/systemd/dev-log", "/dev/log")?;
        // Read and write, so that it never ends and writers never wait for a reader.
        let written = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/console")?;
        let manager = Manager::new(
            console.try_clone()?,
            booted,
            marker.conditions.systemd_fails,
        )?;
        Ok((
            marker, console, signals, requests, syslog, written, manager, booted,
        ))
    }

    fn serve(&mut self) -> i32 {
        if self.control.send(&Report::Up, &[]).is_err() {
            return 0;
        }
        loop {
            self.manager.tick();
            let wait = self
                .manager
                .next_deadline()
                .map(|at| at.saturating_duration_since(Instant::now()));
            let ready = match self.wait(wait) {
                Ok(ready) => ready,
                Err(_) => return 1,
            };
            if ready.control {
                match self.control.receive::<Order>() {
                    Ok(Some((Order::Boot, _))) => self.boot(),
                    // End of file: the sandbox has let go of the host. The kernel ends the rest with us.
                    _ => return 0,
                }
            }
            if ready.signals {
                while let Ok(Some(_)) = self.signals.read_signal() {}
            }
            self.manager.read_outputs();
            self.reap();
            if ready.requests {
                self.accept();
            }
            self.forward_console();
            self.collect_syslog();
        }
    }

    fn wait(&self, limit: Option<Duration>) -> io::Result<Ready> {
        let mut fds: Vec<BorrowedFd> = vec![
            self.control.as_fd(),
            self.signals.as_fd(),
            self.requests.as_fd(),
            self.syslog.as_fd(),
            self.written.as_fd(),
        ];
        fds.extend(self.manager.output_pipes().map(AsFd::as_fd));
        let mut fds: Vec<_> = fds
            .into_iter()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        // Rounded up, or the last millisecond would spin.
        let limit = limit.map(|limit| {
            u32::try_from(limit.as_millis())
                .unwrap_or(u32::MAX)
                .saturating_add(1)
        });
        let limit = limit.and_then(|limit| PollTimeout::try_from(limit.min(60_000)).ok());
        match poll(&mut fds, limit.unwrap_or(PollTimeout::NONE)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = |index: usize| fds[index].any().unwrap_or(false);
        Ok(Ready {
            control: ready(0),
            signals: ready(1),
            requests: ready(2),
        })
    }

    fn boot(&mut self) {
        // Process numbers as after a real boot, for whoever reads the console. Kernels without checkpointing start at 2.
        let _ = fs::write("/proc/sys/kernel/ns_last_pid", "611");
        let hostname = nix::unistd::gethostname().unwrap_or_default();
        for (stamp, text) in BOOT_LINES {
            if self.marker.conditions.user_data_never_runs && text.contains("cloud-init") {
                continue;
            }
            let text = text.replace("{}", &hostname.to_string_lossy());
            self.print(&format!("[{stamp}] {text}"));
        }
        self.manager.start("multi-user.target");
        self.manager.start("timers.target");
        if self.marker.conditions.user_data_never_runs {
            return self.boot_is_over();
        }
        match self.start_cloud_init() {
            Ok(pid) => self.cloud_init = Some(pid),
            Err(error) => {
                self.print(&format!(
                    "{} systemd[1]: Failed to start cloud-final.service: {error}",
                    stamp(self.booted)
                ));
                self.boot_is_over();
            }
        }
    }

    fn start_cloud_init(&mut self) -> io::Result<Pid> {
        // The monotonic clock's instants cannot be handed over.
        let booted = SystemTime::now() - self.booted.elapsed();
        let nanoseconds = booted
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let mut command = Command::new(OWN_BINARY);
        command
            .arg0("cloud-init")
            .arg(CLOUD_INIT_ARGUMENT)
            .env_clear()
            .env("M8TRX_BOOTED", nanoseconds.to_string())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::from(self.console.try_clone()?))
            .stderr(Stdio::from(self.console.try_clone()?));
        // SAFETY: this process has one thread, so the forked child may make system calls as usual.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                SigSet::empty().thread_set_mask()?;
                namespace::drop_dangerous_capabilities()
            });
        }
        let child = command.spawn()?;
        Ok(Pid::from_raw(
            i32::try_from(child.id()).expect("a process id"),
        ))
    }

    fn boot_is_over(&mut self) {
        self.manager.finished = true;
        let hostname = nix::unistd::gethostname().unwrap_or_default();
        self.print(&format!(
            "\r\nUbuntu 22.04.5 LTS {} ttyS0\r\n\r\n{0} login: ",
            hostname.to_string_lossy()
        ));
    }

    fn reap(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(nix::Error::EINTR) => {}
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(status) => {
                    if status.pid() == self.cloud_init {
                        self.cloud_init = None;
                        self.boot_is_over();
                    } else {
                        // Orphans of the script belong to nobody.
                        self.manager.process_ended(status);
                    }
                }
            }
        }
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.requests.accept() else {
            return;
        };
        // A stand-in sends its line at once; whoever else connects must not stop process 1.
        let patience = Some(Duration::from_millis(500));
        if stream.set_read_timeout(patience).is_err() {
            return;
        }
        let mut line = String::new();
        let limited = Read::by_ref(&mut &stream)
            .take(64 * 1024)
            .read_line_from(&mut line);
        if let (Ok(_), Ok(request)) = (limited, serde_json::from_str(&line)) {
            self.manager.handle(request, stream);
        }
    }

    fn forward_console(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = self.written.read(&mut buffer) {
            // The console is gone only when the host is.
            let _ = self.console.write_all(&buffer[..length]);
        }
    }

    fn collect_syslog(&mut self) {
        let mut buffer = [0; 8192];
        while let Ok(length) = self.syslog.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            let (priority, text) = split_priority(text.trim_end_matches(['\0', '\n']), INFO);
            // `Nov 23 10:00:00 tag[12]: message`, as logger(1) writes it.
            let text = if text.get(3..4) == Some(" ") && text.len() > 16 {
                text.get(16..).unwrap_or(text)
            } else {
                text
            };
            let (tag, message) = text.split_once(": ").unwrap_or(("unknown", text));
            let (name, pid) = tag.split_once('[').unwrap_or((tag, "0]"));
            let pid = pid.trim_end_matches(']').parse().unwrap_or(0);
            self.manager.log(name, pid, priority, message);
        }
    }

    fn print(&mut self, line: &str) {
        let _ = self.console.write_all(format!("{line}\r\n").as_bytes());
    }
}

struct Ready {
    control: bool,
    signals: bool,
    requests: bool,
}

trait ReadLine: Read + Sized {
    fn read_line_from(self, line: &mut String) -> io::Result<usize> {
        BufReader::new(self).read_line(line)
    }
}

impl<T: Read> ReadLine for T {}
