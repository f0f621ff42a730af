//! Which heartbeat counts for which host, what a host says of its bootstrap, and waits that outlast a moment.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::common::{RunningSandbox, Surroundings, beat_of, until_complete};
use crate::fleet::Fleet;

/// In two thousand ninety-nine.
const FUTURE: &str = "2099-01-01T00:00:00Z";

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

fn onboard(surroundings: &Surroundings) -> Value {
    surroundings
        .m8trx(&["onboard", "cust_a", "--yes", "--output", "json"])
        .assert_code(0)
        .json()
}

/// Without what differs from run to run.
fn settled(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, word) in [
        (r"i-[0-9a-f]{17}", "i-HOST"),
        (r"2[0-9]{3}-[0-9-]+T[0-9:.]+Z", "TIME"),
        (r"[0-9]+ (s|ms|min) ago", "SOME ago"),
        (r"127\.0\.0\.1:[0-9]+", "BRAIN"),
        (r"after [0-9.]+ m?s", "after SOME"),
        (r"k[0-9A-Za-z]{10,12}CNTRL", "KEY"),
    ] {
        let found = regex_lite::Regex::new(pattern).unwrap();
        text = found.replace_all(&text, word).into_owned();
    }
    text
}

#[test]
fn a_heartbeat_from_the_future_is_no_new_hosts() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let brain = &sandbox.environment["M8TRX_BRAIN_URL"];
    let first = onboard(&surroundings);
    // More than one page of them, under the name that the next host gets as well.
    for second in 0..25 {
        let ts = format!("2099-01-01T00:00:{second:02}Z");
        let payload = json!({"hostname": "ip-172-31-0-11"});
        beat_of(&surroundings, brain, "cust_a", &ts, &payload);
    }
    Cloud::of(&surroundings.variables).terminate_host("cust_a");
    let second = onboard(&surroundings);
    assert_ne!(second["instance_id"], first["instance_id"]);
    let ts: jiff::Timestamp = second["heartbeat"]["ts"].as_str().unwrap().parse().unwrap();
    assert!(ts <= jiff::Timestamp::now(), "{second}");
    let got = surroundings.m8trx(&["brain-url", "get", "--hosts", "--output", "json"]);
    assert_eq!(got.assert_code(0).json()["hosts"]["following"], 1);
    // Somebody has a clock that is wrong, or the key.
    let status = surroundings.m8trx(&["status", "cust_a", "--output", "json"]);
    let customer = &status.assert_code(0).json()["customers"][0];
    insta::assert_snapshot!(
        "future_status",
        settled(&serde_json::to_string_pretty(&customer["problems"]).unwrap())
    );
    assert_eq!(customer["heartbeat"]["instance_id"], second["instance_id"]);
}

#[test]
fn only_what_is_of_the_host_ends_the_wait() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let brain = &sandbox.environment["M8TRX_BRAIN_URL"];
    let id = onboard(&surroundings)["instance_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut wait = surroundings.start(&["wait", "cust_a", "--next", "--output", "json"]);
    assert!(wait.read_until(|line| line.starts_with("first-heartbeat: ")));
    for (ts, payload) in [
        (
            now().as_str(),
            json!({"hostname": "ip-172-31-0-10", "instance_id": "i-0000000000000000f"}),
        ),
        (&now(), json!({"hostname": "of-another-machine"})),
        (
            FUTURE,
            json!({"hostname": "ip-172-31-0-10", "instance_id": id}),
        ),
        (&now(), json!({"hostname": "renamed", "instance_id": id})),
    ] {
        beat_of(&surroundings, brain, "cust_a", ts, &payload);
    }
    let waited = wait.end();
    assert_eq!(
        waited.assert_code(0).json()["heartbeat"]["hostname"],
        "renamed"
    );

    let late = surroundings.m8trx(&["wait", "cust_a", "--next", "--timeout", "1s"]);
    late.assert_code(6);
    // How much of the progress a second shows differs from run to run.
    let stderr = settled(&late.stderr);
    let progress = |line: &&str| !line.starts_with("first-heartbeat: i-HOST ");
    let shown: Vec<&str> = stderr.lines().filter(progress).collect();
    insta::assert_snapshot!("wait_in_vain", shown.join("\n"));
}

