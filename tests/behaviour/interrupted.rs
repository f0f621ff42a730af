//! Killed at any point and run again, an onboarding finishes with one host and one key.

use crate::common::{RunningSandbox, Surroundings};

#[test]
fn killed_after_each_step_it_finishes_the_next_time() {
    let sandbox = RunningSandbox::up();
    for (number, step) in [
        "brain-url",
        "brain-key",
        "tailscale-auth-key",
        "iam-role",
        "instance-profile",
        "security-group",
        "host",
    ]
    .iter()
    .enumerate()
    {
        let customer = format!("cust_k{number}");
        let surroundings = Surroundings::of(&sandbox);
        let before = sandbox.count("RunInstances");
        let mut first = surroundings.start(&["onboard", &customer, "--yes"]);
        let reached = first.read_until(|line| {
            line.starts_with(&format!("{step}: created: "))
                || line.starts_with(&format!("{step}: unchanged: "))
        });
        assert!(reached, "{step}: {:?}", first.end());
        first.child.kill().unwrap();
        first.end();

        let second = surroundings.m8trx(&["onboard", &customer, "--yes", "--output", "json"]);
        second.assert_code(0);
        let third = surroundings.m8trx(&["onboard", &customer, "--yes", "--output", "json"]);
        assert_eq!(
            third.assert_code(0).json()["instance_id"],
            second.json()["instance_id"]
        );
        // The second `RunInstances` of one token is answered with the first one's host.
        assert!(
            third.stderr.contains("brain-key: unchanged: version 1,"),
            "{third:?}"
        );
        assert!(sandbox.count("RunInstances") - before <= 2);
        let hosts: Vec<_> = surroundings
            .m8trx(&["onboard", &customer, "--dry-run"])
            .stdout
            .lines()
            .filter(|line| line.contains(" host "))
            .map(str::to_owned)
            .collect();
        assert!(
            hosts.len() == 1 && hosts[0].contains("running"),
            "{hosts:?}"
        );
    }
}

#[test]
fn ctrl_c_says_what_exists_and_how_to_go_on() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let mut run = surroundings.start(&["onboard", "cust_acme", "--yes"]);
    let launched = std::cell::RefCell::new(String::new());
    assert!(run.read_until(|line| {
        let id = line
            .strip_prefix("host: created: ")
            .and_then(|rest| rest.split(' ').next());
        launched.replace(id.unwrap_or_default().to_owned());
        id.is_some()
    }));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(run.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let ended = run.end();
    ended.assert_code(130);
    assert!(
        ended.stderr.contains("What exists by now is kept:"),
        "{ended:?}"
    );
    assert!(
        ended.stderr.contains("m8trx onboard cust_acme"),
        "{ended:?}"
    );
    let again = surroundings.m8trx(&["onboard", "cust_acme", "--yes", "--output", "json"]);
    again.assert_code(0);
    // EC2 may not show the host yet: asked for it again with the same token, it answers with the same host.
    assert_eq!(again.json()["instance_id"], launched.into_inner());
}
