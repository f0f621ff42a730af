//! A brain that does not keep the contract: what it answers is told, never taken for something else, and nothing panics.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use aws_sdk_ssm::types::ParameterType;

use crate::common::Surroundings;
use crate::fleet::Fleet;

/// A brain on loopback that answers every request with this body; ends with the test process.
fn brain(body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else {
                continue;
            };
            std::thread::spawn(move || {
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match connection.read(&mut buffer) {
                        Ok(count @ 1..) => request.extend_from_slice(&buffer[..count]),
                        _ => return,
                    }
                }
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = connection.write_all(answer.as_bytes());
            });
        }
    });
    url
}

/// A settled customer whose stored brain URL is this brain.
fn fleet(body: &'static str) -> (Fleet, Surroundings) {
    let fleet = Fleet::start();
    fleet.settle("cust_a", 3, Some(1));
    fleet.put("/m8trx/brain-url", &brain(body), ParameterType::String);
    // The policy file opens the port of the brain that was there before, which is another matter.
    let mut surroundings = fleet.surroundings_without_tailscale();
    surroundings.variables.remove("M8TRX_BRAIN_URL");
    (fleet, surroundings)
}

#[test]
fn events_of_another_customer_are_an_error_and_never_shown() {
    let (_fleet, surroundings) = fleet(
        r#"{"events":[{"customer_id":"cust_b","event_type":"heartbeat","ts":"2026-11-24T00:00:00Z","payload":{"hostname":"of-cust-b"}}]}"#,
    );
    let events = surroundings.m8trx(&["events", "cust_a"]);
    events.assert_code(4);
    assert!(
        events
            .stderr
            .contains("with the key of cust_a with an event of cust_b"),
        "{events:?}"
    );
    assert!(
        events.stderr.contains("customer scoping does not hold"),
        "{events:?}"
    );
    assert!(!events.stdout.contains("of-cust-b"), "{events:?}");
    let status = surroundings.m8trx(&["status", "--check"]);
    status.assert_code(7);
    assert!(status.stdout.contains("misconfigured"), "{status:?}");
    assert!(
        status.stdout.contains("with an event of cust_b"),
        "{status:?}"
    );
}

#[test]
fn answers_of_another_form_make_the_host_unreachable() {
    for (body, words) in [
        ("<html>gateway</html>", "not JSON"),
        (r#"{"events":"#, "cut off"),
        (r#"{"events":{}}"#, "a field is missing or of another type"),
        (r#"{"data":[]}"#, "a field is missing or of another type"),
        (r#"{"events":[7]}"#, ""),
    ] {
        let (_fleet, surroundings) = fleet(body);
        let status = surroundings.m8trx(&["status"]);
        status.assert_code(0);
        assert!(status.stdout.contains("unreachable"), "{body}: {status:?}");
        assert!(status.stdout.contains(words), "{body}: {status:?}");
        let events = surroundings.m8trx(&["events", "cust_a"]);
        events.assert_code(4);
        assert!(!events.stderr.contains("gateway"), "{events:?}");
    }
}

#[test]
fn a_brain_that_ignores_what_it_is_asked_is_corrected() {
    // Every question is answered with all it has: another type, an old event, and one without a time.
    let (_fleet, surroundings) = fleet(
        r#"{"events":[
            {"customer_id":"cust_a","event_type":"tool_call","ts":"not a time","payload":{"tool_name":"timeless"}},
            {"customer_id":"cust_a","event_type":"tool_call","ts":"1999-01-01T00:00:00Z","payload":{"tool_name":"ancient"}},
            {"customer_id":"cust_a","event_type":"session.start","ts":"2999-01-01T00:00:00Z"},
            {"customer_id":"cust_a","event_type":["odd"],"ts":7,"payload":1}
        ]}"#,
    );
    let events = surroundings.m8trx(&["events", "cust_a"]);
    events.assert_code(0);
    assert!(
        events
            .stdout
            .contains("(not a time)  tool_call      timeless\n"),
        "{events:?}"
    );
    assert!(
        events
            .stdout
            .contains("2999-01-01T00:00:00Z  session.start  no payload\n"),
        "{events:?}"
    );
    assert!(!events.stdout.contains("ancient"), "{events:?}");
    let json = surroundings
        .m8trx(&["events", "cust_a", "--output", "json"])
        .json();
    assert_eq!(
        json["events"].as_array().unwrap().len(),
        2,
        "each once: {json}"
    );
    surroundings.m8trx(&["status"]).assert_code(0);
}
