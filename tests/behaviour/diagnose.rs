//! Why a host does not report: told by `onboard`, `smoke` and `diagnose` alike.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::common::{Ended, M8TRX, RunningSandbox, Surroundings};
use crate::tailnet::Console;

const CONSOLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/consoles");

fn assert_diagnosed(ended: &Ended, code: i32, step: &str, cause: &str) -> Value {
    ended.assert_code(code);
    let document = ended.json();
    assert_eq!(document["schema"], "m8trx.diagnosis/1");
    assert_eq!(document["step"], step);
    assert_eq!(document["cause"], cause);
    assert_eq!(document["exit_code"], code);
    for list in ["evidence", "remedy"] {
        assert!(
            !document[list].as_array().unwrap().is_empty(),
            "{document:#}"
        );
    }
    document
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap())
        .collect()
}

#[test]
fn onboard_tells_why_a_host_failed_and_diagnose_tells_it_again() {
    let sandbox = RunningSandbox::up_with(&["--fault", "tailscale-key-rejected"]);
    let surroundings = Surroundings::of(&sandbox);
    let failed = surroundings.m8trx(&["onboard", "cust_acme", "--yes", "--output", "json"]);
    let told = assert_diagnosed(&failed, 5, "tailscale", "tailscale-key-spent");
    let id = told["instance_id"].as_str().unwrap();
    assert_eq!(told["customer"], "cust_acme");
    let remedy = texts(&told["remedy"]);
    for command in [
        format!("aws ssm start-session --target {id} --region us-east-1"),
        format!("aws ec2 terminate-instances --instance-ids {id} --region us-east-1"),
        "m8trx onboard cust_acme".to_owned(),
    ] {
        assert!(remedy.contains(&command.as_str()), "{command}: {remedy:#?}");
    }
    assert_eq!(sandbox.count("TerminateInstances"), 0, "the host is kept");

    let changes = sandbox.changes();
    for subject in ["cust_acme", id] {
        let again = surroundings.m8trx(&["diagnose", subject, "--output", "json"]);
        let again = assert_diagnosed(&again, 5, "tailscale", "tailscale-key-spent");
        for field in ["instance_id", "what", "evidence", "remedy"] {
            assert_eq!(again[field], told[field], "{subject}");
        }
    }
    assert_eq!(sandbox.changes(), changes, "looking changes nothing");

    // For people: the sentence, the lines, the commands on lines of their own.
    let shown = surroundings.m8trx(&["diagnose", "cust_acme"]);
    shown.assert_code(5);
    assert_eq!(shown.stdout, "");
    for line in [
        "cause: tailscale-key-spent",
        "  | m8trx-bootstrap: FAILED step=3 name=tailscale ",
        "      aws ssm start-session --target i-",
    ] {
        assert!(
            shown.stderr.lines().any(|l| l.starts_with(line)),
            "no {line:?} in {}",
            shown.stderr
        );
    }
}

#[test]
fn a_healthy_host_is_called_so() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let none = surroundings.m8trx(&["diagnose", "cust_acme"]);
    none.assert_code(3);
    assert!(none.stderr.contains("cust_acme has no host"), "{none:?}");
    let unknown = surroundings.m8trx(&["diagnose", "i-0123456789abcdef0"]);
    unknown.assert_code(3);
    surroundings
        .m8trx(&["onboard", "cust_acme", "--yes"])
        .assert_code(0);
    let healthy = surroundings.m8trx(&["diagnose", "cust_acme", "--output", "json"]);
    let healthy = healthy.assert_code(0).json();
    assert_eq!(healthy["schema"], "m8trx.diagnosis/1");
    assert_eq!(healthy["verdict"], "healthy");
    assert!(healthy["cause"].is_null(), "{healthy:#}");
    let shown = surroundings.m8trx(&["diagnose", "cust_acme"]);
    assert!(
        shown
            .assert_code(0)
            .stdout
            .contains("is healthy: it sent a heartbeat at")
    );
}

#[test]
fn a_host_whose_beats_the_brain_loses() {
    let sandbox = RunningSandbox::up_with(&["--fault", "no-heartbeat"]);
    let surroundings = Surroundings::of(&sandbox);
    let lost = [
        "onboard",
        "cust_acme",
        "--yes",
        "--output",
        "json",
        "--timeout",
        "8s",
    ];
    let lost = surroundings.m8trx(&lost);
    let told = assert_diagnosed(&lost, 6, "first-heartbeat", "no-heartbeat");
    let id = told["instance_id"].as_str().unwrap();
    let remedy = texts(&told["remedy"]);
    let node = format!("tailscale ssh root@acme-{id}");
    assert!(remedy.contains(&node.as_str()), "{remedy:#?}");
    let again = surroundings.m8trx(&["diagnose", id, "--output", "json"]);
    let again = assert_diagnosed(&again, 5, "first-heartbeat", "no-heartbeat");
    // EC2 and the tailnet are asked as well.
    let evidence = texts(&again["evidence"]).join("\n");
    assert!(
        evidence.contains(&format!(
            "the tailnet is connected with its device acme-{id}"
        )),
        "{evidence}"
    );
}

