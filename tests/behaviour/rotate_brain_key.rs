//! Rotating a brain key: the host takes the new one before the old one goes, and whatever happens a key that works is
//! stored.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{RunningSandbox, Surroundings};

const CUSTOMER: &str = "cust_acme";
const ROTATE: [&str; 5] = ["rotate-brain-key", CUSTOMER, "--yes", "--output", "json"];

/// A customer whose host beats every few seconds, or as rarely as in reality.
fn onboarded(beating: bool) -> (RunningSandbox, Surroundings, String) {
    let sandbox = if beating {
        RunningSandbox::up_with(&["--heartbeat-every", "2500ms"])
    } else {
        RunningSandbox::up()
    };
    let surroundings = Surroundings::of(&sandbox);
    let onboarded = surroundings.m8trx(&["onboard", CUSTOMER, "--yes", "--output", "json"]);
    let host = onboarded.assert_code(0).json()["instance_id"]
        .as_str()
        .unwrap()
        .to_owned();
    (sandbox, surroundings, host)
}

fn refused_events(sandbox: &RunningSandbox) -> u64 {
    sandbox.brain("GET", "/_sandbox/refused-events", None, None)["count"]
        .as_u64()
        .unwrap()
}

/// Waits for `count` more heartbeats.
fn more_heartbeats(sandbox: &RunningSandbox, reader: &str, count: usize) -> Vec<Value> {
    let before = sandbox.heartbeats(reader).len();
    let began = Instant::now();
    loop {
        let beats = sandbox.heartbeats(reader);
        if beats.len() >= before + count {
            return beats;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{beats:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The one key that onboarding and rotations left.
fn only_key(sandbox: &RunningSandbox) -> (String, String) {
    let keys = sandbox.brain_keys(CUSTOMER);
    let ours: Vec<_> = keys
        .into_iter()
        .filter(|(_, label)| label != "a test")
        .collect();
    assert_eq!(ours.len(), 1, "{ours:?}");
    ours.into_iter().next().unwrap()
}

#[test]
fn a_host_that_beats_loses_no_beat() {
    let (sandbox, surroundings, host) = onboarded(true);
    let (old, label) = only_key(&sandbox);
    assert_eq!(label, "m8trx onboard cust_acme");
    let (reader, _) = sandbox.mint(CUSTOMER);
    let beats = more_heartbeats(&sandbox, &reader, 2);
    let old_mark = beats[0]["payload"]["key"].as_str().unwrap().to_owned();

    let rotated = surroundings.m8trx(&ROTATE).assert_code(0).json();
    let (new, label) = only_key(&sandbox);
    assert!(label.starts_with("m8trx rotate cust_acme 20"), "{label}");
    assert_eq!(rotated["schema"], "m8trx.rotate-brain-key/1");
    assert_eq!(rotated["version_before"], 1);
    assert_eq!(rotated["version_after"], 2);
    assert_eq!(rotated["old_key_id"], old.as_str());
    assert_eq!(rotated["new_key_id"], new.as_str());
    assert_eq!(rotated["old_key_revoked"], true);
    assert_eq!(rotated["hosts"][0]["instance_id"], host.as_str());

    let beats = more_heartbeats(&sandbox, &reader, 2);
    let marks: Vec<&str> = beats
        .iter()
        .map(|beat| beat["payload"]["key"].as_str().unwrap())
        .collect();
    let first_new = marks.iter().rposition(|mark| *mark != old_mark).unwrap();
    assert!(
        marks[..=first_new].iter().all(|mark| *mark != old_mark),
        "{marks:?}"
    );
    assert!(
        marks[first_new + 1..].iter().all(|mark| *mark == old_mark),
        "{marks:?}"
    );
    assert_eq!(refused_events(&sandbox), 0);
    // Everybody else agrees with what is stored.
    let again = surroundings.m8trx(&["onboard", CUSTOMER, "--yes"]);
    assert!(
        again
            .assert_code(0)
            .stderr
            .contains("brain-key: unchanged: version 2, accepted by the brain"),
        "{again:?}"
    );
}

#[test]
fn a_key_that_others_know_is_revoked_at_once() {
    let (sandbox, surroundings, _) = onboarded(true);
    let (old, _) = only_key(&sandbox);
    let mut run = surroundings.start(&["rotate-brain-key", CUSTOMER, "--yes", "--revoke-at-once"]);
    // Before any host was waited for.
    assert!(run.read_until(|line| {
        assert!(!line.starts_with("hosts: arrived"), "{line}");
        line.starts_with(&format!("old-key: removed: brain key {old}"))
    }));
    run.end().assert_code(0);
    let (reader, _) = sandbox.mint(CUSTOMER);
    more_heartbeats(&sandbox, &reader, 1);
}

#[test]
fn a_key_that_the_brain_refuses_is_never_stored() {
    let (sandbox, surroundings, _) = onboarded(false);
    let key = only_key(&sandbox);
    let before = sandbox.changes();
    let refused = surroundings.m8trx(
        &[
            &ROTATE[..],
            &["--mint-command", "sh -c 'echo m8k_of_nobody'"],
        ]
        .concat(),
    );
    assert!(
        refused
            .assert_code(4)
            .stderr
            .contains("refuses the brain key just minted"),
        "{refused:?}"
    );
    // The key of another customer is accepted, and must not be given to this one's hosts.
    let (stranger, _) = sandbox.mint("cust_acme2");
    let file = surroundings.file("key", &stranger);
    let refused =
        surroundings.m8trx(&[&ROTATE[..], &["--brain-key-file", file.to_str().unwrap()]].concat());
    assert!(
        refused
            .assert_code(3)
            .stderr
            .contains("key of another customer"),
        "{refused:?}"
    );
    assert_eq!(sandbox.changes(), before);
    assert_eq!(only_key(&sandbox), key);
}

#[test]
fn a_key_that_the_brain_refuses_later_is_rolled_back() {
    let (sandbox, surroundings, _) = onboarded(false);
    let old = only_key(&sandbox);
    let mut run = surroundings.start(&ROTATE);
    assert!(run.read_until(|line| line.starts_with("brain-key: updated: ")));
    let keys = sandbox.brain_keys(CUSTOMER);
    let (new, _) = keys.iter().find(|(id, _)| *id != old.0).unwrap();
    sandbox.brain("DELETE", &format!("/v1/keys/{new}"), None, None);
    let ended = run.end();
    ended.assert_code(4);
    let error = ended.json();
    assert_eq!(
        error["evidence"][0],
        "/m8trx/cust_acme/brain-key, version 3, holds the key of version 1 again"
    );
    assert!(
        error["hint"].as_str().unwrap().starts_with("rolled back"),
        "{error}"
    );
    assert_eq!(only_key(&sandbox), old);
    let again = surroundings.m8trx(&["onboard", CUSTOMER, "--yes"]);
    assert!(
        again
            .assert_code(0)
            .stderr
            .contains("brain-key: unchanged: version 3, accepted by the brain"),
        "{again:?}"
    );
}

#[test]
fn killed_anywhere_it_is_finished_the_next_time() {
    let (sandbox, surroundings, _) = onboarded(true);
    let (reader, _) = sandbox.mint(CUSTOMER);
    for stage in [
        "brain-key: minting at the brain",
        "brain-key: storing the key",
        "brain-key: updated: ",
        "hosts: waiting for ",
        "hosts: arrived: ",
        "old-key: revoking ",
        "old-key: removed: ",
    ] {
        let mut run = surroundings.start(&["rotate-brain-key", CUSTOMER, "--yes"]);
        assert!(
            run.read_until(|line| line.starts_with(stage)),
            "{stage}: {:?}",
            run.end()
        );
        run.child.kill().unwrap();
        run.end();
        // Whatever is stored works.
        surroundings
            .m8trx(&["onboard", CUSTOMER, "--dry-run"])
            .assert_code(0);
        let finished = surroundings.m8trx(&ROTATE).assert_code(0).json();
        assert_eq!(finished["old_key_revoked"], true, "{stage}");
        more_heartbeats(&sandbox, &reader, 1);
        let ours: Vec<_> = sandbox
            .brain_keys(CUSTOMER)
            .into_iter()
            .filter(|(_, label)| label != "a test")
            .collect();
        // Killed between the brain's answer and its note of it, a key may be left that nobody knows.
        let unnoted = [
            "brain-key: minting at the brain",
            "brain-key: storing the key",
        ];
        let minted = if unnoted.contains(&stage) { 2 } else { 1 };
        assert!(ours.len() <= minted, "{stage}: {ours:?}");
        for (id, _) in ours
            .iter()
            .filter(|(id, _)| finished["new_key_id"] != id.as_str())
        {
            sandbox.brain("DELETE", &format!("/v1/keys/{id}"), None, None);
        }
    }
    assert_eq!(refused_events(&sandbox), 0);
}

#[test]
fn a_host_that_does_not_follow_in_time_leaves_both_keys_valid() {
    let (sandbox, surroundings, host) = onboarded(false);
    let old = only_key(&sandbox);
    let late = surroundings.m8trx(&[&ROTATE[..], &["--timeout", "1s"]].concat());
    late.assert_code(6);
    let error = late.json();
    assert!(
        error["causes"]
            .to_string()
            .contains(&format!("{host}: last heartbeat at ")),
        "{error}"
    );
    assert!(
        error["causes"].to_string().contains("with another key"),
        "{error}"
    );
    assert!(
        error["hint"]
            .as_str()
            .unwrap()
            .contains("both keys are valid"),
        "{error}"
    );
    assert!(sandbox.brain_keys(CUSTOMER).contains(&old));
    let plan = surroundings.m8trx(&["rotate-brain-key", CUSTOMER, "--dry-run"]);
    assert!(
        plan.assert_code(0)
            .stdout
            .contains("version 2, stored by a rotation that was not finished"),
        "{plan:?}"
    );
}

#[test]
fn without_the_admin_token_it_says_what_to_revoke() {
    let (sandbox, mut surroundings, _) = onboarded(true);
    let (old, _) = only_key(&sandbox);
    let (key, _) = sandbox.mint(CUSTOMER);
    surroundings
        .variables
        .remove("M8TRX_BRAIN_ADMIN_TOKEN_FILE");
    let file = surroundings.file("key", &key);
    let given = ["--brain-key-file", file.to_str().unwrap()];
    let refused = surroundings.m8trx(&[&ROTATE[..], &given, &["--revoke-at-once"]].concat());
    assert!(
        refused.assert_code(3).stderr.contains("admin token"),
        "{refused:?}"
    );
    let rotated = surroundings
        .m8trx(&[&ROTATE[..], &given].concat())
        .assert_code(0)
        .json();
    assert_eq!(rotated["old_key_revoked"], false);
    let to_do = rotated["to_do"].as_str().unwrap();
    assert!(
        to_do.contains(&format!("revoke {old} of cust_acme")),
        "{to_do}"
    );
    // The same key once more is no rotation.
    let again = surroundings.m8trx(&[&ROTATE[..], &given].concat());
    assert!(
        again.assert_code(3).stderr.contains("holds already"),
        "{again:?}"
    );
}

#[test]
fn what_cannot_be_is_told_before_anything_is_changed() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let asked = surroundings.m8trx(&["rotate-brain-key", CUSTOMER]);
    assert!(asked.assert_code(2).stderr.contains("--yes"), "{asked:?}");
    let unknown = surroundings.m8trx(&["rotate-brain-key", "cust_unknown", "--yes"]);
    assert!(
        unknown.assert_code(3).stderr.contains("has no brain key"),
        "{unknown:?}"
    );
    assert!(
        unknown.stderr.contains("m8trx onboard cust_unknown"),
        "{unknown:?}"
    );
    assert_eq!(sandbox.changes(), Vec::<String>::new());
    assert_eq!(
        sandbox.brain("GET", "/v1/keys", None, None),
        json!({"keys": []})
    );
}
