//! `m8trx tailnet apply`, `m8trx tailnet doctor`, and the customer's place in the policy file in onboarding and smoke.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::common::{RunningSandbox, Surroundings, files_below};
use crate::tailnet::Console;

fn kept(surroundings: &Surroundings) -> Vec<std::path::PathBuf> {
    let mut files = files_below(&surroundings.home.path().join(".local/state/m8trx"));
    files.retain(|path| path.to_str().unwrap().ends_with("-policy.hujson"));
    files.sort();
    files
}

const ALLOW_ALL: &str = "{\n  // as every tailnet begins\n  \"acls\": [{\"action\": \"accept\", \"src\": [\"*\"], \"dst\": [\"*:*\"]}],\n}\n";

#[test]
fn customers_come_into_the_file_and_go_and_the_rest_stays() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let console = Console::of(&sandbox);
    let first = console.policy();

    let dry = surroundings.m8trx(&["tailnet", "apply", "cust_acme", "--dry-run"]);
    dry.assert_code(0);
    assert!(
        dry.stdout
            .contains("+\t\t\"tag:m8trx-cust-acme\": [\"tag:m8trx-operator\"],"),
        "{dry:?}"
    );
    assert!(!dry.stdout.contains("\n-"), "{dry:?}");
    assert_eq!(console.policy(), first);
    let unasked = surroundings.m8trx(&["tailnet", "apply", "cust_acme"]);
    unasked.assert_code(2);
    assert!(unasked.stderr.contains("--yes"), "{unasked:?}");

    let applied = surroundings.m8trx(&[
        "tailnet",
        "apply",
        "cust_acme",
        "cust_bigco",
        "--yes",
        "--output",
        "json",
    ]);
    applied.assert_code(0);
    let document = applied.json();
    assert_eq!(document["schema"], "m8trx.tailnet-apply/1");
    assert_eq!(document["changed"], true);
    assert_eq!(document["customers"], 2);
    let previous = document["previous"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(previous).unwrap(), first);
    let mode = std::fs::metadata(previous).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let both = console.policy();
    let mut lines = both.lines();
    for line in first.lines() {
        assert!(lines.any(|other| other == line), "{line} is lost in {both}");
    }
    surroundings.m8trx(&["tailnet", "check"]).assert_code(0);

    let again = surroundings.m8trx(&["tailnet", "apply", "cust_bigco", "--yes"]);
    again.assert_code(0);
    assert!(again.stdout.contains("nothing was changed"), "{again:?}");
    assert_eq!(console.count("POST", "/acl"), 1);
    assert_eq!(kept(&surroundings).len(), 1);

    let removed = surroundings.m8trx(&["tailnet", "apply", "--remove", "cust_acme", "--yes"]);
    removed.assert_code(0);
    let left = console.policy();
    assert!(
        !left.contains("acme") && left.contains("tag:m8trx-cust-bigco"),
        "{left}"
    );
    assert_eq!(
        std::fs::read_to_string(&kept(&surroundings)[1]).unwrap(),
        both
    );
    let both_ways = surroundings.m8trx(&[
        "tailnet",
        "apply",
        "cust_acme",
        "--remove",
        "cust_acme",
        "--yes",
    ]);
    both_ways.assert_code(2);
}

#[test]
fn what_the_check_refuses_is_not_applied() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let console = Console::of(&sandbox);
    console.set_policy(ALLOW_ALL);
    let sets = console.count("POST", "/acl");
    for arguments in [
        &["tailnet", "apply", "cust_acme", "--yes"][..],
        &["onboard", "cust_acme", "--yes"],
    ] {
        let ended = surroundings.m8trx(arguments);
        ended.assert_code(3);
        for words in [
            "would not isolate customers",
            "acls[0]",
            "tag:m8trx-cust-acme",
        ] {
            assert!(ended.stderr.contains(words), "{words}: {ended:?}");
        }
    }
    assert_eq!(console.policy(), ALLOW_ALL);
    assert_eq!(console.count("POST", "/acl"), sets);
    assert_eq!(kept(&surroundings), Vec::<std::path::PathBuf>::new());
    assert_eq!(sandbox.changes(), Vec::<String>::new());
    let check = surroundings.m8trx(&["tailnet", "check"]);
    check.assert_code(3);
    assert!(
        check
            .stdout
            .contains("the tailnet's policy file:3:12: acls[0]"),
        "{check:?}"
    );
}

