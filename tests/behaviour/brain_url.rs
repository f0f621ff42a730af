//! The brain's URL: read, and moved with the whole fleet.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::json;

use crate::cloud::Cloud;
use crate::common::{Ended, RunningSandbox, Surroundings, beat};

fn set(surroundings: &Surroundings, url: &str, flags: &[&str]) -> Ended {
    let mut all = vec!["brain-url", "set", url, "--output", "json"];
    all.extend(flags);
    surroundings.m8trx(&all)
}

/// The sandbox's brain under another name of this machine.
fn other_name(url: &str) -> String {
    url.replace("127.0.0.1", "localhost")
}

#[test]
fn only_a_brain_is_stored() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let refused = surroundings.m8trx(&["brain-url", "get"]);
    assert!(
        refused
            .assert_code(3)
            .stderr
            .contains("m8trx brain-url set"),
        "{refused:?}"
    );
    // A server that answers everything, as a portal in front of a network does.
    let portal = TcpListener::bind("127.0.0.1:0").unwrap();
    let portal_url = format!("http://{}", portal.local_addr().unwrap());
    let answers = std::thread::spawn(move || {
        for stream in portal.incoming().take(2) {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\nwelcome",
            );
        }
    });
    for (url, words) in [
        ("brain:8080", "http://"),
        ("http://user:hunter2@brain", "no user or password"),
        ("http://127.0.0.1:1", "does not answer"),
        (portal_url.as_str(), "is no brain: it answers 200"),
    ] {
        let ended = set(&surroundings, url, &["--yes"]);
        assert!(ended.assert_code(3).stderr.contains(words), "{ended:?}");
        assert!(!format!("{ended:?}").contains("hunter2"), "{ended:?}");
    }
    answers.join().unwrap();
    let url = &sandbox.environment["M8TRX_BRAIN_URL"];
    set(&surroundings, url, &[]).assert_code(2);
    let plan = set(&surroundings, url, &["--dry-run"])
        .assert_code(0)
        .json();
    assert_eq!(
        (&plan["customer"], &plan["changes"]),
        (&json!("fleet"), &json!(1))
    );
    assert_eq!(sandbox.changes(), Vec::<String>::new());

    let document = set(&surroundings, url, &["--yes"]).assert_code(0).json();
    assert_eq!(
        document,
        json!({
            "schema": "m8trx.brain-url-set/1", "url": url, "outcome": "created", "before": null,
            "version": 1, "version_before": null, "hosts": {"hosts": 0, "following": 0, "missing": []},
        })
    );
    let got = surroundings.m8trx(&["brain-url", "get"]);
    assert_eq!(got.assert_code(0).stdout, format!("{url}\n"));
    let got = surroundings
        .m8trx(&["brain-url", "get", "--output", "json"])
        .assert_code(0)
        .json();
    assert_eq!(
        (&got["schema"], &got["version"]),
        (&json!("m8trx.brain-url-get/1"), &json!(1))
    );
    assert_eq!(got["hosts"], json!(null));
}

