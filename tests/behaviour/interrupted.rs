//! Killed at any point and run again, an onboarding finishes with one host and one key.

use nix::sys::signal::{Signal, kill};

use crate::common::{Ended, RunningSandbox, Started, Surroundings, files_below};

fn signal(run: &Started, signal: Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(run.child.id()).unwrap());
    kill(pid, signal).unwrap();
}

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

/// How the last journal of a command ends.
pub fn journal_end(surroundings: &Surroundings, command: &str) -> String {
    let runs = surroundings.home.path().join(".local/state/m8trx/runs");
    let journals = files_below(&runs);
    let mut of_command: Vec<_> = journals
        .iter()
        .filter(|path| path.to_string_lossy().contains(command))
        .collect();
    of_command.sort();
    let text = std::fs::read_to_string(of_command.last().unwrap()).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    format!("{} {}", last["event"], last["end"])
}

/// Interrupts a command once it says that it waits for something, with `first` and then, at once, with `second`.
fn interrupted(
    surroundings: &Surroundings,
    arguments: &[&str],
    waits: &str,
    first: Signal,
    second: Option<Signal>,
) -> Ended {
    let mut run = surroundings.start(arguments);
    assert!(
        run.read_until(|line| line.starts_with(waits)),
        "{waits}: {:?}",
        run.end()
    );
    signal(&run, first);
    assert!(
        run.read_until(|line| line.starts_with("Stopping: ")),
        "{:?}",
        run.end()
    );
    if let Some(second) = second {
        signal(&run, second);
    }
    run.end()
}

#[test]
fn term_and_hup_stop_a_run_as_ctrl_c_does() {
    let sandbox = RunningSandbox::up_with(&["--fault", "slow-iam"]);
    for (number, (first, second, code)) in [
        (Signal::SIGINT, None, 130),
        (Signal::SIGTERM, None, 143),
        (Signal::SIGTERM, Some(Signal::SIGTERM), 143),
        (Signal::SIGHUP, Some(Signal::SIGHUP), 129),
        (Signal::SIGINT, Some(Signal::SIGTERM), 130),
    ]
    .into_iter()
    .enumerate()
    {
        let customer = format!("cust_s{number}");
        let surroundings = Surroundings::of(&sandbox);
        let ended = interrupted(
            &surroundings,
            &["onboard", &customer, "--yes", "--output", "json"],
            "host: waiting for EC2 to know the instance profile",
            first,
            second,
        );
        ended.assert_code(code);
        assert_eq!(ended.json()["exit_code"], code);
        assert!(
            ended.stderr.contains("What exists by now is kept:"),
            "{ended:?}"
        );
        let (_, kept) = ended.stderr.split_once("is kept: ").unwrap();
        assert!(kept.contains("brain-key, "), "{ended:?}");
        assert_eq!(
            journal_end(&surroundings, "-onboard-"),
            "\"run-finished\" \"interrupted\""
        );
    }
}

#[test]
fn every_run_that_waits_stops_on_term() {
    let sandbox = RunningSandbox::up_with(&["--fault", "no-heartbeat"]);
    let surroundings = Surroundings::of(&sandbox);
    let waits = "first-heartbeat: ";
    interrupted(
        &surroundings,
        &["onboard", "cust_a", "--yes"],
        waits,
        Signal::SIGTERM,
        None,
    )
    .assert_code(143);
    for (arguments, waits, journal) in [
        (
            vec!["wait", "cust_a", "--next", "--timeout", "5m"],
            waits,
            "-wait-",
        ),
        (
            vec!["rotate-brain-key", "cust_a", "--yes"],
            "hosts: ",
            "-rotate-brain-key-",
        ),
        (
            vec!["offboard", "cust_a", "--yes", "--confirm", "cust_a"],
            "host: waiting for ",
            "-offboard-",
        ),
    ] {
        interrupted(&surroundings, &arguments, waits, Signal::SIGTERM, None).assert_code(143);
        assert_eq!(
            journal_end(&surroundings, journal),
            "\"run-finished\" \"interrupted\"",
            "{arguments:?}"
        );
    }
}

#[test]
fn what_nohup_ignores_stays_ignored() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let mut run = surroundings.start_with("nohup", &["onboard", "cust_a", "--yes"]);
    assert!(run.read_until(|line| line.starts_with("host: created: ")));
    signal(&run, Signal::SIGHUP);
    run.end().assert_code(0);
}

#[test]
fn before_anything_is_changed_a_signal_ends_the_command() {
    // Takes the connection and never answers.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    let sandbox = RunningSandbox::up();
    let mut surroundings = Surroundings::of(&sandbox);
    surroundings.set("AWS_ENDPOINT_URL", url);
    let run = surroundings.start(&["onboard", "cust_a", "--yes"]);
    let _asked = nobody.accept().unwrap();
    signal(&run, Signal::SIGTERM);
    let ended = run.end();
    ended.assert_code(143);
    assert!(ended.stderr.contains("nothing was changed"), "{ended:?}");
}
