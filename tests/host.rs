//! The sandbox's host, for real: namespaces, private files, the boot, systemd's and apt's stand-ins, and that nothing is left behind.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use m8trx::sandbox::host::{AptFault, Console, Host, HostConditions, HostSpec, check_support_from};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// The program that becomes the host; the test below that runs as another user gets a copy it can reach.
fn binary() -> PathBuf {
    std::env::var_os("M8TRX_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_m8trx").into(), PathBuf::from)
}

fn spec(conditions: HostConditions) -> HostSpec {
    let metadata = SocketAddr::from(([169, 254, 169, 254], 80));
    let brain = SocketAddr::from(([127, 0, 0, 1], 4801));
    HostSpec {
        instance_id: "i-0123456789abcdef0".into(),
        hostname: "ip-172-31-0-10".into(),
        hosts: vec![("127.0.0.3".parse().unwrap(), "tailscale.com".into())],
        addresses: vec![
            [169, 254, 169, 254].into(),
            [127, 0, 0, 2].into(),
            [10, 9, 8, 7].into(),
        ],
        listeners: vec![("metadata", metadata), ("brain", brain)],
        ca_certificate_pem: "-----BEGIN CERTIFICATE-----\nprivate\n-----END CERTIFICATE-----\n"
            .into(),
        conditions,
    }
}

/// A metadata service with just what cloud-init asks for.
async fn metadata(listener: TcpListener, user_data: String) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            return;
        };
        let mut request = [0; 4096];
        let length = stream.read(&mut request).await.unwrap_or(0);
        let request = String::from_utf8_lossy(&request[..length]).into_owned();
        let authorised = request.contains("X-aws-ec2-metadata-token: secret-token\r\n");
        let (status, body) = match request.split(' ').nth(1).unwrap_or_default() {
            "/latest/api/token" if request.starts_with("PUT ") => {
                ("200 OK", "secret-token".to_owned())
            }
            _ if !authorised => ("401 Unauthorized", String::new()),
            "/latest/meta-data/instance-id" => ("200 OK", "i-0123456789abcdef0".to_owned()),
            "/latest/user-data" => ("200 OK", user_data.clone()),
            _ => ("404 Not Found", String::new()),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

struct Booted {
    host: Host,
    console: Console,
    _stage: tempfile::TempDir,
}

async fn boot_with(user_data: &str, conditions: HostConditions) -> Booted {
    let stage = tempfile::tempdir().unwrap();
    let mut host = Host::start_from(spec(conditions), stage.path(), &binary())
        .await
        .unwrap();
    let listener = host.take_listener("metadata").unwrap();
    tokio::spawn(metadata(listener, format!("#!/bin/bash\n{user_data}\n")));
    host.boot().unwrap();
    Booted {
        console: host.console(),
        host,
        _stage: stage,
    }
}

async fn boot(user_data: &str) -> Booted {
    boot_with(user_data, HostConditions::default()).await
}

impl Booted {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.console.bytes()).into_owned()
    }

    /// Waits until the console holds `words`, and returns all of it.
    async fn until(&self, words: &str) -> String {
        let start = Instant::now();
        while !self.text().contains(words) {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "no {words:?} in:\n{}",
                self.text()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.text()
    }

    /// What the script printed after `name=`.
    async fn result(&self) -> impl Fn(&str) -> String + use<> {
        let text = self.until(" finished at ").await;
        move |name: &str| {
            let key = format!("]: {name}=");
            let value = text
                .split(&key)
                .nth(1)
                .unwrap_or_else(|| panic!("no {name} in:\n{text}"));
            value.split("\r\n").next().unwrap_or_default().to_owned()
        }
    }
}

/// Process ids whose command line holds `mark`.
fn processes_with(mark: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    pids.filter(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
    })
    .collect()
}

