//! Where a customer lives: IAM and the tailnet know no region, so a forgotten one must not cut off a living host.

use crate::cloud::Cloud;
use crate::common::{Ended, RunningSandbox, Surroundings};

/// What a person sees of it, the same in every run.
fn seen(ended: &Ended, surroundings: &Surroundings) -> String {
    let mut text = format!("exit {}\n{}{}", ended.code, ended.stdout, ended.stderr);
    text = text.replace(&surroundings.home.path().display().to_string(), "HOME");
    for (pattern, stands_for) in [
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"k[A-Za-z0-9]+CNTRL", "kIDCNTRL"),
        (r"n[A-Za-z0-9]+CNTRL", "nIDCNTRL"),
        (r"i-[0-9a-f]{17}", "i-ID"),
        (r"key_[A-Za-z0-9]+", "key_ID"),
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
        (r" \(request [-0-9a-f]+\)", ""),
    ] {
        text = regex_lite::Regex::new(pattern)
            .unwrap()
            .replace_all(&text, stands_for)
            .into_owned();
    }
    text
}

fn onboard(surroundings: &Surroundings, arguments: &[&str]) {
    let mut all = vec!["onboard", "--yes"];
    all.extend(arguments);
    surroundings.m8trx(&all).assert_code(0);
}

#[test]
fn whoever_lives_elsewhere_is_not_touched() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    onboard(&surroundings, &["cust_acme"]);
    let key = surroundings.file("key", "m8k_another");
    let key = key.to_str().unwrap();
    let before = sandbox.changes();
    let minted = sandbox.brain_keys("cust_acme");
    let mut texts = Vec::new();
    for command in [
        "onboard cust_acme --yes",
        "onboard cust_acme --dry-run",
        "launch cust_acme --yes",
        "offboard cust_acme --yes --confirm cust_acme",
        "offboard cust_acme --dry-run",
        "offboard cust_acme --yes --confirm cust_acme --leftovers",
        "rotate-brain-key cust_acme --yes",
        "rotate-tailscale-key cust_acme --yes",
        "iam apply cust_acme --yes",
        "iam diff cust_acme",
        "params delete cust_acme/brain-key --yes",
        "mint-key cust_acme --store --yes",
        "smoke --customer cust_acme --yes",
        "smoke --customer cust_acme --cleanup --yes",
        "tailnet apply --yes",
        "tailnet policy",
        "params put cust_acme/brain-key --yes --file",
    ] {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        if command.ends_with("--file") {
            arguments.push(key);
        }
        arguments.extend(["--region", "eu-central-1"]);
        let ended = surroundings.m8trx(&arguments);
        ended.assert_code(3);
        texts.push(format!(
            "$ m8trx {command}\n{}",
            seen(&ended, &surroundings)
        ));
    }
    insta::assert_snapshot!("elsewhere", texts.join("\n"));
    assert_eq!(sandbox.changes(), before);
    assert_eq!(sandbox.brain_keys("cust_acme"), minted);
    // At home, nothing is in the way.
    let diff = surroundings.m8trx(&["iam", "diff", "cust_acme"]);
    assert!(
        diff.assert_code(0).stdout.contains("as it should be"),
        "{diff:?}"
    );
}

