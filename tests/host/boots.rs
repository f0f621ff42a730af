//! A boot as it is seen from outside and by the script: console, systemd, packages, faults.

use m8trx_sandbox::host::{AptFault, HostConditions};

use super::{boot, boot_with};

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
        (AptFault::MirrorDown, "0", "503  Service Unavailable"),
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
