//! What cloud-init's last stage does on a host: fetch user-data, run it as a file, and report on the console as it does.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::{Timestamp, tz::TimeZone};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{ForkResult, fork};

use super::imds::Imds;
use super::standins::Marker;
use super::{init, namespace};

/// cloud-init keeps asking for two minutes; so does this.
const PATIENCE: Duration = Duration::from_secs(120);
const SCRIPT: &str = "/var/lib/cloud/instance/scripts/part-001";
/// Bash reads the file that `BASH_ENV` names before a script.
const PAUSES_PASS: &str = "/run/m8trx-sandbox-pauses-pass.sh";
const PAUSES_PASS_SH: &str = include_str!("pauses-pass.sh");
const LOG: &str = "/var/log/cloud-init-output.log";
const VERSION: &str = "24.4-0ubuntu1~22.04.1";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin";

/// Runs the stage; the exit code says nothing, as cloud-init's does not.
pub(super) fn run() -> i32 {
    let booted = std::env::var("M8TRX_BOOTED")
        .ok()
        .and_then(|text| text.parse().ok())
        .map(|nanoseconds| UNIX_EPOCH + Duration::from_nanos(nanoseconds));
    let Ok(mut out) = Out::open(booted.unwrap_or_else(SystemTime::now)) else {
        return 1;
    };
    out.line(&format!(
        "Cloud-init v. {VERSION} running 'modules:final' at {}. Up {} seconds.",
        now(),
        out.seconds_up()
    ));
    let left = user_data(&mut out).unwrap_or_else(|error| {
        out.warn(
            "url_helper.py",
            &format!("Calling 'http://169.254.169.254' failed: {error}"),
        );
        out.warn(
            "util.py",
            "Getting data from <class 'cloudinit.sources.DataSourceEc2.DataSourceEc2Local'> failed",
        );
        None
    });
    out.line(&format!(
        "Cloud-init v. {VERSION} finished at {}. Datasource DataSourceEc2Local.  Up {} seconds",
        now(),
        out.seconds_up()
    ));
    if let Some(pipe) = left {
        // SAFETY: this process has one thread. The boot goes on when its parent half ends, while what the script left running
        // can still write.
        if let Ok(ForkResult::Child) = unsafe { fork() } {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                out.raw(&line);
            }
        }
    }
    0
}

/// Where cloud-init writes: its log, and the console with the prefix that the journal puts before each line.
struct Out {
    console: File,
    log: File,
    booted: SystemTime,
}

impl Out {
    fn open(booted: SystemTime) -> io::Result<Out> {
        let log = File::options().create(true).append(true).open(LOG)?;
        fs::set_permissions(LOG, Permissions::from_mode(0o640))?;
        Ok(Out {
            console: namespace::console()?,
            log,
            booted,
        })
    }

    fn since_boot(&self) -> Duration {
        self.booted.elapsed().unwrap_or_default()
    }

    fn seconds_up(&self) -> String {
        format!("{:.2}", init::seconds_up(self.since_boot()))
    }

    /// One line to both. What cannot be written is lost, as with the real one on a full disk.
    fn raw(&mut self, line: &[u8]) {
        let _ = self.log.write_all(&[line, b"\n"].concat());
        let stamp = format!(
            "[{:>12.6}] cloud-init[{}]: ",
            init::seconds_up(self.since_boot()),
            std::process::id()
        );
        let _ = self
            .console
            .write_all(&[stamp.as_bytes(), line, b"\r\n"].concat());
    }

    fn line(&mut self, text: &str) {
        self.raw(text.as_bytes());
    }

    fn warn(&mut self, source: &str, text: &str) {
        let time = Timestamp::now()
            .to_zoned_datetime(TimeZone::UTC)
            .strftime("%Y-%m-%d %H:%M:%S,%3f")
            .to_string();
        self.line(&format!("{time} - {source}[WARNING]: {text}"));
    }
}

fn now() -> String {
    Timestamp::now()
        .to_zoned_datetime(TimeZone::UTC)
        .strftime("%a, %d %b %Y %H:%M:%S +0000")
        .to_string()
}

