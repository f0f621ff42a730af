//! Offboarding: everything of one customer goes, in an order in which no host lives with a revoked key, and nothing of
//! anybody else.

use serde_json::{Value, json};

use crate::common::{RunningSandbox, Surroundings};
use crate::terminal::Session;

const OFFBOARD: [&str; 7] = [
    "offboard",
    "cust_a",
    "--yes",
    "--confirm",
    "cust_a",
    "--output",
    "json",
];

fn onboard(surroundings: &Surroundings, customer: &str) {
    surroundings
        .m8trx(&["onboard", customer, "--yes"])
        .assert_code(0);
}

/// What there is of a customer, by a dry run.
fn belongings(surroundings: &Surroundings, customer: &str) -> Value {
    let seen = surroundings.m8trx(&["offboard", customer, "--dry-run", "--output", "json"]);
    let seen = seen.assert_code(0).json();
    assert_eq!(seen["dry_run"], true);
    seen["belongings"].clone()
}

fn kinds(items: &Value) -> Vec<&str> {
    items
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["kind"].as_str().unwrap())
        .collect()
}

#[test]
fn everything_goes_and_neighbours_with_the_same_beginning_stay() {
    let sandbox = RunningSandbox::up_with(&["--heartbeat-every", "2200ms"]);
    let surroundings = Surroundings::of(&sandbox);
    for customer in ["cust_a", "cust_ab", "cust_a_b"] {
        onboard(&surroundings, customer);
    }
    let neighbours =
        ["cust_ab", "cust_a_b"].map(|customer| (customer, belongings(&surroundings, customer)));
    let before = sandbox.changes();
    assert_eq!(
        kinds(&belongings(&surroundings, "cust_a")),
        [
            "host",
            "security-group",
            "parameter",
            "parameter",
            "instance-profile",
            "iam-role",
            "device",
            "auth-key",
            "policy-entry",
            "brain-key"
        ]
    );
    assert_eq!(sandbox.changes(), before);

    let done = surroundings.m8trx(&OFFBOARD).assert_code(0).json();
    assert_eq!(done["schema"], "m8trx.offboard/1");
    assert_eq!(
        [&done["left"], &done["by_hand"], &done["errors"]],
        [&json!([]), &json!([]), &json!([])]
    );
    let removed = done["removed"].to_string();
    for what in [
        "host i-",
        "security group",
        "brain key key_",
        "auth key k",
        "instance profile",
        "IAM role m8trx-cust_a\"",
        "tag:m8trx-cust-a in the policy file",
    ] {
        assert!(removed.contains(what), "no {what} in {removed}");
    }
    assert_eq!(belongings(&surroundings, "cust_a"), json!([]));
    assert_eq!(sandbox.brain_keys("cust_a"), []);
    for (customer, before) in neighbours {
        assert_eq!(belongings(&surroundings, customer), before);
        assert_eq!(sandbox.brain_keys(customer).len(), 1);
    }
    // Not one beat was refused: the host was gone before its key was.
    assert_eq!(
        sandbox.brain("GET", "/_sandbox/refused-events", None, None)["count"],
        0
    );
    let changes = sandbox.changes()[before.len()..].to_vec();
    assert_eq!(
        changes,
        [
            "TerminateInstances",
            "DeleteSecurityGroup",
            "DeleteParameter",
            "DeleteParameter",
            "RemoveRoleFromInstanceProfile",
            "DeleteInstanceProfile",
            "DeleteRolePolicy",
            "DeleteRole"
        ]
    );
    // Once more there is nothing to do, and nothing to confirm.
    let again = surroundings.m8trx(&["offboard", "cust_a", "--yes", "--confirm", "cust_a"]);
    assert_eq!(
        again.assert_code(0).stdout,
        "there is nothing of cust_a in account 123456789012, us-east-1\n"
    );
}

#[test]
fn it_removes_nothing_without_the_id() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    onboard(&surroundings, "cust_a");
    let before = sandbox.changes();
    for (arguments, words) in [
        (&["offboard", "cust_a"][..], "--yes --confirm cust_a"),
        (&["offboard", "cust_a", "--yes"], "--yes --confirm cust_a"),
        (
            &["offboard", "cust_a", "--confirm", "cust_a"],
            "--yes --confirm cust_a",
        ),
        (
            &["offboard", "cust_a", "--yes", "--confirm", "cust_ab"],
            "--confirm says cust_ab",
        ),
        (
            &["offboard", "cust_a", "--yes", "--confirm", "yes"],
            "does not begin with `cust_`",
        ),
    ] {
        let refused = surroundings.m8trx(arguments);
        assert!(refused.assert_code(2).stderr.contains(words), "{refused:?}");
    }
    assert_eq!(sandbox.changes(), before);
}