#[tokio::test]
async fn the_script_is_isolated() {
    let home = tempfile::tempdir_in(if nix_root() { "/root" } else { "/var/tmp" }).unwrap();
    let secret = home.path().join("credentials");
    std::fs::write(&secret, "operator's secret").unwrap();
    let outside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = outside.local_addr().unwrap().port();
    let script = format!(
        r#"
say() {{ echo "$1=$2"; }}
try() {{ "$@" >/dev/null 2>&1 && echo yes || echo no; }}
say secret "$(try cat {secret})"
say machine_root "$(ls / | tr '\n' ' ')"
say root_home "$(ls -A /root | wc -l)"
say outside "$(try timeout 2 bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}')"
say internet "$(try timeout 2 bash -c 'exec 3<>/dev/tcp/1.1.1.1/53')"
say metadata "$(try timeout 2 bash -c 'exec 3<>/dev/tcp/169.254.169.254/80')"
say write_etc "$(try touch /etc/m8trx-was-here)"
say write_usr "$(try touch /usr/lib/m8trx-was-here)"
say write_bin "$(try bash -c 'echo >/usr/bin/bash')"
say write_sysctl "$(try bash -c 'echo 1 >/proc/sys/kernel/printk')"
say mount "$(try mount -t tmpfs x /opt)"
say chmod_null "$(try chmod 600 /dev/null)"
say processes "$(ls -d /proc/[0-9]* | wc -l)"
say identity "$(id -u):$(id -g):$(hostname)"
say home "${{HOME-unset}}"
say tty "$(try bash -c 'echo >/dev/tty')"
say environment "$(env | cut -d= -f1 | sort | tr '\n' ' ')"
say ca "$(grep -c private /etc/ssl/certs/ca-certificates.crt)"
say hidden "$(command -v aws tailscale docker jq | wc -l)"
say fds "$(ls /proc/self/fd | wc -l)"
say state "$(systemctl is-system-running)"
"#,
        secret = secret.display()
    );
    let mut booted = boot(&script).await;
    let result = booted.result().await;
    for denied in [
        "secret",
        "outside",
        "internet",
        "write_usr",
        "write_bin",
        "write_sysctl",
        "mount",
        "chmod_null",
        "tty",
    ] {
        assert_eq!(result(denied), "no", "{denied}");
    }
    assert_eq!(result("write_etc"), "yes");
    assert!(!Path::new("/etc/m8trx-was-here").exists());
    assert_eq!(result("metadata"), "yes");
    assert_eq!(result("root_home"), "0");
    assert_eq!(result("identity"), "0:0:ip-172-31-0-10");
    assert_eq!(result("home"), "unset");
    assert_eq!(result("environment"), "INSTANCE_ID LANG PATH PWD SHLVL _ ");
    assert_eq!(result("ca"), "1");
    assert_eq!(result("hidden"), "0");
    assert_eq!(result("fds"), "4");
    assert_eq!(result("state"), "starting");
    assert!(result("processes").parse::<u32>().unwrap() < 8);
    for absent in ["work", "host"] {
        assert!(
            !result("machine_root").split(' ').any(|name| name == absent),
            "{absent}"
        );
    }
    booted.host.stop().await;
    drop(outside);
}

fn nix_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[tokio::test]
async fn the_console_reads_like_an_instances_and_a_failure_is_reported() {
    let mut booted = boot("echo hello\nprintf 'no newline'\nexit 7").await;
    let text = booted.until("login: ").await;
    assert!(
        text.contains("systemd[1]: Hostname set to <ip-172-31-0-10>."),
        "{text}"
    );
    let hello = text.lines().find(|line| line.ends_with(": hello")).unwrap();
    let (stamp, rest) = hello.split_once("] ").unwrap();
    assert!(
        stamp.starts_with('[') && stamp[1..].trim().parse::<f64>().unwrap() > 9.0,
        "{hello}"
    );
    assert!(rest.starts_with("cloud-init["), "{hello}");
    assert!(
        text.contains("Failed running /var/lib/cloud/instance/scripts/part-001 [7]"),
        "{text}"
    );
    assert!(text.contains("Failed to run module scripts-user"), "{text}");
    assert!(text.contains(": no newline\r\n"), "{text}");
    booted.host.stop().await;
}

