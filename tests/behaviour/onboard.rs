//! From nothing to the first heartbeat, and again.

use crate::common::{Ended, RunningSandbox, Surroundings, binary_for_anyone, ended};

fn assert_connected(ended: &Ended, customer: &str) {
    ended.assert_code(0);
    let document = ended.json();
    assert_eq!(document["schema"], "m8trx.onboard/1");
    assert_eq!(document["customer"], customer);
    assert!(document["instance_id"].as_str().unwrap().starts_with("i-"));
    assert!(
        document["heartbeat"]["hostname"]
            .as_str()
            .unwrap()
            .starts_with("ip-")
    );
    document["heartbeat"]["ts"]
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>()
        .unwrap();
    let names: Vec<&str> = document["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["name"].as_str().unwrap())
        .collect();
    for name in [
        "brain-url",
        "brain-key",
        "tailscale-auth-key",
        "iam-role",
        "instance-profile",
        "image",
        "security-group",
        "host",
        "first-heartbeat",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[test]
fn an_embedded_sandbox_needs_nothing_but_the_binary() {
    let ended = Surroundings::new().m8trx(&[
        "onboard",
        "cust_acme",
        "--sandbox",
        "--yes",
        "--output",
        "json",
    ]);
    assert_connected(&ended, "cust_acme");
}

/// As root, the whole is also done as an ordinary user.
#[test]
#[ignore = "needs root: an ordinary user's test process has shown it above"]
fn an_ordinary_user_can_do_it() {
    let surroundings = Surroundings::new();
    let binary = binary_for_anyone(&surroundings);
    let ended = ended(
        surroundings
            .command("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--no-new-privs",
            ])
            .arg(&binary)
            .args([
                "onboard",
                "cust_acme",
                "--sandbox",
                "--yes",
                "--output",
                "json",
            ]),
    );
    assert_connected(&ended, "cust_acme");
}

#[test]
fn a_pipe_gets_plain_lines_and_one_result() {
    let ended = Surroundings::new().m8trx(&["onboard", "cust_b4_smoke", "--sandbox", "--yes"]);
    ended.assert_code(0);
    assert!(!ended.stderr.contains('\u{1b}'), "{ended:?}");
    // The bootstrap may have ended by then, or still install what other software needs.
    let rest: Vec<&str> = ended.stdout.lines().skip(1).collect();
    assert!(
        matches!(rest[..], [])
            || matches!(rest[..], [line] if line.starts_with("Still under way on the host: ")),
        "{ended:?}"
    );
    assert!(
        ended.stdout.starts_with("cust_b4_smoke is connected: i-"),
        "{ended:?}"
    );
    for line in [
        "brain-key: created: ",
        "host: created: i-",
        "first-heartbeat: arrived: from ip-",
    ] {
        assert!(
            ended.stderr.lines().any(|l| l.starts_with(line)),
            "no {line:?} in {ended:?}"
        );
    }
}

#[test]
fn a_second_run_changes_nothing_and_a_dry_run_never_does() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let dry = surroundings.m8trx(&["onboard", "cust_acme", "--dry-run", "--output", "json"]);
    dry.assert_code(0);
    let plan = dry.json();
    assert_eq!(plan["schema"], "m8trx.plan/1");
    assert_eq!(plan["changes"], 9);
    assert_eq!(sandbox.changes(), Vec::<String>::new());

    let first = surroundings.m8trx(&["onboard", "cust_acme", "--yes", "--output", "json"]);
    assert_connected(&first, "cust_acme");
    let changes = sandbox.changes();
    let second = surroundings.m8trx(&["onboard", "cust_acme", "--yes", "--output", "json"]);
    assert_connected(&second, "cust_acme");
    assert_eq!(sandbox.changes(), changes);
    assert_eq!(first.json()["instance_id"], second.json()["instance_id"]);
    assert!(
        second.json()["steps"]
            .as_array()
            .unwrap()
            .iter()
            .all(|step| step["outcome"] == "unchanged")
    );

    let dry = surroundings.m8trx(&["onboard", "cust_acme", "--dry-run"]);
    assert!(
        dry.assert_code(0).stdout.ends_with("Nothing to change.\n"),
        "{dry:?}"
    );
    assert_eq!(sandbox.changes(), changes);
}

#[test]
fn two_customers_share_the_url_and_nothing_else() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    for customer in ["cust_a", "cust_ab"] {
        assert_connected(
            &surroundings.m8trx(&["onboard", customer, "--yes", "--output", "json"]),
            customer,
        );
    }
    assert_eq!(sandbox.count("RunInstances"), 2);
    assert_eq!(sandbox.count("CreateRole"), 2);
    assert_eq!(sandbox.count("PutParameter"), 5);
}

#[test]
fn a_stored_brain_url_is_the_whole_fleets() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    assert_connected(
        &surroundings.m8trx(&["onboard", "cust_a", "--yes", "--output", "json"]),
        "cust_a",
    );
    let ended = surroundings.m8trx(&[
        "onboard",
        "cust_b",
        "--yes",
        "--brain-url",
        "http://127.0.0.1:9",
    ]);
    ended.assert_code(3);
    assert!(ended.stderr.contains("/m8trx/brain-url holds"), "{ended:?}");
}
