//! What a host may not reach, and that it ends.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use m8trx_sandbox::host::{Host, HostConditions, check_support_from};

use super::{binary, boot, processes_with, spec};

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

/// Set in the process that is killed: this test again, holding a host.
const HOLD: &str = "M8TRX_TEST_HOLD_A_HOST";

async fn hold_a_host() {
    let booted = boot(&format!("setsid sleep {HELD} &\nsleep {HELD}")).await;
    booted.until("never").await;
}

#[test]
fn a_host_ends_with_a_killed_sandbox() {
    if std::env::var_os(HOLD).is_some() {
        tokio::runtime::Runtime::new()
            .unwrap()
            .block_on(hold_a_host());
        return;
    }
    let mut sandbox = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "isolation::a_host_ends_with_a_killed_sandbox"])
        .env(HOLD, "1")
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
#[ignore = "needs root: an ordinary user's test process has shown it in every other test"]
fn an_ordinary_user_can_run_a_host() {
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
        text.contains("test isolation::the_script_is_isolated ... ok"),
        "{text}"
    );
}
