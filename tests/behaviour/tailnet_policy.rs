//! `m8trx tailnet policy` and `m8trx tailnet check`: a file that isolates customers, and proof of what a file does.

use std::io::Write as _;
use std::process::Stdio;

use crate::common::{Ended, M8TRX, RunningSandbox, Surroundings, ended};
use crate::tailnet::Console;

fn policy(surroundings: &Surroundings, customers: &[&str]) -> String {
    let mut arguments = vec!["tailnet", "policy"];
    arguments.extend(customers);
    surroundings.m8trx(&arguments).assert_code(0).stdout.clone()
}

fn check_stdin(surroundings: &Surroundings, text: &[u8], more: &[&str]) -> Ended {
    let mut child = surroundings
        .command(M8TRX)
        .args(["tailnet", "check", "-"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // What is too large is not read to its end.
    let _ = child.stdin.take().unwrap().write_all(text);
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn a_policy_for_named_customers_needs_nothing_and_holds() {
    let surroundings = Surroundings::new();
    let text = policy(&surroundings, &["cust_b4_smoke", "cust_acme"]);
    for tag in ["tag:m8trx-cust-acme", "tag:m8trx-cust-b4-smoke"] {
        assert!(text.contains(tag), "{text}");
    }
    // Names in another order make the same file.
    assert_eq!(text, policy(&surroundings, &["cust_acme", "cust_b4_smoke"]));
    let file = surroundings.file("policy.hujson", &text);
    let ended = surroundings.m8trx(&["tailnet", "check", file.to_str().unwrap()]);
    ended.assert_code(0);
    assert!(
        ended
            .stdout
            .contains("holds: 2 customers, 2 pairs, none connected"),
        "{ended:?}"
    );
    let ended = surroundings.m8trx(&["tailnet", "policy", "acme"]);
    ended.assert_code(2);
    assert!(ended.stderr.contains("cust_"));
}

#[test]
fn without_names_the_customers_are_found() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let none = surroundings.m8trx(&["tailnet", "policy"]);
    none.assert_code(0);
    assert!(none.stderr.contains("No customer is found"), "{none:?}");
    assert!(!none.stdout.contains("tag:m8trx-cust-"));
    surroundings
        .m8trx(&["onboard", "cust_acme", "--yes"])
        .assert_code(0);
    let found = surroundings.m8trx(&["tailnet", "policy"]);
    found.assert_code(0);
    assert!(found.stderr.contains("1 customer is found"), "{found:?}");
    assert_eq!(found.stdout, policy(&surroundings, &["cust_acme"]));
}

#[test]
fn a_rule_that_opens_a_way_is_named_with_its_line() {
    let surroundings = Surroundings::new();
    let text = policy(&surroundings, &["cust_acme", "cust_bigco"]);
    let rule = "    {\"src\": [\"autogroup:tagged\"], \"dst\": [\"tag:m8trx-cust-bigco\"], \"ip\": [\"tcp:443\"]},\n";
    let opened = text.replacen("  \"grants\": [\n", &format!("  \"grants\": [\n{rule}"), 1);
    let line = opened
        .lines()
        .position(|line| line == rule.trim_end())
        .unwrap()
        + 1;

    let ended = check_stdin(&surroundings, opened.as_bytes(), &[]);
    ended.assert_code(3);
    let expected = format!(
        "violation: standard input:{line}:5: grants[0]: tag:m8trx-cust-acme reaches tag:m8trx-cust-bigco by tcp:443"
    );
    assert!(ended.stdout.contains(&expected), "{ended:?}");
    assert!(
        ended.stderr.contains("does not isolate customers"),
        "{ended:?}"
    );

    let ended = check_stdin(&surroundings, opened.as_bytes(), &["--output", "json"]);
    ended.assert_code(3);
    let document = ended.json();
    assert_eq!(document["schema"], "m8trx.tailnet-check/1");
    assert_eq!(document["holds"], false);
    let violation = &document["violations"][0];
    assert_eq!(violation["kind"], "customers-connected");
    assert_eq!(violation["line"], line);
    assert_eq!(violation["source"], "tag:m8trx-cust-acme");
    assert_eq!(violation["destination"], "tag:m8trx-cust-bigco");
    assert_eq!(violation["port"], "tcp:443");

    let ended = check_stdin(&surroundings, text.as_bytes(), &["--output", "json"]);
    ended.assert_code(0);
    let document = ended.json();
    assert_eq!(document["holds"], true);
    assert_eq!(document["customers"], 2);
    assert_eq!(document["violations"].as_array().unwrap().len(), 0);
}

#[test]
fn nothing_in_a_file_moves_the_terminal() {
    let surroundings = Surroundings::new();
    let text = "{\"grants\": [{\"src\": [\"tag:m8trx-cust-a\\u001b[2J\"], \"dst\": [\"tag:m8trx-cust-\u{202e}b\"], \"ip\": [\"*\"]}]}";
    let ended = check_stdin(&surroundings, text.as_bytes(), &[]);
    ended.assert_code(3);
    let shown = format!("{}{}", ended.stdout, ended.stderr);
    assert!(shown.contains("reaches tag:m8trx-cust-"), "{shown}");
    assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown:?}");
}

#[test]
fn files_that_cannot_be_read() {
    let surroundings = Surroundings::new();
    let deep = format!("{{\"grants\": {}", "[".repeat(200_000));
    let large = vec![b' '; 17 * 1024 * 1024];
    for (text, words) in [
        (&b"{\n  \"grants\": [,]\n}"[..], "line 2, column 14"),
        (
            b"{\"acls\": [],\n\"acls\": []}",
            "acls is there a second time; the first is at line 1, column 2",
        ),
        (deep.as_bytes(), "512 levels"),
        (&large, "bytes"),
        (b"<html><body>Sign in</body></html>", "line 1, column 1"),
        (b"{\"grants\": \"\xff\"}", "not UTF-8"),
        (b"", "empty"),
    ] {
        let ended = check_stdin(&surroundings, text, &[]);
        ended.assert_code(3);
        assert!(ended.stderr.contains(words), "{words}: {ended:?}");
        assert_eq!(ended.stdout, "");
    }
    let ended = surroundings.m8trx(&["tailnet", "check", "/nonexistent/policy"]);
    ended.assert_code(3);
    assert!(ended.stderr.contains("/nonexistent/policy"), "{ended:?}");
    let directory = surroundings.home.path().to_str().unwrap().to_owned();
    let ended = ended_of(&surroundings, &directory);
    ended.assert_code(3);
}

fn ended_of(surroundings: &Surroundings, file: &str) -> Ended {
    ended(surroundings.command(M8TRX).args(["tailnet", "check", file]))
}

#[test]
fn a_large_file_is_no_danger() {
    let surroundings = Surroundings::new();
    let text = policy(&surroundings, &["cust_acme", "cust_bigco"]);
    let line =
        "  // 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789\n";
    let large = text.replacen("{\n", &format!("{{\n{}", line.repeat(62_000)), 1);
    assert!(large.len() > 5_000_000);
    check_stdin(&surroundings, large.as_bytes(), &[]).assert_code(0);
}

#[test]
fn the_brains_port_is_that_of_its_url() {
    let mut surroundings = Surroundings::new();
    let usual = surroundings.m8trx(&["tailnet", "policy", "cust_acme"]);
    assert!(usual.stdout.contains("\"tcp:8080\""), "{usual:?}");
    assert!(
        usual.stderr.contains("its port is taken to be 8080"),
        "{usual:?}"
    );
    surroundings.set("M8TRX_BRAIN_URL", "https://brain.tail1234.ts.net");
    let text = policy(&surroundings, &["cust_acme"]);
    assert!(
        text.contains("\"tcp:443\"") && text.contains("tag:m8trx-brain:443"),
        "{text}"
    );
    assert!(!text.contains("8080"), "{text}");
    check_stdin(&surroundings, text.as_bytes(), &[]).assert_code(0);
    let ended = check_stdin(&surroundings, usual.stdout.as_bytes(), &[]);
    ended.assert_code(3);
    assert!(
        ended
            .stdout
            .contains("no rule lets tag:m8trx-cust-acme reach tag:m8trx-brain by tcp:443"),
        "{ended:?}"
    );
    assert!(
        ended
            .stderr
            .contains("isolates customers, but does not let them reach what they must")
            && ended.stderr.contains("m8trx tailnet apply cust_acme"),
        "{ended:?}"
    );
}

/// The port of the stored URL counts, in the plan, in the file and in its checks.
#[test]
fn a_brain_that_moved_to_another_port_is_reached_again_by_the_next_change() {
    let sandbox = RunningSandbox::up();
    let mut surroundings = Surroundings::of(&sandbox);
    let console = Console::of(&sandbox);
    surroundings
        .m8trx(&["onboard", "cust_acme", "--yes"])
        .assert_code(0);
    let port = sandbox.environment["M8TRX_BRAIN_URL"]
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    assert!(
        console.policy().contains(&format!("tcp:{port}")),
        "{}",
        console.policy()
    );
    // Whatever this machine believes: what hosts are given counts.
    surroundings.set("M8TRX_BRAIN_URL", "http://brain:9");
    for arguments in [
        &["tailnet", "check"][..],
        &["tailnet", "doctor"],
        &["tailnet", "apply", "cust_acme", "--dry-run"],
    ] {
        let ended = surroundings.m8trx(arguments);
        ended.assert_code(0);
        assert!(!ended.stdout.contains("tcp:9"), "{ended:?}");
    }
    // Without AWS, what it is told.
    surroundings.set("AWS_SECRET_ACCESS_KEY", "wrong");
    let ended = surroundings.m8trx(&["tailnet", "check"]);
    ended.assert_code(3);
    assert!(ended.stdout.contains("by tcp:9"), "{ended:?}");
    surroundings
        .m8trx(&["tailnet", "apply", "cust_acme", "--yes"])
        .assert_code(0);
    let moved = console.policy();
    assert!(
        moved.contains("\"tcp:9\"")
            && moved.contains(&format!("tcp:{port}"))
            && moved.contains("tag:m8trx-brain:9\""),
        "{moved}"
    );
    let ended = surroundings.m8trx(&["tailnet", "check"]);
    ended.assert_code(0);
    assert!(
        ended
            .stdout
            .contains("reaches more of tag:m8trx-brain than tcp:9"),
        "{ended:?}"
    );
}