/// Runs user-data; what it leaves running keeps the pipe that comes back.
fn user_data(out: &mut Out) -> io::Result<Option<PipeReader>> {
    let (instance_id, data) = fetch()?;
    fs::write(
        "/var/lib/cloud/data/instance-id",
        format!("{instance_id}\n"),
    )?;
    let Some(mut data) = data else {
        return Ok(None);
    };
    private("/var/lib/cloud/instance/user-data.txt", &data, 0o600)?;
    if data.starts_with(&[0x1f, 0x8b]) {
        data = unzip(&data)?;
    }
    if !data.starts_with(b"#!") {
        let start: String = String::from_utf8_lossy(&data).chars().take(20).collect();
        out.warn(
            "__init__.py",
            &format!("Unhandled non-multipart (text/x-not-multipart) userdata: 'b{start:?}...'"),
        );
        return Ok(None);
    }
    private(SCRIPT, &data, 0o700)?;
    let (status, left) = execute(out, &instance_id)?;
    if !status.success() {
        // cloud-init shows a negative number for a signal.
        let code = status
            .code()
            .unwrap_or_else(|| -status.signal().unwrap_or(1));
        out.warn("subp.py", &format!("Failed running {SCRIPT} [{code}]"));
        out.warn(
            "cc_scripts_user.py",
            "Failed to run module scripts-user (scripts in /var/lib/cloud/instance/scripts)",
        );
        out.warn(
            "util.py",
            "Running module scripts-user (<module 'cloudinit.config.cc_scripts_user' from '/usr/lib/python3/dist-packages/cloudinit/config/cc_scripts_user.py'>) failed",
        );
    }
    Ok(left)
}

/// The instance id and the user-data, if there is any.
fn fetch() -> io::Result<(String, Option<Vec<u8>>)> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(100);
    loop {
        match try_fetch() {
            Ok(fetched) => return Ok(fetched),
            Err(error) if start.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

fn try_fetch() -> io::Result<(String, Option<Vec<u8>>)> {
    let imds = Imds::connect()?;
    let instance_id = imds.get("/latest/meta-data/instance-id")?.text();
    let instance_id =
        instance_id.ok_or_else(|| io::Error::other("the metadata service has no instance id"))?;
    let answer = imds.get("/latest/user-data")?;
    match answer.status {
        200 => Ok((instance_id, Some(answer.body))),
        404 => Ok((instance_id, None)),
        status => Err(io::Error::other(format!("user-data answers {status}"))),
    }
}

fn private(path: &str, content: &[u8], mode: u32) -> io::Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// cloud-init takes gzip; the machine's own gzip unpacks it.
fn unzip(data: &[u8]) -> io::Result<Vec<u8>> {
    let path = "/var/lib/cloud/instance/user-data.gz";
    private(path, data, 0o600)?;
    let output = Command::new("gzip")
        .args(["-dc", path])
        .env_clear()
        .env("PATH", PATH)
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    Ok(output.stdout)
}

/// Runs the script and passes its output on. What it leaves running may go on writing after it has ended.
fn execute(out: &mut Out, instance_id: &str) -> io::Result<(ExitStatus, Option<PipeReader>)> {
    let (mut pipe, write) = io::pipe()?;
    let mut command = Command::new(SCRIPT);
    command.env_clear();
    if Marker::read()?.conditions.pauses_pass {
        fs::write(PAUSES_PASS, PAUSES_PASS_SH)?;
        command.env("BASH_ENV", PAUSES_PASS);
    }
    let spawned = command
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .env("INSTANCE_ID", instance_id)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(write.try_clone()?))
        .stderr(Stdio::from(write))
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            out.warn("subp.py", &format!("Unexpected error while running command. Command: ['{SCRIPT}'] Exit code: - Reason: {error}"));
            return Ok((ExitStatus::from_raw(127 << 8), None));
        }
    };
    let mut rest = Vec::new();
    let mut buffer = [0; 8192];
    let mut ended = None;
    // Short enough not to be noticed, long enough not to cost anything.
    let step = PollTimeout::from(10u8);
    loop {
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, step)? == 0 {
            if let Some(status) = ended {
                flush(out, &mut rest);
                return Ok((status, Some(pipe)));
            }
            // Once more through the loop: it may have written just before it ended.
            ended = child.try_wait()?;
            continue;
        }
        match pipe.read(&mut buffer)? {
            0 => {
                flush(out, &mut rest);
                return Ok((child.wait()?, None));
            }
            length => rest.extend(&buffer[..length]),
        }
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            out.raw(&line[..end]);
        }
    }
}

fn flush(out: &mut Out, rest: &mut Vec<u8>) {
    if !rest.is_empty() {
        out.raw(&std::mem::take(rest));
    }
}