#[test]
fn a_change_by_others_meanwhile_starts_it_again() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let console = Console::of(&sandbox);
    let answer = |how: &str, times: u32| {
        console.conduct(
            json!({"answers": [{"method": "POST", "path": "/acl", "how": how, "times": times}]}),
        );
    };
    answer("changed", 2);
    let ended = surroundings.m8trx(&["tailnet", "apply", "cust_acme", "--yes"]);
    ended.assert_code(0);
    assert_eq!(
        ended.stderr.matches("changed by somebody else").count(),
        2,
        "{ended:?}"
    );
    assert_eq!(console.count("POST", "/acl"), 3);
    assert!(console.policy().contains("tag:m8trx-cust-acme"));
    // Only what was replaced is kept.
    assert_eq!(kept(&surroundings).len(), 1);

    let before = console.policy();
    answer("changed", 99);
    let ended = surroundings.m8trx(&["tailnet", "apply", "cust_bigco", "--yes"]);
    ended.assert_code(4);
    assert!(
        ended.stderr.contains("changed by others 5 times"),
        "{ended:?}"
    );
    assert_eq!(console.policy(), before);

    // The file is replaced and the answer lost: looking tells.
    answer("lose", 1);
    let ended = surroundings.m8trx(&["tailnet", "apply", "cust_bigco", "--yes"]);
    ended.assert_code(0);
    assert!(console.policy().contains("tag:m8trx-cust-bigco"));
}

#[test]
fn an_api_that_does_not_answer_as_it_should() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let console = Console::of(&sandbox);
    let first = console.policy();
    for (conduct, code, words) in [
        (
            json!({"answers": [{"method": "GET", "path": "/acl", "how": "page"}]}),
            1,
            "web page",
        ),
        (
            json!({"answers": [{"method": "POST", "path": "/acl/validate", "how": "page"}]}),
            1,
            "web page",
        ),
        (
            json!({"answers": [{"method": "POST", "path": "/acl", "how": "page"}]}),
            1,
            "web page",
        ),
        (
            json!({"answers": [{"method": "GET", "path": "/acl", "how": "unauthorized", "times": 2}]}),
            4,
            "401",
        ),
        (json!({"scopes": ["auth_keys"]}), 4, "`policy_file:read`"),
        (json!({"scopes": ["policy_file:read"]}), 4, "`policy_file`"),
        (
            json!({"answers": [{"method": "POST", "path": "/acl", "how": "broken"}]}),
            1,
            "500",
        ),
        (
            json!({"answers": [{"method": "GET", "path": "/acl", "how": "too-many", "retry_after": 3600}]}),
            4,
            "3600 s",
        ),
    ] {
        console.conduct(conduct.clone());
        let ended = surroundings.m8trx(&["tailnet", "apply", "cust_acme", "--yes"]);
        ended.assert_code(code);
        assert!(ended.stderr.contains(words), "{conduct}: {ended:?}");
        console.conduct(json!({}));
        assert_eq!(console.policy(), first, "{conduct}");
    }
    assert_eq!(kept(&surroundings), Vec::<std::path::PathBuf>::new());
    console.conduct(json!({"answers": [{"method": "GET", "path": "/acl", "how": "too-many", "retry_after": 0}]}));
    surroundings
        .m8trx(&["tailnet", "apply", "cust_acme", "--yes"])
        .assert_code(0);

    let mut without = Surroundings::of(&sandbox);
    without.set("M8TRX_TAILSCALE_CLIENT_ID", "");
    without.set("M8TRX_TAILSCALE_CLIENT_SECRET_FILE", "");
    for arguments in [
        &["tailnet", "apply", "cust_acme", "--yes"][..],
        &["tailnet", "check"],
        &["tailnet", "doctor"],
    ] {
        let ended = without.m8trx(arguments);
        ended.assert_code(3);
        assert!(
            ended.stderr.contains("M8TRX_TAILSCALE_CLIENT_ID"),
            "{ended:?}"
        );
    }
    // Without a place to keep the file it is not replaced.
    let mut nowhere = Surroundings::of(&sandbox);
    nowhere.set("XDG_STATE_HOME", "/proc/nowhere");
    let before = console.policy();
    let ended = nowhere.m8trx(&["tailnet", "apply", "cust_bigco", "--yes"]);
    ended.assert_code(3);
    assert!(
        ended.stderr.contains("cannot be kept in /proc/nowhere"),
        "{ended:?}"
    );
    assert_eq!(console.policy(), before);
}