#[test]
fn a_launch_that_aws_refuses_keeps_its_exit_code() {
    let surroundings = Surroundings::new();
    let refused = [
        "onboard",
        "cust_acme",
        "--sandbox",
        "--fault",
        "capacity",
        "--yes",
        "--output",
        "json",
    ];
    let told = assert_diagnosed(&surroundings.m8trx(&refused), 4, "launch", "capacity");
    assert!(told["instance_id"].is_null());
    let evidence = texts(&told["evidence"]);
    assert!(
        evidence[0].contains("InsufficientInstanceCapacity"),
        "{evidence:?}"
    );
}

#[test]
fn scripts_can_have_the_failed_host_ended() {
    let sandbox = RunningSandbox::up_with(&["--fault", "customer-tag-missing"]);
    let surroundings = Surroundings::of(&sandbox);
    let onboard = ["onboard", "cust_acme", "--yes", "--output", "json"];
    let kept = surroundings.m8trx(&onboard);
    let kept = assert_diagnosed(&kept, 5, "identity", "customer-tag-missing");
    assert_eq!(sandbox.count("TerminateInstances"), 0);

    // It ends only what it has launched itself.
    let flagged = [&onboard[..], &["--terminate-on-failure"]].concat();
    let other = surroundings.m8trx(&flagged);
    let other = assert_diagnosed(&other, 5, "identity", "customer-tag-missing");
    assert_eq!(other["instance_id"], kept["instance_id"]);
    assert_eq!(sandbox.count("TerminateInstances"), 0);
    assert!(
        other["hint"].as_str().unwrap().contains("is kept"),
        "{other:#}"
    );
    let id = kept["instance_id"].as_str().unwrap().to_owned();

    let fresh = [&flagged[..1], &["cust_fresh"], &flagged[2..]].concat();
    let ended = surroundings.m8trx(&fresh);
    let ended = assert_diagnosed(&ended, 5, "identity", "customer-tag-missing");
    assert_eq!(sandbox.count("TerminateInstances"), 1);
    assert_ne!(ended["instance_id"].as_str().unwrap(), id);
    let remedy = texts(&ended["remedy"]).join("\n");
    assert!(!remedy.contains("start-session"), "{remedy}");
    // What has ended can still be diagnosed, and there is nothing left to reach.
    let gone = surroundings.m8trx(&["diagnose", "cust_fresh", "--output", "json"]);
    let gone = assert_diagnosed(&gone, 5, "identity", "customer-tag-missing");
    let remedy = texts(&gone["remedy"]).join("\n");
    assert!(!remedy.contains("start-session"), "{remedy}");
    // The next run launches another, whose failure ends it again.
    let second = surroundings.m8trx(&fresh);
    let second = assert_diagnosed(&second, 5, "identity", "customer-tag-missing");
    assert_ne!(second["instance_id"], ended["instance_id"]);
    assert_eq!(sandbox.count("TerminateInstances"), 2);
}

