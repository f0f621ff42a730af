//! Whole outputs as they are: plans, errors with causes and hints, results for people and for scripts, and the help of
//! every command.

use std::fmt::Write as _;

use clap::CommandFactory as _;

use crate::common::{RunningSandbox, Surroundings, until_complete};

/// What differs from run to run, replaced by something of the same length.
pub const FILTERS: &[(&str, &str)] = &[
    // Both may go over the end of a row.
    (r"\bi-(?:[0-9a-f]\n?){16}[0-9a-f]\b", "i-0123456789abcdef0"),
    (
        r"/tmp/\.tmp\w{6}/\.local/state/m8trx/runs/\d[^ ]*?h\n?u\n?j\n?s\n?o\n?n",
        "/tmp/.tmpHOME00/.local/state/m8trx/runs/20260102T030405.000000-99-policy.hujson",
    ),
    (
        r"\b(ami|sg|vpc|subnet)-[0-9a-f]{17}\b",
        "$1-0123456789abcdef0",
    ),
    (r"\bk[0-9A-Za-z]{10}CNTRL\b", "k0123456789CNTRL"),
    (r"\bn[0-9A-Za-z]{12}CNTRL\b", "n012345678901CNTRL"),
    (r"\bkey_[0-9a-f]{16}\b", "key_0123456789abcdef"),
    (r"127\.0\.0\.1:\d{5}\b", "127.0.0.1:40000"),
    (r"\bip-172-31-\d+-\d+\b", "ip-172-31-0-10"),
    (r"\b100\.64\.\d+\.\d+\b", "100.64.0.2"),
    (
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
        "2026-01-02T03:04:05Z",
    ),
    (
        r"\d{8}T\d{6}\.\d{6}-\d+-policy",
        "20260102T030405.000000-99-policy",
    ),
    (r"/tmp/\.tmp\w{6}/", "/tmp/.tmpHOME00/"),
    (r"\((\d+ ms|\d+(\.\d+)? s)\)", "(N ms)"),
    (r"\b\d+ s ago", "N s ago"),
    (r"after \d+(\.\d+)? m?s\b", "after N s"),
    (
        r"request [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        "request 01234567-89ab-cdef-0123-456789abcdef",
    ),
    (r"\bline=\d+", "line=1"),
    (
        r#""scripts": "[0-9a-f]{12}""#,
        r#""scripts": "0123456789ab""#,
    ),
    (
        r"/tmp/m8trx-sandbox-[0-9a-f]{16}",
        "/tmp/m8trx-sandbox-0123456789abcdef",
    ),
    (r"uptime_s=\d+", "uptime_s=0"),
    (r"key=[0-9a-f]{8}\b", "key=01234567"),
    (r#""(\w+_s|\w+_ms)": \d+"#, r#""$1": 0"#),
    (r"(stored|STORED) .{0,3}(just now|N s ago)", "$1 just now"),
    (r"Z, (just now|N s ago)", "Z, just now"),
];

/// A command and everything it printed.
pub struct Transcript<'s> {
    surroundings: &'s Surroundings,
    text: String,
}

impl<'s> Transcript<'s> {
    fn of(surroundings: &'s Surroundings) -> Self {
        Self {
            surroundings,
            text: String::new(),
        }
    }

    fn run(&mut self, arguments: &[&str]) {
        let ended = self.surroundings.m8trx(arguments);
        let mut stdout = ended.stdout.trim_end().to_owned();
        if let Ok(document) = serde_json::from_str::<serde_json::Value>(&stdout) {
            stdout = serde_json::to_string_pretty(&document).unwrap();
        }
        let text = &mut self.text;
        let _ = writeln!(text, "$ m8trx {}", shell_words::join(arguments));
        for (name, output) in [("stderr", ended.stderr.trim_end()), ("stdout", &stdout)] {
            if !output.is_empty() {
                let _ = writeln!(text, "--- {name}\n{output}");
            }
        }
        let _ = writeln!(text, "--- exit code {}\n", ended.code);
    }

    fn assert(&self, name: &str) {
        insta::with_settings!({filters => FILTERS.to_vec(), omit_expression => true}, {
            insta::assert_snapshot!(name, self.text);
        });
    }
}

