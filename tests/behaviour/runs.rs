//! `m8trx runs`: what was done, read back from the journals.

use crate::common::{RunningSandbox, Surroundings, files_below};

fn steady() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    for (found, shown) in [
        (r"\d{8}T\d{6}-\d+", "<id>"),
        (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "<time>"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:<port>"),
        (r"\d+(\.\d+)? m?s\b", "<time>"),
        (r"(just now|<time> ago)", "<ago>"),
        (r"/tmp/\.tmp\w+", "<home>"),
        (r" +<time>  ", " <time>  "),
        (r"STARTED +", "STARTED "),
        (r"<ago> +", "<ago> "),
    ] {
        settings.add_filter(found, shown);
    }
    settings
}

#[test]
fn runs_are_listed_and_shown_as_they_went() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let none = surroundings.m8trx(&["runs"]);
    steady().bind(|| insta::assert_snapshot!("none", none.assert_code(0).stdout));
    surroundings
        .m8trx(&["iam", "apply", "cust_acme", "--yes"])
        .assert_code(0);
    surroundings
        .m8trx(&["mint-key", "cust_other", "--store", "--yes"])
        .assert_code(0);
    let listed = surroundings.m8trx(&["runs"]);
    steady().bind(|| insta::assert_snapshot!("listed", listed.assert_code(0).stdout));
    let shown = surroundings.m8trx(&["runs", "show", "2"]);
    steady().bind(|| insta::assert_snapshot!("shown", shown.assert_code(0).stdout));

    let json = surroundings.m8trx(&["runs", "cust_acme", "--json"]).json();
    assert_eq!(json["schema"], "m8trx.runs/1");
    let runs = json["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1);
    assert_eq!(
        (&runs[0]["number"], &runs[0]["end"]),
        (&2.into(), &"done".into())
    );
    let id = runs[0]["id"].as_str().unwrap();
    let by_id = surroundings.m8trx(&["runs", "show", id, "--json"]).json();
    assert_eq!(
        (&by_id["schema"], &by_id["command"]),
        (&"m8trx.runs-show/1".into(), &"iam-apply".into())
    );
    assert_eq!(by_id["events"][0]["event"], "run-started");
    for unknown in ["0", "3", "2020", ""] {
        let refused = surroundings.m8trx(&["runs", "show", unknown]);
        assert!(
            refused
                .assert_code(3)
                .stderr
                .contains("m8trx runs lists them"),
            "{refused:?}"
        );
    }
}

#[test]
fn a_run_that_was_cut_off_is_listed_and_odd_files_are_not() {
    let surroundings = Surroundings::new();
    let runs = surroundings.home.path().join(".local/state/m8trx/runs");
    std::fs::create_dir_all(&runs).unwrap();
    let started = r#"{"schema":"m8trx.journal/1","ts":"2026-11-24T06:00:00Z","event":"run-started","command":"onboard","customer":"cust_acme","account":"123456789012","region":"us-east-1","steps":[{"name":"host","description":"a host"}]}"#;
    let odd = r#"{"schema":"m8trx.journal/1","ts":"2026-11-24T06:00:01Z","event":"step-progress","step":"host","message":"\u001b[2J gone"}"#;
    std::fs::write(
        runs.join("20261124T060000-1-onboard-cust_acme.jsonl"),
        format!("{started}\n{odd}\n{{\"cut"),
    )
    .unwrap();
    std::fs::write(runs.join("20261124T070000-1-empty.jsonl"), "").unwrap();
    std::fs::write(runs.join("20261124T070000-1-policy.hujson"), "{}").unwrap();
    let listed = surroundings
        .m8trx(&["runs", "--json"])
        .assert_code(0)
        .json();
    assert_eq!(listed["runs"].as_array().unwrap().len(), 1, "{listed}");
    assert!(listed["runs"][0]["end"].is_null());
    let shown = surroundings.m8trx(&["runs", "show", "20261124T060000"]);
    assert!(
        shown
            .assert_code(0)
            .stdout
            .contains("no end: killed, or still going on"),
        "{shown:?}"
    );
    assert!(!shown.stdout.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn the_newest_two_hundred_are_kept() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let runs = surroundings.home.path().join(".local/state/m8trx/runs");
    std::fs::create_dir_all(&runs).unwrap();
    for number in 0..230 {
        for ending in ["onboard-cust_a.jsonl", "policy.hujson"] {
            std::fs::write(runs.join(format!("20200101T000{number:03}-1-{ending}")), "").unwrap();
        }
    }
    surroundings
        .m8trx(&["iam", "apply", "cust_acme", "--yes"])
        .assert_code(0);
    let count = |ending: &str| {
        let files = files_below(&runs);
        files
            .iter()
            .filter(|path| path.to_string_lossy().ends_with(ending))
            .count()
    };
    assert_eq!((count(".jsonl"), count("policy.hujson")), (200, 200));
    let newest = surroundings
        .m8trx(&["runs", "show", "1", "--json"])
        .assert_code(0)
        .json();
    assert_eq!(newest["command"], "iam-apply");
    assert!(!runs.join("20200101T000000-1-onboard-cust_a.jsonl").exists());
}