#[test]
fn a_role_without_the_tag_says_it_by_its_policy_or_by_where_it_was_used() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let cloud = Cloud::of(&surroundings.variables);
    onboard(&surroundings, &["cust_old"]);
    let role = "m8trx-cust_old";
    cloud.untag_role(role, "m8trx:home");
    let elsewhere = || {
        let offboard = ["offboard", "cust_old", "--yes", "--confirm", "cust_old"];
        let ended = surroundings.m8trx(&[&offboard[..], &["--region", "eu-west-1"]].concat());
        seen(ended.assert_code(3), &surroundings)
    };
    let by_policy = elsewhere();
    // As the runbook writes it: any region. The host has read its parameters, so IAM knows where the role was used.
    cloud.widen_role(role);
    let by_use = elsewhere();
    insta::assert_snapshot!("elsewhere_without_tag", format!("{by_policy}\n{by_use}"));
    // At home, it is well without the tag, and onboarding adds it.
    let launched = surroundings.m8trx(&["iam", "apply", "cust_old", "--yes"]);
    launched.assert_code(0);
    cloud.untag_role(role, "m8trx:home");
    let status = surroundings.m8trx(&["status", "--check", "cust_old"]);
    status.assert_code(0);
    let again = surroundings.m8trx(&["onboard", "cust_old", "--yes"]);
    let stderr = &again.assert_code(0).stderr;
    assert!(
        stderr.contains("add the tag m8trx:home: where the customer lives"),
        "{again:?}"
    );
    assert_eq!(
        cloud.role_tag(role, "m8trx:home").as_deref(),
        Some("123456789012/us-east-1")
    );
}

#[test]
fn an_empty_region_says_where_the_customers_are() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    onboard(&surroundings, &["cust_a"]);
    onboard(&surroundings, &["cust_b"]);
    let status = |arguments: &[&str]| {
        let mut all = vec!["status"];
        all.extend(arguments);
        let ended = surroundings.m8trx(&all);
        seen(ended.assert_code(0), &surroundings)
    };
    insta::assert_snapshot!(
        "status_of_an_empty_region",
        [
            status(&["--region", "eu-west-1"]),
            status(&["cust_a", "--region", "eu-west-1"]),
        ]
        .join("\n")
    );
    let json = surroundings.m8trx(&["status", "--region", "eu-west-1", "--output", "json"]);
    assert_eq!(
        json.assert_code(0).json()["elsewhere"],
        serde_json::json!([
            {"customer": "cust_a", "account": "123456789012", "region": "us-east-1"},
            {"customer": "cust_b", "account": "123456789012", "region": "us-east-1"},
        ])
    );
}

#[test]
fn a_printed_policy_has_the_customers_of_every_region() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    onboard(&surroundings, &["cust_here"]);
    onboard(&surroundings, &["cust_there", "--region", "eu-west-1"]);
    let printed = surroundings.m8trx(&["tailnet", "policy"]);
    for tag in ["tag:m8trx-cust-here", "tag:m8trx-cust-there"] {
        assert!(printed.assert_code(0).stdout.contains(tag), "{printed:?}");
    }
    insta::assert_snapshot!("policy_of_every_region", printed.stderr);
    let doctor = surroundings.m8trx(&["tailnet", "doctor"]);
    assert!(!doctor.stdout.contains("cust-there"), "{doctor:?}");
    // Home is home in both.
    let there = surroundings.m8trx(&["onboard", "cust_there", "--region", "eu-west-1", "--yes"]);
    assert!(
        there.assert_code(0).stdout.contains("nothing was changed"),
        "{there:?}"
    );
}

#[test]
fn what_nothing_places_is_removed_only_where_that_is_said() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let cloud = Cloud::of(&surroundings.variables);
    onboard(&surroundings, &["cust_gone"]);
    let offboard = |more: &[&str]| {
        let mut all = vec!["offboard", "cust_gone", "--yes", "--confirm", "cust_gone"];
        all.extend(more);
        surroundings.m8trx(&all)
    };
    // Somebody took role and profile away by hand: the host lives, and its device is in the tailnet.
    cloud.delete_role("m8trx-cust_gone");
    let before = sandbox.changes();
    let elsewhere = offboard(&["--region", "eu-west-1"]);
    insta::assert_snapshot!(
        "placed_nowhere",
        seen(elsewhere.assert_code(3), &surroundings)
    );
    assert_eq!(sandbox.changes(), before);
    assert_eq!(sandbox.brain_keys("cust_gone").len(), 1);
    // Where its parameters are, nothing more has to be said.
    offboard(&[]).assert_code(0);

    onboard(&surroundings, &["cust_gone"]);
    cloud.delete_role("m8trx-cust_gone");
    let left = offboard(&["--region", "eu-west-1", "--leftovers"]);
    left.assert_code(0);
}
