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
    // Nobody changes it, and still it is said to be changed: something between breaks the ETag.
    answer("changed", 99);
    let ended = surroundings.m8trx(&["tailnet", "apply", "cust_bigco", "--yes"]);
    ended.assert_code(4);
    assert!(
        ended
            .stderr
            .contains("it reads the same each time: its ETag does not come through"),
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
fn a_customer_whose_host_lives_is_not_taken_out() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let console = Console::of(&sandbox);
    surroundings
        .m8trx(&["onboard", "cust_acme", "--yes"])
        .assert_code(0);
    surroundings
        .m8trx(&["tailnet", "apply", "cust_gone", "--yes"])
        .assert_code(0);
    let before = console.policy();
    let status = |expected: &str| {
        let status = surroundings.m8trx(&["status", "cust_acme", "--output", "json"]);
        let customer = status.json()["customers"][0].clone();
        assert_eq!(customer["status"], expected, "{customer}");
        customer["problems"].to_string()
    };
    status("healthy");

    for dry_run in [&[][..], &["--dry-run"]] {
        let arguments = ["tailnet", "apply", "--remove", "cust_acme", "--yes"];
        let ended = surroundings.m8trx(&[&arguments[..], dry_run].concat());
        ended.assert_code(3);
        for words in [
            "cust_acme would lose the brain: a living host; nothing was changed",
            "cust_acme: its host i-",
            "cust_acme: its device n",
            "cust_acme: the brain heard ",
            "m8trx offboard cust_acme",
            "--force",
        ] {
            assert!(ended.stderr.contains(words), "{words}: {ended:?}");
        }
        assert_eq!(console.policy(), before);
    }
    // One that has no host goes.
    surroundings
        .m8trx(&["tailnet", "apply", "--remove", "cust_gone", "--yes"])
        .assert_code(0);

    let with_acme = console.policy();
    let forced = surroundings.m8trx(&[
        "tailnet",
        "apply",
        "--remove",
        "cust_acme",
        "--yes",
        "--force",
        "--output",
        "json",
    ]);
    forced.assert_code(0);
    assert!(
        forced
            .stderr
            .contains("cust_acme is taken out, and its host loses the brain: its host i-"),
        "{forced:?}"
    );
    assert!(!console.policy().contains("acme"));
    let problems = status("misconfigured");
    assert!(
        problems.contains("policy file does not name tag:m8trx-cust-acme")
            && problems.contains("m8trx tailnet apply cust_acme"),
        "{problems}"
    );

    // What was kept is put back.
    let kept = forced.json()["previous"].as_str().unwrap().to_owned();
    let without_acme = console.policy();
    let restored = surroundings.m8trx(&["tailnet", "apply", "--restore", &kept, "--yes"]);
    restored.assert_code(0);
    assert_eq!(console.policy(), with_acme);
    status("healthy");
    // A file without it is not put in its place, though.
    let file = surroundings.file("without.hujson", &without_acme);
    let ended = surroundings.m8trx(&[
        "tailnet",
        "apply",
        "--restore",
        file.to_str().unwrap(),
        "--yes",
    ]);
    ended.assert_code(3);
    assert!(
        ended.stderr.contains("cust_acme would lose the brain"),
        "{ended:?}"
    );
    for (text, words) in [
        (ALLOW_ALL, "no policy file that was kept"),
        ("{\"tagOwners\": {", "line 1, column"),
    ] {
        let file = surroundings.file("odd.hujson", text);
        let ended = surroundings.m8trx(&[
            "tailnet",
            "apply",
            "--restore",
            file.to_str().unwrap(),
            "--yes",
        ]);
        ended.assert_code(3);
        assert!(ended.stderr.contains(words), "{ended:?}");
    }
    assert_eq!(console.policy(), with_acme);

    // Without AWS it cannot be seen, so it is not done.
    let mut without_aws = Surroundings::of(&sandbox);
    without_aws.set("AWS_SECRET_ACCESS_KEY", "wrong");
    let ended = without_aws.m8trx(&["tailnet", "apply", "--remove", "cust_acme", "--yes"]);
    assert_ne!(ended.code, 0, "{ended:?}");
    assert!(ended.stderr.contains("cannot be seen"), "{ended:?}");
    assert_eq!(console.policy(), with_acme);
}