#[test]
fn killed_at_each_stage_it_is_finished_the_next_time() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    for stage in [
        "host: waiting for ",
        "host: removed: ",
        "security-group: removed: ",
        "brain-key: revoking ",
        "brain-key: removed: ",
        "tailscale-auth-key: removed: ",
        "instance-profile: removed: ",
        "iam-role: removed: ",
    ] {
        onboard(&surroundings, "cust_a");
        let mut run = surroundings.start(&OFFBOARD);
        assert!(
            run.read_until(|line| line.starts_with(stage)),
            "{stage}: {:?}",
            run.end()
        );
        run.child.kill().unwrap();
        run.end();
        surroundings.m8trx(&OFFBOARD).assert_code(0);
        assert_eq!(belongings(&surroundings, "cust_a"), json!([]), "{stage}");
        assert_eq!(sandbox.brain_keys("cust_a"), [], "{stage}");
    }
    // A customer that was never whole.
    for stage in [
        "brain-key: created: ",
        "iam-role: created: ",
        "host: created: ",
    ] {
        let mut run = surroundings.start(&["onboard", "cust_a", "--yes"]);
        assert!(
            run.read_until(|line| line.starts_with(stage)),
            "{stage}: {:?}",
            run.end()
        );
        run.child.kill().unwrap();
        run.end();
        surroundings.m8trx(&OFFBOARD).assert_code(0);
        assert_eq!(belongings(&surroundings, "cust_a"), json!([]), "{stage}");
    }
}

#[test]
fn a_brain_key_that_works_is_not_forgotten() {
    let sandbox = RunningSandbox::up();
    let with_token = Surroundings::of(&sandbox);
    onboard(&with_token, "cust_a");
    let mut surroundings = Surroundings::of(&sandbox);
    surroundings
        .variables
        .remove("M8TRX_BRAIN_ADMIN_TOKEN_FILE");
    let partly = surroundings.m8trx(&OFFBOARD);
    partly.assert_code(3);
    let document = partly.json();
    assert_eq!(document["schema"], "m8trx.offboard/1");
    assert_eq!(kinds(&document["left"]), ["parameter", "brain-key"]);
    assert_eq!(document["errors"][0]["step"], "brain-key");
    assert!(
        partly
            .stderr
            .contains("still works, and there is no admin token"),
        "{partly:?}"
    );
    assert!(partly.stderr.contains("--leave-brain-key"), "{partly:?}");
    // Once somebody revoked it, the next run sees that and finishes.
    let keys = sandbox.brain_keys("cust_a");
    sandbox.brain("DELETE", &format!("/v1/keys/{}", keys[0].0), None, None);
    let done = surroundings.m8trx(&OFFBOARD).assert_code(0).json();
    assert_eq!(
        done["removed"],
        json!(["parameter /m8trx/cust_a/brain-key"])
    );

    onboard(&with_token, "cust_a");
    let left = surroundings.m8trx(&[&OFFBOARD[..], &["--leave-brain-key"]].concat());
    let by_hand = left.assert_code(0).json()["by_hand"][0].clone();
    assert_eq!(
        by_hand,
        "the brain key of cust_a still works: revoke it where the brain runs"
    );
}

#[test]
fn without_tailscales_api_it_says_which_key_to_revoke() {
    let sandbox = RunningSandbox::up();
    let mut surroundings = Surroundings::of(&sandbox);
    onboard(&surroundings, "cust_a");
    surroundings
        .set("M8TRX_TAILSCALE_CLIENT_ID", "")
        .set("M8TRX_TAILSCALE_CLIENT_SECRET_FILE", "");
    let items = belongings(&surroundings, "cust_a");
    let key = items
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["kind"] == "auth-key")
        .unwrap();
    let done = surroundings.m8trx(&OFFBOARD).assert_code(0).json();
    let by_hand = done["by_hand"][0].as_str().unwrap();
    assert!(
        by_hand.contains(key["id"].as_str().unwrap()) && by_hand.contains("login.tailscale.com"),
        "{by_hand}"
    );
    assert_eq!(done["left"], json!([]));
}

#[test]
fn the_keys_of_an_unfinished_rotation_go_too() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    onboard(&surroundings, "cust_a");
    surroundings
        .m8trx(&["rotate-brain-key", "cust_a", "--yes", "--timeout", "1s"])
        .assert_code(6);
    assert_eq!(sandbox.brain_keys("cust_a").len(), 2);
    surroundings.m8trx(&OFFBOARD).assert_code(0);
    assert_eq!(sandbox.brain_keys("cust_a"), []);
}

#[test]
fn ctrl_c_ends_after_the_step_that_is_under_way() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    onboard(&surroundings, "cust_a");
    let mut run = surroundings.start(&OFFBOARD);
    assert!(run.read_until(|line| line.starts_with("host: waiting for ")));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(run.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let ended = run.end();
    ended.assert_code(130);
    assert!(ended.stderr.contains("m8trx offboard cust_a"), "{ended:?}");
    let left = ended.json()["left"].clone();
    assert!(
        kinds(&left).contains(&"brain-key") && kinds(&left).contains(&"iam-role"),
        "{left}"
    );
    surroundings.m8trx(&OFFBOARD).assert_code(0);
    assert_eq!(belongings(&surroundings, "cust_a"), json!([]));
}

#[test]
fn at_a_terminal_the_id_is_typed() {
    let sandbox = RunningSandbox::up();
    onboard(&Surroundings::of(&sandbox), "cust_a");
    let before = sandbox.changes();
    let mut session = Session::start(Surroundings::of(&sandbox), &["offboard", "cust_a"]);
    session.expect("  IAM role m8trx-cust_a");
    session.expect("Type cust_a to remove all of it");
    session.type_in("yes\r");
    session.expect("that is not cust_a; Ctrl-C ends without any change");
    assert_eq!(sandbox.changes(), before);
    // What was typed is still there to be corrected.
    session.type_in("\u{8}\u{8}\u{8}cust_a\r");
    session.expect("cust_a is offboarded");
    assert_eq!(session.end().0, 0);
    assert_eq!(belongings(&Surroundings::of(&sandbox), "cust_a"), json!([]));
}