#[test]
fn a_host_whose_bootstrap_failed_is_not_healthy() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let brain = &sandbox.environment["M8TRX_BRAIN_URL"];
    let onboarded = onboard(&surroundings);
    // The sandbox installs packages at once.
    let state = &onboarded["heartbeat"]["bootstrap"]["state"];
    assert!(state == "running" || state == "complete", "{onboarded}");
    until_complete(&surroundings, "cust_a");
    let id = &onboarded["instance_id"];
    let says = |state: &str| {
        let payload = json!({"hostname": "ip-172-31-0-10", "instance_id": id, "bootstrap": state});
        beat_of(&surroundings, brain, "cust_a", &now(), &payload);
    };
    says("complete");
    let status = surroundings.m8trx(&["status", "cust_a"]);
    assert!(
        status.assert_code(0).stdout.contains("healthy"),
        "{status:?}"
    );
    says("running step=2 name=packages");
    let status = surroundings.m8trx(&["status", "cust_a"]);
    assert!(
        status.assert_code(0).stdout.contains("booting"),
        "{status:?}"
    );
    let again = surroundings.m8trx(&["onboard", "cust_a", "--yes"]);
    insta::assert_snapshot!("running_onboard", settled(&again.assert_code(0).stdout));
    says("failed step=2 name=packages");
    surroundings.m8trx(&["status", "--check"]).assert_code(7);
    let status = surroundings.m8trx(&["status", "cust_a", "--output", "json"]);
    let customer = &status.assert_code(0).json()["customers"][0];
    assert_eq!(customer["status"], "partial");
    insta::assert_snapshot!(
        "failed_status",
        settled(&serde_json::to_string_pretty(&customer["problems"]).unwrap())
    );
    let again = surroundings.m8trx(&["onboard", "cust_a", "--yes"]);
    again.assert_code(5);
    insta::assert_snapshot!("failed_onboard", settled(&again.stderr));
    let diagnosed = surroundings.m8trx(&["diagnose", "cust_a"]);
    diagnosed.assert_code(5);
    insta::assert_snapshot!("failed_diagnose", settled(&diagnosed.stderr));
}

#[test]
fn a_host_that_is_never_set_up_to_the_end_is_not_healthy() {
    let fleet = Fleet::start();
    let id = fleet.settle_minutes("cust_a", 60, Some(1));
    let surroundings = fleet.surroundings();
    let brain = &surroundings.variables["M8TRX_BRAIN_URL"];
    let payload =
        json!({"hostname": "x", "instance_id": id, "bootstrap": "running step=2 name=packages"});
    beat_of(&surroundings, brain, "cust_a", &now(), &payload);
    let status = surroundings.m8trx(&["status", "cust_a", "--output", "json"]);
    let customer = &status.assert_code(0).json()["customers"][0];
    assert_eq!(customer["status"], "partial");
    let problems = settled(&serde_json::to_string_pretty(&customer["problems"]).unwrap());
    insta::assert_snapshot!("unfinished_status", problems);
}

/// Before the brain: hands everything on, and answers 503 to so many readings of heartbeats as are set.
fn flaky(brain: &str) -> (String, Arc<AtomicUsize>) {
    let target = brain.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let failures = Arc::new(AtomicUsize::new(0));
    let left = Arc::clone(&failures);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else {
                continue;
            };
            let (target, left) = (target.clone(), Arc::clone(&left));
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0; 1];
                while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                let text = String::from_utf8_lossy(&head).into_owned();
                let fails = |left: usize| left.checked_sub(1);
                if text.starts_with("GET /v1/events?event_type=heartbeat&since")
                    && left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fails)
                        .is_ok()
                {
                    let _ = connection.write_all(
                        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                    );
                    return;
                }
                let Ok(mut onward) = TcpStream::connect(&target) else {
                    return;
                };
                // One request a connection, so that each is looked at.
                head.truncate(head.len() - 2);
                head.extend_from_slice(b"Connection: close\r\n\r\n");
                let _ = onward.write_all(&head);
                let (mut from, mut to) =
                    (connection.try_clone().unwrap(), onward.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                let _ = std::io::copy(&mut onward, &mut connection);
            });
        }
    });
    (url, failures)
}

#[test]
fn a_wait_outlasts_errors_of_the_brain() {
    let sandbox = RunningSandbox::up();
    let mut surroundings = Surroundings::of(&sandbox);
    let brain = sandbox.environment["M8TRX_BRAIN_URL"].clone();
    let id = onboard(&surroundings)["instance_id"].clone();
    let (url, failures) = flaky(&brain);
    surroundings.set("M8TRX_BRAIN_URL", &url);
    surroundings
        .m8trx(&["brain-url", "set", &url, "--yes"])
        .assert_code(0);
    let mut wait = surroundings.start(&["wait", "cust_a", "--next", "--output", "json"]);
    assert!(wait.read_until(|line| line.starts_with("first-heartbeat: ")));
    failures.store(3, Ordering::Relaxed);
    assert!(wait.read_until(|line| line.contains("answers 503")));
    let payload = json!({"hostname": "x", "instance_id": id});
    beat_of(&surroundings, &brain, "cust_a", &now(), &payload);
    wait.end().assert_code(0);
}