#[test]
fn hosts_are_counted_as_they_follow() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    for customer in ["cust_a", "cust_ab"] {
        surroundings
            .m8trx(&["onboard", customer, "--yes"])
            .assert_code(0);
    }
    let old = &sandbox.environment["M8TRX_BRAIN_URL"];
    let new = other_name(old);
    let following = || {
        surroundings
            .m8trx(&["brain-url", "get", "--hosts", "--output", "json"])
            .assert_code(0)
            .json()["hosts"]
            .clone()
    };
    assert_eq!(
        following(),
        json!({"hosts": 2, "following": 2, "missing": []})
    );
    // SSM keeps whole seconds: the beats of before must be of an earlier one than the change.
    let before = jiff::Timestamp::now().as_second();
    while jiff::Timestamp::now().as_second() == before {
        std::thread::yield_now();
    }
    let moved = set(&surroundings, &new, &["--yes"]);
    let document = moved.assert_code(0).json();
    assert_eq!(
        (&document["outcome"], &document["before"]),
        (&json!("updated"), &json!(old))
    );
    assert_eq!(
        (&document["version_before"], &document["version"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(
        (&document["hosts"]["hosts"], &document["hosts"]["following"]),
        (&json!(2), &json!(0))
    );
    assert!(
        moved.stderr.contains("2 hosts of 2 customers running"),
        "{moved:?}"
    );

    // The hosts are told apart by their names: what calls itself something else is no host of the customer.
    beat(&surroundings, &new, "cust_ab", "whatever-it-calls-itself");
    let now = following();
    assert_eq!(now["following"], 0);
    let problem = &now["missing"][1]["problem"];
    assert!(
        problem
            .as_str()
            .unwrap()
            .contains("is of `whatever-it-calls-itself`, which is not this host"),
        "{problem}"
    );
    beat(&surroundings, &new, "cust_ab", "ip-172-31-0-11");
    let now = following();
    assert_eq!(now["following"], 1);
    assert_eq!(now["missing"][0]["customer"], "cust_a");
    // Waiting goes on where it was, and ends with the last host.
    let late = set(&surroundings, &new, &["--yes", "--wait", "--timeout", "1s"]);
    let document = late.assert_code(6).json();
    assert!(
        document["evidence"][0]
            .as_str()
            .unwrap()
            .contains("of cust_a: no heartbeat yet")
    );
    let mut waiting = surroundings.start(&[
        "brain-url",
        "set",
        &new,
        "--yes",
        "--wait",
        "--timeout",
        "2m",
        "--output",
        "json",
    ]);
    assert!(waiting.read_until(|line| line == "hosts-follow: 1 of 2 hosts"));
    beat(&surroundings, &new, "cust_a", "ip-172-31-0-10");
    let document = waiting.end();
    let document = document.assert_code(0).json();
    assert_eq!(
        (&document["outcome"], &document["version"]),
        (&json!("unchanged"), &json!(2))
    );
    assert_eq!(
        document["hosts"],
        json!({"hosts": 2, "following": 2, "missing": []})
    );
}

#[test]
fn a_brain_where_hosts_do_not_follow_is_not_stored_by_accident() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let address = &sandbox.environment["M8TRX_BRAIN_URL"];
    surroundings
        .m8trx(&["onboard", "cust_a", "--yes"])
        .assert_code(0);
    set(&surroundings, &other_name(address), &["--yes"]).assert_code(0);
    let changes = sandbox.changes();
    let port = address.rsplit(':').next().unwrap();
    for flags in [&["--yes"][..], &["--dry-run"], &["--yes", "--wait"]] {
        let mut all = vec!["brain-url", "set", address];
        all.extend(flags);
        let refused = surroundings.m8trx(&all);
        refused.assert_code(3);
        insta::allow_duplicates! {
            insta::assert_snapshot!("not_followed", refused.stderr.replace(port, "PORT"));
        }
    }
    assert_eq!(sandbox.changes(), changes);
    let forced = set(&surroundings, address, &["--yes", "--force"]);
    forced.assert_code(0);
    assert!(
        forced
            .stderr
            .contains("warning: the hosts that run do not follow"),
        "{forced:?}"
    );
}

#[test]
fn a_brain_that_does_not_know_the_keys_of_running_hosts_is_not_stored_by_accident() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    surroundings
        .m8trx(&["onboard", "cust_a", "--yes"])
        .assert_code(0);
    let other = RunningSandbox::up();
    let wrong = &other.environment["M8TRX_BRAIN_URL"];
    let changes = sandbox.changes();
    let refused = set(&surroundings, wrong, &["--yes"]);
    let document = refused.assert_code(3).json();
    assert_eq!(document["evidence"], json!(["cust_a"]));
    assert!(refused.stderr.contains("--force"), "{refused:?}");
    assert_eq!(sandbox.changes(), changes);
    let forced = set(&surroundings, wrong, &["--yes", "--force"]);
    let document = forced.assert_code(0).json();
    assert_eq!(
        document["hosts"]["missing"][0]["problem"],
        "the brain refuses its key"
    );
    assert!(forced.stderr.contains("warning: "), "{forced:?}");

    // Without a host nobody needs the keys.
    Cloud::of(&surroundings.variables).terminate_host("cust_a");
    let back = set(
        &surroundings,
        &sandbox.environment["M8TRX_BRAIN_URL"],
        &["--yes"],
    );
    assert_eq!(back.assert_code(0).json()["hosts"]["hosts"], 0);
}
