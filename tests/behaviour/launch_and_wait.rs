//! A host alone: launched, started again, and waited for.

use serde_json::json;

use crate::cloud::Cloud;
use crate::common::{Ended, RunningSandbox, Surroundings, beat};

fn run(surroundings: &Surroundings, arguments: &[&str]) -> Ended {
    let mut all = arguments.to_vec();
    all.extend(["--output", "json"]);
    surroundings.m8trx(&all)
}

#[test]
fn step_by_step_a_customer_is_connected() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let launch = || run(&surroundings, &["launch", "cust_a", "--yes"]);
    // Each command says what comes before it.
    let no_url = launch();
    assert!(
        no_url.assert_code(3).stderr.contains("m8trx brain-url set"),
        "{no_url:?}"
    );
    let url = &sandbox.environment["M8TRX_BRAIN_URL"];
    run(&surroundings, &["brain-url", "set", url, "--yes"]).assert_code(0);
    let refused = launch();
    let document = refused.assert_code(3).json();
    assert_eq!(
        document["evidence"],
        json!([
            "brain-key: not there",
            "iam-role: not there",
            "tailnet-policy: not there",
            "tailscale-auth-key: not there",
            "instance-profile: not there"
        ])
    );
    assert_eq!(sandbox.changes(), ["PutParameter"]);
    let hint = document["hint"].as_str().unwrap();
    for command in [
        "mint-key cust_a --store",
        "tailnet apply cust_a",
        "params put cust_a/tailscale-auth-key",
        "iam apply cust_a",
    ] {
        assert!(hint.contains(&format!("m8trx {command}")), "{hint}");
    }
    run(&surroundings, &["mint-key", "cust_a", "--store", "--yes"]).assert_code(0);
    run(&surroundings, &["tailnet", "apply", "cust_a", "--yes"]).assert_code(0);
    let key_file = sandbox.auth_key_file(&surroundings, "cust_a");
    run(
        &surroundings,
        &[
            "params",
            "put",
            "cust_a/tailscale-auth-key",
            "--file",
            key_file.to_str().unwrap(),
            "--yes",
        ],
    )
    .assert_code(0);
    run(&surroundings, &["iam", "apply", "cust_a", "--yes"]).assert_code(0);

    let dry = run(&surroundings, &["launch", "cust_a", "--dry-run"]);
    assert_eq!(dry.assert_code(0).json()["changes"], 2);
    assert_eq!(sandbox.count("RunInstances"), 0);
    let launched = launch().assert_code(0).json();
    assert_eq!(
        (&launched["schema"], &launched["outcome"]),
        (&json!("m8trx.launch/1"), &json!("created"))
    );
    let waited = run(&surroundings, &["wait", "cust_a"])
        .assert_code(0)
        .json();
    assert_eq!(waited["schema"], "m8trx.wait/1");
    assert_eq!(waited["instance_id"], launched["instance_id"]);
    assert!(
        waited["heartbeat"]["hostname"]
            .as_str()
            .unwrap()
            .starts_with("ip-")
    );
    // What came before is there at once, and onboarding finds nothing left to do.
    let there = run(&surroundings, &["wait", "cust_a"])
        .assert_code(0)
        .json();
    assert_eq!(there["was_there"], true);
    // It may have sent one more, when its bootstrap was complete.
    let (first, now) = (&waited["heartbeat"], &there["heartbeat"]);
    assert_eq!(now["hostname"], first["hostname"]);
    assert!(now["ts"].as_str() >= first["ts"].as_str());
    let changes = sandbox.changes();
    run(&surroundings, &["onboard", "cust_a", "--yes"]).assert_code(0);
    let again = launch().assert_code(0).json();
    assert_eq!(again["outcome"], "unchanged");
    assert_eq!(sandbox.changes(), changes);
}

#[test]
fn the_next_heartbeat_is_a_later_one() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    surroundings
        .m8trx(&["onboard", "cust_a", "--yes"])
        .assert_code(0);
    let first = run(&surroundings, &["wait", "cust_a"])
        .assert_code(0)
        .json();
    let in_time = run(
        &surroundings,
        &["wait", "cust_a", "--next", "--timeout", "1s"],
    );
    assert_eq!(in_time.assert_code(6).json()["exit_code"], 6);

    let mut waiting = surroundings.start(&[
        "wait",
        "cust_a",
        "--next",
        "--timeout",
        "2m",
        "--output",
        "json",
    ]);
    let ts = first["heartbeat"]["ts"].as_str().unwrap().to_owned();
    assert!(waiting.read_until(|line| line.contains(&format!("later than {ts}"))));
    beat(
        &surroundings,
        &sandbox.environment["M8TRX_BRAIN_URL"],
        "cust_a",
        "ip-172-31-0-99",
    );
    let next = waiting.end();
    let next = next.assert_code(0).json();
    assert_eq!(next["heartbeat"]["hostname"], "ip-172-31-0-99");
    assert_eq!(next["was_there"], false);

    let mut waiting = surroundings.start(&["wait", "cust_a", "--next"]);
    assert!(waiting.read_until(|line| line.starts_with("first-heartbeat: ")));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(waiting.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let interrupted = waiting.end();
    assert!(
        interrupted.assert_code(130).stderr.contains("interrupted"),
        "{interrupted:?}"
    );
}

/// Starting is told and tried; the sandbox's hosts boot once, so that moto is where it also succeeds.
#[test]
fn a_stopped_host_is_to_be_started() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    surroundings
        .m8trx(&["onboard", "cust_a", "--yes"])
        .assert_code(0);
    Cloud::of(&surroundings.variables).stop_host("cust_a");
    let stopped = run(&surroundings, &["wait", "cust_a"]);
    assert!(
        stopped
            .assert_code(3)
            .stderr
            .contains("start it: m8trx launch cust_a"),
        "{stopped:?}"
    );
    let plan = surroundings.m8trx(&["launch", "cust_a", "--dry-run"]);
    assert!(
        plan.assert_code(0).stdout.contains("(stopped): start it"),
        "{plan:?}"
    );
    let tried = run(&surroundings, &["launch", "cust_a", "--yes"]);
    assert!(
        tried.assert_code(4).stderr.contains("ec2:StartInstances"),
        "{tried:?}"
    );
    assert_eq!(sandbox.count("RunInstances"), 1);
}

#[test]
fn what_cannot_be_waited_for_is_told() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    surroundings
        .m8trx(&["onboard", "cust_a", "--yes"])
        .assert_code(0);
    surroundings
        .m8trx(&["params", "delete", "cust_a/brain-key", "--yes"])
        .assert_code(0);
    let no_key = run(&surroundings, &["wait", "cust_a"]);
    assert!(
        no_key
            .assert_code(3)
            .stderr
            .contains("m8trx mint-key cust_a --store"),
        "{no_key:?}"
    );
    Cloud::of(&surroundings.variables).terminate_host("cust_a");
    let no_host = run(&surroundings, &["wait", "cust_a"]);
    assert!(
        no_host.assert_code(3).stderr.contains("no live host"),
        "{no_host:?}"
    );
    assert!(
        no_host.stderr.contains("m8trx launch cust_a"),
        "{no_host:?}"
    );
}