/// To Tailscale a `//` comment ends at a newline only; a reader that ends it at a carriage return sees another file.
#[test]
fn one_byte_hides_no_rule() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let console = Console::of(&sandbox);
    surroundings
        .m8trx(&["tailnet", "apply", "cust_acme", "cust_bigco", "--yes"])
        .assert_code(0);
    let hidden = "\"grants\": [// foo \r /*\n{\"src\": [\"autogroup:tagged\"], \"dst\": [\"autogroup:tagged\"], \"ip\": [\"tcp:443\"]},\n// */\n";
    let text = console.policy().replace("\"grants\": [", hidden);
    // The service takes it.
    console.set_policy(&text);
    let line = text.lines().position(|line| line.contains("foo")).unwrap() + 1;
    let words = format!("line {line}, column 20: a carriage return without a newline behind it");
    for (arguments, code) in [
        (&["tailnet", "check"][..], 3),
        (&["tailnet", "doctor"], 3),
        (&["tailnet", "apply", "cust_c", "--yes"], 3),
        (&["tailnet", "apply", "--remove", "cust_acme", "--yes"], 3),
        (&["onboard", "cust_c", "--yes"], 3),
    ] {
        let ended = surroundings.m8trx(arguments);
        ended.assert_code(code);
        assert!(ended.stderr.contains(&words), "{arguments:?}: {ended:?}");
    }
    assert_eq!(console.policy(), text);
}

#[test]
fn keys_and_the_policy_file_have_clients_of_their_own() {
    let sandbox = RunningSandbox::up();
    let mut surroundings = Surroundings::of(&sandbox);
    let console = Console::of(&sandbox);
    let client = |surroundings: &mut Surroundings, prefix: &str, scopes: &[&str]| {
        let (id, secret) = console.make_client(scopes);
        let file = surroundings.file(&id, &secret);
        surroundings.set(&format!("{prefix}_ID"), id);
        surroundings.set(&format!("{prefix}_SECRET_FILE"), file.to_str().unwrap());
    };
    client(
        &mut surroundings,
        "M8TRX_TAILSCALE_CLIENT",
        &["auth_keys", "devices:core"],
    );
    let ended = surroundings.m8trx(&["tailnet", "check"]);
    ended.assert_code(4);
    assert!(ended.stderr.contains("`policy_file:read`"), "{ended:?}");
    client(
        &mut surroundings,
        "M8TRX_TAILSCALE_POLICY_CLIENT",
        &["policy_file"],
    );
    surroundings.m8trx(&["tailnet", "check"]).assert_code(0);
    let onboarded = surroundings.m8trx(&["onboard", "cust_acme", "--yes"]);
    onboarded.assert_code(0);
    assert_eq!(
        onboarded
            .stderr
            .matches("Tailscale takes the OAuth client")
            .count(),
        2,
        "{onboarded:?}"
    );
    surroundings.m8trx(&["tailnet", "doctor"]).assert_code(0);
    surroundings
        .m8trx(&["offboard", "cust_acme", "--yes", "--confirm", "cust_acme"])
        .assert_code(0);
    surroundings.set("M8TRX_TAILSCALE_CLIENT_ID", "");
    surroundings.set("M8TRX_TAILSCALE_CLIENT_SECRET_FILE", "");
    let ended = surroundings.m8trx(&["tailnet", "check"]);
    ended.assert_code(3);
    assert!(
        ended
            .stderr
            .contains("[tailscale.policy]: it is for the policy file alone"),
        "{ended:?}"
    );
}