#[test]
fn smoke_diagnoses_and_its_report_shows_it() {
    let surroundings = Surroundings::new();
    let report = surroundings.home.path().join("report.html");
    let failed = surroundings.m8trx(&[
        "smoke",
        "--sandbox",
        "--fault",
        "brain-unreachable",
        "--output",
        "json",
        "--report",
        report.to_str().unwrap(),
    ]);
    let told = assert_diagnosed(&failed, 5, "heartbeat", "brain-unreachable");
    let remedy = texts(&told["remedy"]).join("\n");
    assert!(!remedy.contains("start-session"), "it is removed: {remedy}");
    let hint = told["hint"].as_str().unwrap();
    assert!(
        hint.contains("removed again") && hint.contains("m8trx smoke --keep"),
        "{hint}"
    );
    let page = std::fs::read_to_string(report).unwrap();
    for text in [
        "brain-unreachable",
        "no connection to the brain at",
        "What to do",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
}

#[test]
fn a_host_that_is_still_trying_is_told_while_it_does() {
    // Here the pauses pass at once, so what it is trying is told once at most; in the end it is the cause.
    let surroundings = Surroundings::new();
    let failed = surroundings.m8trx(&[
        "onboard",
        "cust_acme",
        "--sandbox",
        "--fault",
        "iam-denied",
        "--yes",
    ]);
    failed.assert_code(5);
    assert!(
        failed
            .stderr
            .contains("it is still trying: the host's role may not read /m8trx/"),
        "{}",
        failed.stderr
    );
    assert!(
        failed.stderr.contains("cause: iam-denied"),
        "{}",
        failed.stderr
    );
}

#[test]
fn a_saved_console_is_diagnosed_without_aws() {
    let surroundings = Surroundings::new();
    for (log, step, cause) in [
        ("mirror-down", "packages", "mirror-down"),
        ("tailnet-lock", "tailscale", "tailnet-lock"),
        ("capacity", "launch", "capacity"),
    ] {
        let file = format!("{CONSOLES}/{log}.log");
        let ended = surroundings.m8trx(&["diagnose", "--console", &file, "--output", "json"]);
        assert_diagnosed(&ended, 5, step, cause);
    }
    let missing = surroundings.m8trx(&["diagnose", "--console", "no-such-file"]);
    missing.assert_code(3);
    assert!(missing.stderr.contains("no-such-file"), "{missing:?}");
    surroundings.m8trx(&["diagnose"]).assert_code(2);
    surroundings.m8trx(&["diagnose", "acme"]).assert_code(2);
}

#[test]
fn standard_input_is_read_whatever_it_holds() {
    let surroundings = Surroundings::new();
    let diagnose = |bytes: &[u8]| {
        let mut child = surroundings
            .command(M8TRX)
            .args([
                "diagnose",
                "cust_acme",
                "--console",
                "-",
                "--output",
                "json",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        Ended {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    };
    let console = std::fs::read(format!("{CONSOLES}/parameter-malformed.log")).unwrap();
    let told = assert_diagnosed(&diagnose(&console), 5, "parameters", "parameter-malformed");
    assert_eq!(told["customer"], "cust_acme");
    assert_diagnosed(&diagnose(b""), 5, "console", "no-console");
    let noise: Vec<u8> = (0..200_000_u32).map(|n| (n * 7919 % 251) as u8).collect();
    assert_diagnosed(&diagnose(&noise), 5, "console", "not-a-console");
    let fine =
        diagnose(b"m8trx-bootstrap: step 7/7 heartbeat\nm8trx-bootstrap: complete for cust_acme\n");
    assert_eq!(fine.assert_code(0).json()["verdict"], "healthy");
}

/// `tailscale up` says the same of an expired key and of one that is used up, and the same of a wrong tag and of a policy
/// file without it.
#[test]
fn what_the_host_cannot_tell_apart_tailscales_api_does() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let console = Console::of(&sandbox);
    let mut without_api = Surroundings::of(&sandbox);
    without_api
        .set("M8TRX_TAILSCALE_CLIENT_ID", "")
        .set("M8TRX_TAILSCALE_CLIENT_SECRET_FILE", "");
    let customers = ["cust_first", "cust_second", "cust_acme"];
    surroundings
        .m8trx(&[&["tailnet", "apply", "--yes"][..], &customers].concat())
        .assert_code(0);
    let once = console.make_key(&serde_json::json!({
        "tags": ["tag:m8trx-cust-first", "tag:m8trx-cust-second"], "reusable": false
    }));
    let other = console.make_key(&serde_json::json!({"tags": ["tag:m8trx-cust-bigco"]}));
    let onboard = |customer: &str, key: &str| {
        let file = without_api.file("key", key);
        let file = file.to_str().unwrap();
        without_api.m8trx(&[
            "onboard",
            customer,
            "--yes",
            "--output",
            "json",
            "--tailscale-key-file",
            file,
        ])
    };
    let diagnose = |customer: &str| surroundings.m8trx(&["diagnose", customer, "--output", "json"]);

    onboard("cust_first", &once).assert_code(0);
    let spent = onboard("cust_second", &once);
    assert_diagnosed(&spent, 5, "tailscale", "tailscale-key-spent");
    let told = assert_diagnosed(
        &diagnose("cust_second"),
        5,
        "tailscale",
        "tailscale-key-used-up",
    );
    let remedy = texts(&told["remedy"]);
    assert!(
        remedy.contains(&"m8trx rotate-tailscale-key cust_second"),
        "{remedy:#?}"
    );

    let refused = onboard("cust_acme", &other);
    assert_diagnosed(&refused, 5, "tailscale", "tailscale-tag-refused");
    let told = assert_diagnosed(
        &diagnose("cust_acme"),
        5,
        "tailscale",
        "tailscale-key-wrong-tag",
    );
    assert!(
        told["what"]
            .as_str()
            .unwrap()
            .contains("tag:m8trx-cust-bigco"),
        "{told:#}"
    );
}