#[tokio::test]
async fn stop_and_a_dropped_host_leave_no_process() {
    for stopped in [true, false] {
        let mark = format!("86400.{}{}", std::process::id(), u8::from(stopped));
        let script = format!(
            "setsid sleep {mark} & (trap '' TERM INT HUP; sleep {mark}) &\necho started\nsleep {mark}"
        );
        let mut booted = boot(&script).await;
        booted.until(": started").await;
        while processes_with(&mark).len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if stopped {
            let start = Instant::now();
            booted.host.stop().await;
            assert!(
                start.elapsed() < Duration::from_secs(2),
                "{:?}",
                start.elapsed()
            );
            assert_eq!(processes_with(&mark), Vec::<String>::new());
            // A second stop has nothing to do.
            booted.host.stop().await;
            assert!(booted.host.boot().is_err());
        } else {
            drop(booted);
            let start = Instant::now();
            while !processes_with(&mark).is_empty() {
                assert!(start.elapsed() < Duration::from_secs(5));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// What a fresh host does with the units that a bootstrap installs.
#[tokio::test]
async fn services_and_timers_run_as_systemd_runs_them() {
    let script = r#"
cat >/usr/local/bin/beat <<'X'
#!/bin/sh
echo "<3>beat $VALUE home=${HOME-unset}"
touch /etc/private/beaten 2>/dev/null || echo "etc is protected"
touch /var/lib/beat/state && echo "state is writable"
X
chmod +x /usr/local/bin/beat
mkdir /etc/private; echo 'VALUE=42' >/etc/private/env
cat >/etc/systemd/system/beat.service <<'X'
[Unit]
Description=Beat
StartLimitIntervalSec=0
[Service]
Type=oneshot
EnvironmentFile=/etc/private/env
ExecStart=/usr/local/bin/beat
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
StateDirectory=beat
NoNewPrivilege=yes
X
cat >/etc/systemd/system/beat.timer <<'X'
[Unit]
Description=Beat often
[Timer]
OnActiveSec=0
OnUnitActiveSec=300ms
[Install]
WantedBy=timers.target
X
printf '[Unit]\nDescription=Broken\n[Service]\nType=oneshot\nExecStart=/bin/false\n' >/etc/systemd/system/broken.service
printf '[Unit]\nDescription=Lost\n[Service]\nType=oneshot\nExecStart=/usr/local/bin/nothing\n' >/etc/systemd/system/lost.service
printf '[Unit]\nDescription=Slow\n[Service]\nType=oneshot\nTimeoutStartSec=200ms\nExecStart=/bin/sleep 60\n' >/etc/systemd/system/slow.service
printf '[Unit]\nDescription=Daemon\n[Service]\nExecStart=/bin/sleep 600\n' >/etc/systemd/system/daemon.service
systemctl daemon-reload
systemctl start beat.service; echo "start=$?"
systemctl enable --now beat.timer 2>&1; echo "enable=$?"
echo "enabled=$(systemctl is-enabled beat.timer)"
echo "active=$(systemctl is-active beat.timer)"
systemctl start broken 2>&1; echo "broken=$?"
systemctl start lost 2>&1; echo "lost=$?"
systemctl start slow 2>&1; echo "slow=$?"
systemctl start nosuch 2>&1; echo "nosuch=$?"
systemctl start daemon && echo "daemon=$(systemctl is-active daemon)"
kill -9 "$(systemctl show -p MainPID --value daemon)"; sleep 0.1; echo "killed=$(systemctl is-active daemon)"
sleep 1
echo "beats=$(journalctl -u beat -o cat --no-pager | grep -c '^beat 42 home=unset')"
journalctl -u beat --no-pager | head -6
systemctl stop beat.timer; echo "stopped=$(systemctl is-active beat.timer)"
systemctl list-timers --all --no-pager >/dev/null; echo "list=$?"
systemctl status broken --no-pager >/tmp/status; echo "status=$? $(head -1 /tmp/status)"
"#;
    let mut booted = boot(script).await;
    let result = booted.result().await;
    let text = booted.text();
    assert_eq!(result("start"), "0", "{text}");
    assert_eq!(result("enable"), "0");
    assert!(text.contains("Created symlink /etc/systemd/system/timers.target.wants/beat.timer → /etc/systemd/system/beat.timer."));
    assert_eq!(
        (result("enabled"), result("active")),
        ("enabled".into(), "active".into())
    );
    assert!(
        text.contains(
            "beat.service:12: Unknown key name 'NoNewPrivilege' in section 'Service', ignoring."
        ),
        "{text}"
    );
    assert_eq!(result("broken"), "1");
    assert!(
        text.contains(
            "Job for broken.service failed because the control process exited with error code."
        ),
        "{text}"
    );
    assert_eq!(result("lost"), "1");
    assert_eq!(result("slow"), "1");
    assert!(
        text.contains("Job for slow.service failed because a timeout was exceeded."),
        "{text}"
    );
    assert_eq!(result("nosuch"), "5");
    assert!(text.contains("Failed to start nosuch.service: Unit nosuch.service not found."));
    assert_eq!(
        (result("daemon"), result("killed")),
        ("active".into(), "failed".into())
    );
    let beats: u32 = result("beats").parse().unwrap();
    assert!((3..=8).contains(&beats), "{beats} beats\n{text}");
    assert!(text.contains("ip-172-31-0-10 beat["), "{text}");
    assert!(
        text.contains(": etc is protected") && text.contains(": state is writable"),
        "{text}"
    );
    assert_eq!(
        (result("stopped"), result("list")),
        ("inactive".into(), "0".into())
    );
    assert_eq!(result("status"), "3 × broken.service - Broken");
    // What a service prints goes to the journal; the console shows it only where the script asked for it.
    assert!(!text.contains("] beat["), "{text}");
    booted.host.stop().await;
}

#[tokio::test]
async fn packages_appear_only_when_installed() {
    let script = r#"
apt-get install -y jq 2>&1; echo "stale=$?"
apt-get update >/dev/null; echo "update=$?"
apt-get install awscli </dev/null 2>&1; echo "without_yes=$?"
DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=60 install -y awscli jq curl docker.io ca-certificates >/tmp/apt 2>&1; echo "install=$?"
cat /tmp/apt
echo "aws=$(aws --version)"
echo "where=$(command -v aws)"
aws ssm get-parameter --name /x --region eu-central-1 2>&1; echo "credentials=$?"
apt-get install -y no-such-thing 2>&1; echo "unknown=$?"
apt-get install -y tailscale 2>&1; echo "tailscale=$?"
"#;
    let mut booted = boot(script).await;
    let result = booted.result().await;
    let text = booted.text();
    assert_eq!(result("stale"), "100");
    assert_eq!(result("update"), "0");
    assert_eq!(result("without_yes"), "1", "{text}");
    assert!(text.contains("Do you want to continue? [Y/n] Abort."));
    assert_eq!(result("install"), "0", "{text}");
    assert!(
        text.contains("curl is already the newest version"),
        "{text}"
    );
    assert!(result("aws").starts_with("aws-cli/2.9.19 "));
    assert_eq!(result("where"), "/usr/bin/aws");
    assert_eq!(result("credentials"), "253");
    assert!(text.contains(
        "Unable to locate credentials. You can configure credentials by running \"aws configure\"."
    ));
    assert_eq!(
        (result("unknown"), result("tailscale")),
        ("100".into(), "100".into())
    );
    assert!(text.contains("E: Unable to locate package no-such-thing"));
    booted.host.stop().await;
}

#[tokio::test]
async fn conditions_of_the_host_show_as_they_do_in_reality() {
    let with = |apt| HostConditions {
        apt: Some(apt),
        ..HostConditions::default()
    };
    let script = "apt-get update; echo update=$?; apt-get install -y awscli jq; echo install=$?";
    let cases = [
        (AptFault::MirrorDown, "0", "connection timed out"),
        (
            AptFault::LockHeld,
            "0",
            "E: Unable to acquire the dpkg frontend lock",
        ),
        (
            AptFault::PackageMissing("awscli".into()),
            "0",
            "E: Unable to locate package awscli",
        ),
    ];
    for (fault, update, words) in cases {
        let mut booted = boot_with(script, with(fault)).await;
        let result = booted.result().await;
        assert_eq!(result("update"), update);
        assert_eq!(result("install"), "100");
        assert!(booted.text().contains(words), "{}", booted.text());
        booted.host.stop().await;
    }
    let broken = HostConditions {
        systemd_fails: true,
        ..HostConditions::default()
    };
    let mut booted = boot_with("systemctl daemon-reload; echo reload=$?", broken).await;
    let result = booted.result().await;
    assert_eq!(result("reload"), "1");
    assert!(
        booted
            .text()
            .contains("Failed to reload daemon: Connection timed out")
    );
    booted.host.stop().await;

    let silent = HostConditions {
        user_data_never_runs: true,
        ..HostConditions::default()
    };
    let mut booted = boot_with("echo ran", silent).await;
    let text = booted.until("login: ").await;
    assert!(
        !text.contains("cloud-init") && !text.contains("ran\r\n"),
        "{text}"
    );
    booted.host.stop().await;
}

#[tokio::test]
async fn a_set_up_that_fails_says_why_and_leaves_nothing() {
    let stage = tempfile::tempdir().unwrap();
    let mut impossible = spec(HostConditions::default());
    impossible
        .listeners
        .push(("nowhere", SocketAddr::from(([10, 1, 2, 3], 80))));
    let error = Host::start_from(impossible, stage.path(), &binary())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("could not listen on 10.1.2.3:80"),
        "{error}"
    );
    let missing = Host::start_from(
        spec(HostConditions::default()),
        stage.path(),
        Path::new("/no/m8trx"),
    )
    .await;
    assert!(missing.unwrap_err().to_string().contains("/no/m8trx"));
    // A program that is not m8trx ends at once.
    let wrong = Host::start_from(
        spec(HostConditions::default()),
        stage.path(),
        Path::new("/bin/true"),
    )
    .await;
    assert!(
        wrong
            .unwrap_err()
            .to_string()
            .contains("ended while it was being made")
    );
}

/// The mark of the host below, in the command line of its processes.
const HELD: &str = "86399.5";

/// Not a test of its own: the next one runs it in a process that it kills.
#[tokio::test]
#[ignore = "runs until it is killed"]
async fn hold_a_host() {
    let booted = boot(&format!("setsid sleep {HELD} &\nsleep {HELD}")).await;
    booted.until("never").await;
}

#[test]
fn a_host_ends_with_a_killed_sandbox() {
    let mut sandbox = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "hold_a_host"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while processes_with(HELD).len() < 2 {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(10));
    }
    sandbox.kill().unwrap();
    sandbox.wait().unwrap();
    let start = Instant::now();
    while !processes_with(HELD).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(2));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn this_machine_supports_hosts() {
    check_support_from(&binary()).unwrap();
}

/// All of the above as an ordinary user, which is how operators run it.
#[test]
fn an_ordinary_user_can_run_a_host() {
    if !nix_root() {
        // Every other test has just shown it.
        return;
    }
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let reachable = |from: &Path, name: &str| {
        let to = folder.path().join(name);
        std::fs::copy(from, &to).unwrap();
        std::fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        to
    };
    std::fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let program = reachable(&binary(), "m8trx");
    let tests = reachable(&std::env::current_exe().unwrap(), "tests");
    let output = std::process::Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--no-new-privs",
        ])
        .arg(tests)
        .args([
            "--test-threads=2",
            "--skip",
            "an_ordinary_user_can_run_a_host",
        ])
        .env("M8TRX_TEST_BINARY", program)
        .env("TMPDIR", "/var/tmp")
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("test the_script_is_isolated ... ok"),
        "{text}"
    );
}
