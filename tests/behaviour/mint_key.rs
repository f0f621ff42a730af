//! A brain key alone: printed once, or stored as onboarding stores it.

use serde_json::json;

use crate::common::{RunningSandbox, Surroundings, files_below};

#[test]
fn a_key_is_printed_once_with_a_warning() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let plain = surroundings.m8trx(&["mint-key", "cust_a"]);
    let key = plain.assert_code(0).stdout.trim().to_owned();
    assert!(
        key.starts_with("m8k_") && plain.stdout.lines().count() == 1,
        "{plain:?}"
    );
    assert!(!plain.stderr.contains(&key), "{plain:?}");
    assert!(
        plain.stderr.contains("warning: this key is shown once"),
        "{plain:?}"
    );

    let document = surroundings
        .m8trx(&[
            "mint-key", "cust_a", "--label", "by hand", "--output", "json",
        ])
        .assert_code(0)
        .json();
    assert_eq!(document["schema"], "m8trx.mint-key/1");
    assert_eq!(document["label"], "by hand");
    assert_eq!(document["stored"], json!(null));
    assert!(document["key_id"].is_string());
    assert_ne!(document["key"], key);
    // It is the customer's: what is stored with it is accepted by the brain.
    let file = surroundings.file("key", document["key"].as_str().unwrap());
    surroundings
        .m8trx(&[
            "params",
            "put",
            "cust_a/brain-key",
            "--yes",
            "--file",
            file.to_str().unwrap(),
        ])
        .assert_code(0);
    let stored =
        surroundings.m8trx(&["mint-key", "cust_a", "--store", "--yes", "--output", "json"]);
    assert_eq!(
        stored.assert_code(0).json()["stored"]["outcome"],
        "unchanged"
    );
    for journal in files_below(&surroundings.home.path().join(".local")) {
        assert!(!std::fs::read_to_string(journal).unwrap().contains("m8k_"));
    }
}

#[test]
fn a_stored_key_that_works_is_kept_and_one_that_does_not_is_replaced() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let store = |flags: &[&str]| {
        let mut all = vec!["mint-key", "cust_a", "--store", "--output", "json"];
        all.extend(flags);
        surroundings.m8trx(&all)
    };
    store(&[]).assert_code(2);
    assert_eq!(store(&["--dry-run"]).assert_code(0).json()["changes"], 1);
    assert_eq!(sandbox.changes(), Vec::<String>::new());
    let made = store(&["--yes"]);
    let document = made.assert_code(0).json();
    assert_eq!(document["stored"]["outcome"], "created");
    assert_eq!(document["key"], json!(null));
    assert!(!format!("{made:?}").contains("m8k_"), "{made:?}");
    let tags = || {
        surroundings
            .m8trx(&["params", "show", "cust_a/brain-key", "--output", "json"])
            .assert_code(0)
            .json()["tags"]
            .clone()
    };
    assert_eq!(tags()["Customer"], "cust_a");
    let first = tags()["BrainKeyId"].clone();
    assert!(first.is_string());
    let changes = sandbox.changes();
    assert_eq!(
        store(&["--yes"]).assert_code(0).json()["stored"]["outcome"],
        "unchanged"
    );
    assert_eq!(sandbox.changes(), changes);

    let file = surroundings.file("key", "m8k_of_nobody");
    surroundings
        .m8trx(&[
            "params",
            "put",
            "cust_a/brain-key",
            "--yes",
            "--file",
            file.to_str().unwrap(),
        ])
        .assert_code(0);
    let mended = store(&["--yes"]);
    assert_eq!(mended.assert_code(0).json()["stored"]["outcome"], "updated");
    assert_ne!(tags()["BrainKeyId"], first);
}

#[test]
fn what_cannot_mint_is_told_before_anything_else() {
    let sandbox = RunningSandbox::up();
    let mut surroundings = Surroundings::of(&sandbox);
    surroundings
        .variables
        .remove("M8TRX_BRAIN_ADMIN_TOKEN_FILE");
    let ended = surroundings.m8trx(&["mint-key", "cust_a"]);
    assert!(
        ended.assert_code(3).stderr.contains("--mint-command"),
        "{ended:?}"
    );
    assert_eq!(sandbox.calls(), Vec::<serde_json::Value>::new());
    let long = "x".repeat(201);
    for label in ["", " ", "two\nlines", &long] {
        surroundings
            .m8trx(&["mint-key", "cust_a", "--label", label])
            .assert_code(2);
    }
    // A command's key that the brain does not know is refused, and shown nowhere.
    let ended = surroundings.m8trx(&[
        "mint-key",
        "cust_a",
        "--mint-command",
        "bash -c 'echo m8k_of_nobody'",
    ]);
    ended.assert_code(4);
    assert_eq!(ended.stdout, "");
}
