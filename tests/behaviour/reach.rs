//! `m8trx ssh` and `m8trx logs`: the way to a host, by the programs that this machine has.

use std::os::unix::fs::PermissionsExt as _;

use crate::common::{RunningSandbox, Surroundings};

/// A machine with these programs beside the usual ones; each writes what it was called with.
fn with_programs(surroundings: &mut Surroundings, programs: &[(&str, &str)]) {
    let bin = surroundings.home.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for (name, script) in programs {
        let path = bin.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    surroundings.set(
        "PATH",
        format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display()),
    );
}

fn onboarded() -> (RunningSandbox, Surroundings, String) {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let onboarded = surroundings.m8trx(&["onboard", "cust_acme", "--yes", "--output", "json"]);
    let host = onboarded.assert_code(0).json()["instance_id"]
        .as_str()
        .unwrap()
        .to_owned();
    (sandbox, surroundings, host)
}

/// A `tailscale` that sees the host, online or not.
fn tailscale(host: &str, online: bool) -> String {
    format!(
        r#"if [ "$1" = status ]; then
  echo '{{"Peer":{{"nodekey:1":{{"HostName":"x","DNSName":"other-i-1.tail.ts.net.","Online":true}},"nodekey:2":{{"HostName":"acme-{host}","DNSName":"acme-{host}.tail.ts.net.","Online":{online}}}}}}}'
else
  printf 'tailscale'; printf ' [%s]' "$@"; echo; exit 17
fi"#
    )
}

#[test]
fn a_shell_by_tailscale_where_the_host_is_seen() {
    let (_sandbox, mut surroundings, host) = onboarded();
    with_programs(&mut surroundings, &[("tailscale", &tailscale(&host, true))]);
    let dry = surroundings.m8trx(&["ssh", "cust_acme", "--dry-run"]);
    assert_eq!(
        dry.assert_code(0).stdout,
        format!("tailscale ssh root@acme-{host}\n")
    );
    let shell = surroundings.m8trx(&["ssh", &host, "--", "ls", "-l", "/var/log"]);
    // The shell's own exit code.
    shell.assert_code(17);
    assert_eq!(
        shell.stdout,
        format!("tailscale [ssh] [root@acme-{host}] [ls] [-l] [/var/log]\n")
    );
    assert!(
        shell
            .stderr
            .contains(&format!("Tailscale SSH to acme-{host}, as root")),
        "{shell:?}"
    );
    let json = surroundings
        .m8trx(&["ssh", "cust_acme", "--dry-run", "--json"])
        .json();
    assert_eq!(
        (&json["schema"], &json["via"]),
        (&"m8trx.ssh/1".into(), &"tailscale".into())
    );
}

#[test]
fn without_a_way_it_says_why_and_shows_the_console_instead() {
    let (_sandbox, mut surroundings, host) = onboarded();
    let refused = surroundings.m8trx(&["ssh", "cust_acme"]);
    refused.assert_code(3);
    let own = refused.stderr.replace(&host, "<host>");
    let (_, own) = own.split_once("error:").unwrap();
    insta::assert_snapshot!("no_way", format!("error:{own}"));
    with_programs(
        &mut surroundings,
        &[("tailscale", &tailscale(&host, false))],
    );
    let offline = surroundings.m8trx(&["ssh", "cust_acme"]);
    assert!(
        offline
            .assert_code(3)
            .stderr
            .contains("in the tailnet, and offline"),
        "{offline:?}"
    );

    let logs = surroundings.m8trx(&["logs", "cust_acme"]);
    logs.assert_code(0);
    assert!(logs.stderr.contains("Its console instead"), "{logs:?}");
    assert!(logs.stdout.contains("m8trx-bootstrap: "), "{logs:?}");
    let few = surroundings.m8trx(&["logs", &host, "--source", "console", "-n", "3", "--json"]);
    let lines: Vec<serde_json::Value> = few
        .assert_code(0)
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        (&lines[0]["schema"], &lines[0]["via"]),
        (&"m8trx.logs/1".into(), &"console".into())
    );
}

#[test]
fn logs_are_read_on_the_host_where_it_is_reached() {
    let (_sandbox, mut surroundings, host) = onboarded();
    let script = tailscale(&host, true).replace("exit 17", r"printf 'a \033[2J line\n'");
    with_programs(&mut surroundings, &[("tailscale", &script)]);
    let logs = surroundings.m8trx(&["logs", "cust_acme", "-n", "50"]);
    let expected = format!(
        "tailscale [ssh] [root@acme-{host}] [sudo sh -c 'tail -n 50 /var/log/cloud-init-output.log /var/log/m8trx-bootstrap.log; journalctl -u m8trx-brain-heartbeat --no-pager -n 50']\na \\u{{1b}}[2J line\n"
    );
    assert_eq!(logs.assert_code(0).stdout, expected);
    for (source, line) in [
        ("bootstrap", "tail -n 200 -F /var/log/m8trx-bootstrap.log"),
        (
            "cloud-init",
            "tail -n 200 -F /var/log/cloud-init-output.log",
        ),
        (
            "heartbeat",
            "journalctl -u m8trx-brain-heartbeat --no-pager -n 200 -f",
        ),
    ] {
        let logs = surroundings.m8trx(&["logs", "cust_acme", "--follow", "--source", source]);
        assert!(logs.assert_code(0).stdout.contains(line), "{logs:?}");
    }
}

#[test]
fn a_host_that_has_ended_is_not_reached_and_its_console_is_shown() {
    let (_sandbox, surroundings, host) = onboarded();
    surroundings
        .m8trx(&["offboard", "cust_acme", "--yes", "--confirm", "cust_acme"])
        .assert_code(0);
    let refused = surroundings.m8trx(&["ssh", &host]);
    assert!(
        refused
            .assert_code(3)
            .stderr
            .contains("there is nothing to reach"),
        "{refused:?}"
    );
    surroundings
        .m8trx(&["logs", &host, "--source", "console"])
        .assert_code(0);
    let unknown = surroundings.m8trx(&["ssh", "cust_nobody"]);
    assert!(
        unknown.assert_code(3).stderr.contains("has no host"),
        "{unknown:?}"
    );
}