/// Steps that run at the same time end in any order, so the run itself is not here: a terminal shows it in the plan's.
#[test]
fn onboarding_and_its_documents() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let mut transcript = Transcript::of(&surroundings);
    transcript.run(&["onboard", "cust_acme", "--dry-run"]);
    transcript.run(&["onboard", "cust_acme", "--dry-run", "--output", "json"]);
    surroundings
        .m8trx(&["onboard", "cust_acme", "--yes"])
        .assert_code(0);
    until_complete(&surroundings, "cust_acme");
    for command in [
        &["onboard", "cust_acme", "--yes"][..],
        &["onboard", "cust_acme", "--yes", "--output", "json"],
        &["wait", "cust_acme", "--output", "json"],
        &["params", "show", "cust_acme/brain-key"],
        &["params", "show", "cust_acme/brain-key", "--output", "json"],
        &["iam", "diff", "cust_acme"],
        &["iam", "show", "cust_acme", "--output", "json"],
        &["launch", "cust_acme", "--yes"],
        &["mint-key", "cust_acme", "--store", "--yes"],
        &["brain-url", "get", "--hosts"],
        &["tailnet", "devices", "--output", "json"],
        &["tailnet", "check"],
        &["tailnet", "doctor"],
        &["rotate-tailscale-key", "cust_acme", "--yes"],
        &[
            "rotate-tailscale-key",
            "cust_acme",
            "--dry-run",
            "--output",
            "json",
        ],
        &["offboard", "cust_acme", "--dry-run"],
        &["offboard", "cust_acme", "--dry-run", "--output", "json"],
        &["status", "cust_acme", "--output", "json"],
    ] {
        transcript.run(command);
    }
    transcript.assert("documents");
}

#[test]
fn errors_with_causes_and_hints() {
    let sandbox = RunningSandbox::up();
    let mut surroundings = Surroundings::of(&sandbox);
    let mut transcript = Transcript::of(&surroundings);
    for command in [
        &["onboard"][..],
        &["onboard", "acme", "--yes"],
        &["onboard", "cust_acme"],
        &["onboard", "cust_acme", "--yes", "--timeout", "soon"],
        &[
            "onboard",
            "cust_acme",
            "--yes",
            "--brain-url",
            "ftp://brain",
        ],
        &["wait", "cust_acme"],
        &["launch", "cust_acme", "--yes"],
        &["events", "cust_acme"],
        &["params", "show", "cust_acme/brain-key", "--output", "json"],
        &["offboard", "cust_acme", "--yes"],
        &["rotate-brain-key", "cust_acme", "--yes"],
        &["brain-url", "set", "http://127.0.0.1:1", "--yes"],
        &["status", "--profile", "nobody", "--region", "us-east-1"],
    ] {
        transcript.run(command);
    }
    let text = transcript.text;
    surroundings.set("AWS_SECRET_ACCESS_KEY", "wrong");
    let mut transcript = Transcript {
        surroundings: &surroundings,
        text,
    };
    transcript.run(&["status"]);
    transcript.run(&["status", "--output", "json"]);
    transcript.assert("errors");
}

/// A host that fails: the whole of what its operator reads, and the document.
#[test]
fn a_failed_boot_is_explained() {
    let sandbox = RunningSandbox::up_with(&["--fault", "apt-failed"]);
    let surroundings = Surroundings::of(&sandbox);
    surroundings
        .m8trx(&["onboard", "cust_acme", "--yes"])
        .assert_code(5);
    let mut transcript = Transcript::of(&surroundings);
    transcript.run(&["wait", "cust_acme"]);
    transcript.run(&["wait", "cust_acme", "--output", "json"]);
    transcript.run(&["diagnose", "cust_acme"]);
    transcript.assert("failed_boot");
}

