//! What Tailscale takes in a policy file, and what it refuses.

use super::*;

fn message(text: &str) -> String {
    match Policy::parse(text) {
        Ok(_) => "accepted".to_owned(),
        Err(refused) => refused["message"].as_str().unwrap().to_owned(),
    }
}

#[test]
fn the_first_one_owns_the_designs_tags() {
    let first = Policy::first();
    for tag in [OPERATOR_TAG, "tag:m8trx-team", "tag:m8trx-brain"] {
        assert!(first.is_owned_by(tag, &["autogroup:admin"]), "{tag}");
    }
    assert!(!first.defines("tag:m8trx-cust-acme"));
    assert!(!first.reaches("autogroup:member", "tag:m8trx-team", 22));
}

#[test]
fn what_tailscale_refuses_is_refused() {
    for (text, words) in [
        ("{\"grants\": [", "parsing policy: "),
        ("[]", "not an object"),
        ("{\"Rules\": []}", "unknown field \"Rules\""),
        (
            "{\"grants\": [{\"source\": []}]}",
            "unknown field \"source\"",
        ),
        ("{\"grants\": {}}", "not a list"),
        (
            "{\"grants\": [{\"src\": [\"tag:x\"]}]}",
            "tag not found: \"tag:x\"",
        ),
        (
            "{\"tests\": [{\"src\": \"a@b.c\", \"deny\": [\"tag:x:22\"]}]}",
            "tag not found: \"tag:x\"",
        ),
        (
            "{\"tagOwners\": {\"tag:a_b\": []}}",
            "only contain numbers, letters, or dashes",
        ),
        (
            "{\"tagOwners\": {\"tag:x\": []}, \"ssh\": [{\"action\": \"check\", \"src\": [\"tag:x\"]}]}",
            "cannot have tags",
        ),
        ("{\"ssh\": [{\"users\": [\"*\"]}]}", "users"),
        ("{\"ssh\": [{\"dst\": [\"*\"]}]}", "dst"),
        (
            "{\"tests\": [{\"src\": \"a@b.c\", \"deny\": [\"a@b.c:*\"]}]}",
            "no single port",
        ),
    ] {
        let told = message(text);
        assert!(told.contains(words), "{text}: {told}");
    }
    assert_eq!(message("{}"), "accepted");
}

#[test]
fn its_tests_are_run() {
    let policy = |rules: &str| {
        message(&format!(
            r#"{{"tagOwners": {{"tag:a": [], "tag:b": []}}, "groups": {{"group:g": ["u@x.y"]}}, {rules},
            "tests": [{{"src": "tag:a", "accept": ["tag:b:8080"], "deny": ["tag:b:22"]}}]}}"#
        ))
    };
    let good = r#""grants": [{"src": ["tag:a"], "dst": ["tag:b"], "ip": ["tcp:8000-8080"]}]"#;
    assert_eq!(policy(good), "accepted");
    for bad in [
        r#""grants": []"#,
        r#""grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]"#,
        r#""grants": [{"src": ["tag:a"], "dst": ["tag:b"], "ip": ["udp:8080"]}]"#,
        r#""acls": [{"action": "accept", "src": ["autogroup:tagged"], "dst": ["tag:b:22,8080"]}]"#,
        r#""acls": [{"action": "accept", "src": ["group:g", "autogroup:member"], "dst": ["*:*"]}]"#,
    ] {
        assert_eq!(policy(bad), "test(s) failed", "{bad}");
    }
    let acl = r#""acls": [{"action": "accept", "src": ["tag:a"], "dst": ["tag:b:8080"]}]"#;
    assert_eq!(policy(acl), "accepted");
}
