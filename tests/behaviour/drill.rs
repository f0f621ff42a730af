//! Every fault of the sandbox, diagnosed: the drills, as a script sees them.

use crate::common::Surroundings;

/// Each fault with the cause it must be diagnosed as, and the exit code of `onboard`. Written down here once more, so that a
/// drill that expects the wrong thing is found.
const DRILLS: [(&str, Option<&str>, u64); 16] = [
    ("customer-tag-missing", Some("customer-tag-missing"), 5),
    ("metadata-tags-disabled", Some("metadata-tags-disabled"), 5),
    ("iam-denied", Some("iam-denied"), 5),
    ("parameter-missing", Some("parameter-missing"), 5),
    ("tailscale-install-unreachable", Some("no-route"), 5),
    ("tailscale-key-rejected", Some("tailscale-key-spent"), 5),
    ("tailscale-tag-refused", Some("tailscale-tag-refused"), 5),
    ("apt-failed", Some("mirror-down"), 5),
    ("systemd-failed", Some("systemd-failed"), 5),
    ("brain-unreachable", Some("brain-unreachable"), 5),
    ("brain-key-refused", Some("brain-key-refused"), 5),
    ("no-heartbeat", Some("no-heartbeat"), 6),
    ("capacity", Some("capacity"), 4),
    ("instance-terminated", Some("instance-terminated"), 5),
    ("slow-iam", None, 0),
    ("throttling", None, 0),
];

#[test]
fn every_fault_is_diagnosed_within_seconds() {
    let ended = Surroundings::new().m8trx(&["drill", "--output", "json"]);
    ended.assert_code(0);
    let document = ended.json();
    assert_eq!(document["schema"], "m8trx.drill/1");
    assert_eq!(document["passed"], true, "{document:#}");
    let drills = document["drills"].as_array().unwrap();
    assert_eq!(drills.len(), DRILLS.len());
    for (drill, (fault, cause, code)) in drills.iter().zip(DRILLS) {
        assert_eq!(drill["fault"], fault);
        assert_eq!(drill["cause"].as_str(), cause, "{drill}");
        assert_eq!(drill["exit_code"], code, "{drill}");
        // Two seconds on a machine that does nothing else.
        match cause {
            Some(_) => assert!(drill["diagnosis_ms"].as_u64().unwrap() <= 5000, "{drill}"),
            None => assert!(drill["diagnosis_ms"].is_null(), "{drill}"),
        }
    }
}

#[test]
fn one_drill_is_one_line_of_a_table() {
    let ended = Surroundings::new().m8trx(&["drill", "customer-tag-missing"]);
    ended.assert_code(0);
    for column in ["fault", "diagnosed as", "seconds", "exit code"] {
        assert!(ended.stdout.contains(column), "{ended:?}");
    }
    assert_eq!(ended.stdout.matches("customer-tag-missing").count(), 2);
    assert!(
        ended.stdout.ends_with("1 of 1 drills as expected\n"),
        "{ended:?}"
    );
}

#[test]
fn a_fault_that_does_not_exist_is_a_usage_error_that_names_them_all() {
    for arguments in [
        vec!["drill", "nonsense"],
        vec!["onboard", "cust_acme", "--sandbox", "--fault", "nonsense"],
    ] {
        let ended = Surroundings::new().m8trx(&arguments);
        ended.assert_code(2);
        for (fault, ..) in DRILLS {
            assert!(ended.stderr.contains(fault), "{fault}: {ended:?}");
        }
    }
}

#[test]
fn faults_are_refused_outside_the_sandbox() {
    let ended =
        Surroundings::new().m8trx(&["onboard", "cust_acme", "--yes", "--fault", "capacity"]);
    ended.assert_code(2);
    assert!(ended.stderr.contains("--sandbox"), "{ended:?}");
}