/// A host writes what it likes into its heartbeats, under its own key.
#[test]
fn a_hosts_own_words_do_not_reach_the_terminal() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let onboarded = surroundings.m8trx(&["onboard", "cust_acme", "--yes", "--output", "json"]);
    let id = onboarded.assert_code(0).json()["instance_id"].clone();
    let key = surroundings.m8trx(&[
        "params",
        "show",
        "cust_acme/brain-key",
        "--reveal",
        "--yes",
        "--output",
        "json",
    ]);
    let key = key.json()["value"].as_str().unwrap().to_owned();
    let evil = "\u{1b}]0;pwned\u{7}\u{1b}[2J\u{9b}31m\r\nerror: FAKE LINE\u{202e}\u{2066}";
    let event = serde_json::json!({
        "event_type": "heartbeat",
        "ts": jiff::Timestamp::now().to_string(),
        "payload": { "hostname": evil, "instance_id": id },
    });
    sandbox.brain("POST", "/v1/events", Some(&key), Some(&event));
    let mut was_shown = false;
    for command in [
        &["onboard", "cust_acme", "--yes"][..],
        &["wait", "cust_acme"],
        &["status", "cust_acme"],
        &["events", "cust_acme"],
        &["tailnet", "devices", "cust_acme"],
        &["diagnose", "cust_acme"],
        &["onboard", "cust_acme", "--yes", "--output", "json"],
        &["status", "cust_acme", "--output", "json"],
    ] {
        let ended = surroundings.m8trx(command);
        for text in [&ended.stdout, &ended.stderr] {
            let passes = |c: char| c == '\n' || !(c.is_control() || "\u{202e}\u{2066}".contains(c));
            assert!(text.chars().all(passes), "{command:?}: {text:?}");
            assert!(
                !text.lines().any(|line| line.starts_with("error: FAKE")),
                "{text}"
            );
            was_shown |= text.contains("FAKE LINE");
        }
        if command.contains(&"json") {
            ended.json();
        }
    }
    assert!(was_shown, "no command has shown the name at all");
}

/// The brain is not there: every command that needs it ends in the same way.
#[test]
fn the_same_fault_has_the_same_exit_code_everywhere() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    surroundings
        .m8trx(&["onboard", "cust_acme", "--yes"])
        .assert_code(0);
    let nobody = surroundings.file("url", "http://127.0.0.1:1");
    let nobody = nobody.to_str().unwrap();
    surroundings
        .m8trx(&["params", "put", "brain-url", "--file", nobody, "--yes"])
        .assert_code(0);
    for command in [
        &["onboard", "cust_acme", "--yes"][..],
        &["wait", "cust_acme"],
        &["launch", "cust_acme", "--yes"],
        &["mint-key", "cust_acme", "--store", "--yes"],
        &["rotate-brain-key", "cust_acme", "--yes"],
        &["events", "cust_acme"],
        &["brain-url", "get", "--hosts"],
        &["brain-url", "set", "http://127.0.0.1:2", "--yes"],
    ] {
        let ended = surroundings.m8trx(command);
        assert_eq!(ended.code, 3, "{command:?}: {ended:?}");
        assert!(ended.stderr.contains("does not answer"), "{ended:?}");
        assert!(ended.stderr.contains("tailscale status"), "{ended:?}");
    }
}

/// The help of every command, each with its own options; what all have in common stands once, at the top.
#[test]
fn the_complete_help() {
    let surroundings = Surroundings::new();
    let mut text = String::new();
    let root = m8trx::cli::Cli::command();
    reference(&surroundings, &root, &mut Vec::new(), &mut text);
    insta::with_settings!({omit_expression => true}, {
        insta::assert_snapshot!("help", text);
    });
}

fn reference(
    surroundings: &Surroundings,
    command: &clap::Command,
    path: &mut Vec<String>,
    text: &mut String,
) {
    let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = surroundings.m8trx(&arguments);
    let help = help.assert_code(0).stdout.clone();
    let own = match help.split_once("\nGlobal options:") {
        Some((own, _)) if !path.is_empty() => own,
        _ => &help,
    };
    let _ = writeln!(
        text,
        "$ m8trx {}\n{}\n",
        arguments.join(" "),
        own.trim_end()
    );
    for sub in command.get_subcommands() {
        if sub.is_hide_set() || sub.get_name() == "help" {
            continue;
        }
        path.push(sub.get_name().to_owned());
        reference(surroundings, sub, path, text);
        path.pop();
    }
}
