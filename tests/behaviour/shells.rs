//! What is around the commands: completions, man pages, help topics, the version, short options, usage errors for scripts.

use crate::common::{Surroundings, ended};

#[test]
fn completions_are_for_the_commands_there_are() {
    let surroundings = Surroundings::new();
    for shell in ["bash", "zsh", "fish"] {
        let printed = surroundings.m8trx(&["completions", shell]);
        let script = &printed.assert_code(0).stdout;
        for word in ["rotate-tailscale-key", "doctor", "detailed-exit-code"] {
            assert!(script.contains(word), "no {word} for {shell}");
        }
    }
    // bash itself takes it, and completes with it.
    let script = surroundings.m8trx(&["completions", "bash"]).stdout;
    let file = surroundings.file("completion", &script);
    let line = format!(
        "source {}; COMP_WORDS=(m8trx doc); COMP_CWORD=1; _m8trx m8trx doc m8trx; echo \"${{COMPREPLY[@]}}\"",
        file.display()
    );
    let completed = ended(surroundings.command("bash").args(["--norc", "-c", &line]));
    assert_eq!(completed.assert_code(0).stdout, "doctor\n", "{completed:?}");
}

#[test]
fn man_pages_are_written_for_every_command() {
    let surroundings = Surroundings::new();
    let page = surroundings.m8trx(&["man"]);
    assert!(
        page.assert_code(0).stdout.contains(".TH m8trx 1"),
        "{page:?}"
    );
    let directory = surroundings.home.path().join("man/man1");
    surroundings
        .m8trx(&["man", "--dir", directory.to_str().unwrap()])
        .assert_code(0);
    for name in ["m8trx.1", "m8trx-onboard.1", "m8trx-tailnet-apply.1"] {
        assert!(directory.join(name).is_file(), "{name}");
    }
}

#[test]
fn help_topics() {
    let surroundings = Surroundings::new();
    for topic in ["exit-codes", "config", "environment", "sandbox", "security"] {
        let shown = surroundings.m8trx(&["help", topic]);
        insta::assert_snapshot!(format!("topic_{topic}"), shown.assert_code(0).stdout);
    }
    let command = surroundings.m8trx(&["help", "tailnet", "apply"]);
    assert!(
        command
            .assert_code(0)
            .stdout
            .contains("m8trx tailnet apply"),
        "{command:?}"
    );
    let root = surroundings.m8trx(&["help"]);
    assert!(
        root.assert_code(0).stdout.contains("First steps:"),
        "{root:?}"
    );
    let unknown = surroundings.m8trx(&["help", "offbord"]);
    assert!(
        unknown.assert_code(2).stderr.contains("topics: exit-codes"),
        "{unknown:?}"
    );
}

/// Every variable that the code reads is in the page, and the page names none that it does not.
#[test]
fn every_variable_of_the_environment_is_explained() {
    let page = Surroundings::new().m8trx(&["help", "environment"]).stdout;
    let mut read = std::collections::BTreeSet::new();
    for file in crate::common::files_below(std::path::Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src"
    ))) {
        let path = file.to_string_lossy().into_owned();
        if path.contains("/sandbox/") || !path.ends_with(".rs") || path.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        for word in
            text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        {
            if word.starts_with("M8TRX_") {
                read.insert(word.to_owned());
            }
        }
    }
    // Set when a release is built, not when it runs.
    read.remove("M8TRX_COMMIT");
    assert!(read.len() > 8, "{read:?}");
    for name in read {
        assert!(
            page.contains(&name),
            "{name} is not explained by `m8trx help environment`"
        );
    }
}

#[test]
fn the_version_says_what_it_is_made_of() {
    let surroundings = Surroundings::new();
    let short = format!("m8trx {}\n", env!("CARGO_PKG_VERSION"));
    for flag in ["--version", "-V"] {
        assert_eq!(surroundings.m8trx(&[flag]).assert_code(0).stdout, short);
    }
    let long = surroundings.m8trx(&["--version", "--verbose"]);
    let script = std::process::Command::new("sha256sum")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/embedded/cloud-init/bootstrap.sh"
        ))
        .output()
        .unwrap();
    let digest = String::from_utf8(script.stdout).unwrap();
    let digest = digest.split_whitespace().next().unwrap();
    assert!(long.assert_code(0).stdout.starts_with(&short), "{long:?}");
    assert!(
        long.stdout.contains(&format!(
            "sha256 {digest}  embedded/cloud-init/bootstrap.sh"
        )),
        "{long:?}"
    );
    assert!(long.stdout.contains("commit "), "{long:?}");
    let json = surroundings.m8trx(&["--version", "--json"]).json();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn with_nothing_it_leads_somewhere() {
    let surroundings = Surroundings::new();
    let nothing = surroundings.m8trx(&[]);
    nothing.assert_code(2);
    for words in [
        "m8trx onboard cust_acme --sandbox",
        "m8trx init",
        "m8trx doctor",
    ] {
        assert!(nothing.stderr.contains(words), "{nothing:?}");
    }
    let onboard = surroundings.m8trx(&["onboard"]);
    onboard.assert_code(2);
    insta::assert_snapshot!("onboard_without_a_customer", onboard.stderr);
    let first = surroundings.m8trx(&["onboard", "cust_acme", "--yes"]);
    assert!(
        first
            .assert_code(3)
            .stderr
            .contains("m8trx onboard cust_acme --sandbox"),
        "{first:?}"
    );
}

#[test]
fn usage_errors_are_documents_for_scripts() {
    let surroundings = Surroundings::new();
    for (arguments, words) in [
        (vec!["onboard", "--output", "json"], "required"),
        (vec!["onboard", "acme", "-o", "json"], "customer id"),
        (vec!["--json", "offbord"], "unrecognized subcommand"),
        (vec!["--json"], "command"),
        (
            vec!["status", "--output=json", "--nope"],
            "unexpected argument",
        ),
    ] {
        let refused = surroundings.m8trx(&arguments);
        let document = refused.assert_code(2).json();
        assert_eq!(
            (&document["schema"], &document["exit_code"]),
            (&"m8trx.error/1".into(), &2.into())
        );
        let error = document["error"].as_str().unwrap();
        assert!(error.contains(words), "{refused:?}");
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
    // Without it, stdout stays empty.
    assert_eq!(surroundings.m8trx(&["offbord"]).assert_code(2).stdout, "");
}

#[test]
fn quiet_leaves_the_result_and_errors() {
    let sandbox = crate::common::RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let loud = surroundings.m8trx(&["iam", "apply", "cust_acme", "--dry-run"]);
    assert!(
        loud.assert_code(0).stderr.contains("AWS account"),
        "{loud:?}"
    );
    let quiet = surroundings.m8trx(&["-q", "iam", "apply", "cust_acme", "--dry-run"]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""));
    assert_eq!(quiet.stdout, loud.stdout);
    let error = surroundings.m8trx(&["--quiet", "wait", "cust_acme"]);
    assert!(
        error.code != 0 && error.stderr.starts_with("error: "),
        "{error:?}"
    );
}