#[test]
fn onboarding_puts_the_customer_in_and_smoke_takes_it_out() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let console = Console::of(&sandbox);
    let mut at_once: Vec<_> = ["cust_a", "cust_b", "cust_c"]
        .iter()
        .map(|customer| surroundings.start(&["onboard", customer, "--yes"]))
        .collect();
    for started in at_once.drain(..) {
        started.end().assert_code(0);
    }
    let policy = console.policy();
    for tag in ["tag:m8trx-cust-a", "tag:m8trx-cust-b", "tag:m8trx-cust-c"] {
        assert!(policy.contains(tag), "{policy}");
    }
    surroundings.m8trx(&["tailnet", "check"]).assert_code(0);
    let again = surroundings.m8trx(&["onboard", "cust_a", "--yes"]);
    again.assert_code(0);
    assert!(
        again.stderr.contains("tailnet-policy: unchanged"),
        "{again:?}"
    );

    surroundings.m8trx(&["smoke", "--yes"]).assert_code(0);
    assert_eq!(console.policy(), policy);
    // A customer that was there before the run stays.
    surroundings
        .m8trx(&["tailnet", "apply", "cust_b4_smoke", "--yes"])
        .assert_code(0);
    let with_smoke = console.policy();
    surroundings.m8trx(&["smoke", "--yes"]).assert_code(0);
    assert_eq!(console.policy(), with_smoke);
}

#[test]
fn the_doctor_names_what_is_wrong_and_what_to_do() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let console = Console::of(&sandbox);
    let healthy = surroundings.m8trx(&["tailnet", "doctor"]);
    healthy.assert_code(0);
    assert!(healthy.stdout.contains("no problem"), "{healthy:?}");
    surroundings
        .m8trx(&["tailnet", "apply", "cust_gone", "--yes"])
        .assert_code(0);
    let unused = surroundings.m8trx(&["tailnet", "doctor"]);
    unused.assert_code(0);
    assert!(
        unused
            .stdout
            .contains("m8trx tailnet apply --remove cust_gone"),
        "{unused:?}"
    );

    console.set_policy(ALLOW_ALL);
    let ended = surroundings.m8trx(&["tailnet", "doctor"]);
    ended.assert_code(7);
    for words in [
        "problem: the rule that lets everything reach everything is still there: acls[0] at line 3",
        "tag:m8trx-operator",
        "  why: ",
        "  do:  ",
    ] {
        assert!(ended.stdout.contains(words), "{words}: {ended:?}");
    }
    let ended = surroundings.m8trx(&["tailnet", "doctor", "--output", "json"]);
    ended.assert_code(7);
    let document = ended.json();
    assert_eq!(document["schema"], "m8trx.tailnet-doctor/1");
    assert_eq!(document["findings"][0]["id"], "allow-all");
    assert_eq!(document["findings"][0]["severity"], "problem");

    let mut without_aws = Surroundings::of(&sandbox);
    without_aws.set("AWS_SECRET_ACCESS_KEY", "wrong");
    let ended = without_aws.m8trx(&["tailnet", "doctor", "--output", "json"]);
    ended.assert_code(7);
    assert_eq!(ended.json()["skipped"].as_array().unwrap().len(), 1);
}