#[test]
fn only_admins_may_call_a_device_the_brain_or_the_team() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let console = Console::of(&sandbox);
    let first = console.policy();
    let brain = "\"tag:m8trx-brain\":    [\"autogroup:admin\"]";
    assert!(first.contains(brain), "{first}");
    let old = "\"tag:m8trx-brain\":    [\"autogroup:admin\", \"tag:m8trx-operator\"]";
    console.set_policy(&first.replace(brain, old));
    let ended = surroundings.m8trx(&["tailnet", "check"]);
    ended.assert_code(3);
    assert!(
        ended.stdout.contains(
            "tag:m8trx-operator (that is autogroup:admin) may give a device tag:m8trx-brain, and with it the brain's place, to which every customer's host sends its key; only admins may"
        ),
        "{ended:?}"
    );
    // Earlier versions made it so; the next change puts it right.
    surroundings
        .m8trx(&["tailnet", "apply", "cust_acme", "--yes"])
        .assert_code(0);
    assert!(console.policy().contains(brain), "{}", console.policy());
    surroundings.m8trx(&["tailnet", "check"]).assert_code(0);
    let team = "\"tag:m8trx-team\":     [";
    console.set_policy(&first.replace(team, &format!("{team}\"group:oncall\", ")));
    let ended = surroundings.m8trx(&["tailnet", "check"]);
    ended.assert_code(3);
    assert!(
        ended.stdout.contains("group:oncall (that is operator@m8trx.example) may give a device tag:m8trx-team, and with it a way into every customer's host as root"),
        "{ended:?}"
    );
}

#[test]
fn what_stands_between_and_what_is_only_a_warning() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let console = Console::of(&sandbox);
    let apply = |customer: &str| surroundings.m8trx(&["tailnet", "apply", customer, "--yes"]);
    console.conduct(json!({"unsynced_groups": ["group:ops@x.example"]}));
    let ended = apply("cust_a");
    ended.assert_code(0);
    assert!(
        ended.stderr.contains("Tailscale warns of the policy file: warning(s) found; group:ops@x.example: group is not syncing from SCIM"),
        "{ended:?}"
    );
    surroundings
        .m8trx(&["onboard", "cust_b", "--yes"])
        .assert_code(0);
    console.conduct(json!({"weak_etags": true}));
    apply("cust_c").assert_code(0);
    let gateway = |method: &str, times: u32| {
        console.conduct(json!({"answers": [{"method": method, "path": "/acl", "how": "bad-gateway", "times": times}]}));
    };
    gateway("GET", 2);
    apply("cust_d").assert_code(0);
    gateway("GET", 99);
    let ended = apply("cust_e");
    ended.assert_code(1);
    assert!(
        ended.stderr.contains("Tailscale answers 502 when asked to read the policy file: a web page and not an answer of the API"),
        "{ended:?}"
    );
    gateway("POST", 1);
    let ended = apply("cust_e");
    ended.assert_code(1);
    assert!(ended.stderr.contains("502"), "{ended:?}");
    console.conduct(json!({}));
    assert!(!console.policy().contains("tag:m8trx-cust-e"));
}

#[test]
fn sixteen_at_once_lose_none() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let console = Console::of(&sandbox);
    let customers: Vec<String> = (1..=16).map(|n| format!("cust_at_once_{n:02}")).collect();
    let started: Vec<_> = customers
        .iter()
        .map(|customer| surroundings.start(&["tailnet", "apply", customer, "--yes"]))
        .collect();
    for started in started {
        started.end().assert_code(0);
    }
    let policy = console.policy();
    for customer in &customers {
        let tag = format!("\"tag:m8trx-{}\": [", customer.replace('_', "-"));
        assert!(policy.contains(&tag), "{tag}: {policy}");
    }
    surroundings.m8trx(&["tailnet", "check"]).assert_code(0);
}

#[test]
fn taking_out_is_not_refused_for_what_it_cannot_make_worse() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let console = Console::of(&sandbox);
    surroundings
        .m8trx(&["tailnet", "apply", "cust_acme", "cust_bigco", "--yes"])
        .assert_code(0);
    let wide = "\"grants\": [\n\t\t{\"src\": [\"autogroup:tagged\"], \"dst\": [\"autogroup:tagged\"], \"ip\": [\"tcp:443\"]},";
    console.set_policy(&console.policy().replace("\"grants\": [", wide));
    surroundings
        .m8trx(&["tailnet", "apply", "cust_c", "--yes"])
        .assert_code(3);
    let ended = surroundings.m8trx(&["tailnet", "apply", "--remove", "cust_acme", "--yes"]);
    ended.assert_code(0);
    assert!(
        ended
            .stderr
            .contains("the policy file does not isolate customers, before as after: line"),
        "{ended:?}"
    );
    assert!(!console.policy().contains("acme"));
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
