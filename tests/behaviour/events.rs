//! A customer's three feeds: a line each, what they come to, and going on with what comes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Stdio};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::common::{M8TRX, Surroundings};
use crate::fleet::Fleet;

fn record(fleet: &Fleet, customer: &str, minutes_ago: i64, event_type: &str, payload: Value) {
    let ts = Timestamp::now() - SignedDuration::from_mins(minutes_ago);
    fleet
        .sandbox
        .record_event(customer, event_type, ts, payload);
}

/// A customer with an hour behind it, and a neighbour whose name begins alike.
fn busy() -> Fleet {
    let fleet = Fleet::start();
    fleet.settle("cust_a", 3, Some(2));
    fleet.settle("cust_ab", 3, Some(2));
    let add = |minutes, kind: &str, payload| record(&fleet, "cust_a", minutes, kind, payload);
    add(180, "session.start", json!({"session_id": "s0"}));
    add(50, "session.start", json!({"session_id": "s1"}));
    add(
        40,
        "tool_call",
        json!({"tool_name": "bash", "input_bytes": 120, "output_bytes": 4096}),
    );
    add(
        39,
        "tool_call",
        json!({"tool_name": "bash", "input_bytes": 80, "output_bytes": 2_000_000}),
    );
    add(
        38,
        "tool_call",
        json!({"tool_name": "edit", "input_bytes": 10, "output_bytes": 0}),
    );
    add(
        30,
        "session.end",
        json!({"status": "ok", "exit_code": 0, "duration_ms": 7000, "session_id": "s1"}),
    );
    add(
        20,
        "session.end",
        json!({"status": "error", "exit_code": 2, "duration_ms": 9000, "session_id": "s2"}),
    );
    record(
        &fleet,
        "cust_ab",
        10,
        "tool_call",
        json!({"tool_name": "the neighbour's"}),
    );
    fleet
}

#[test]
fn a_line_for_each_event_and_what_they_come_to() {
    let fleet = busy();
    let surroundings = fleet.surroundings();
    let ended = surroundings.m8trx(&["events", "cust_a"]);
    ended.assert_code(0);
    insta::with_settings!({filters => vec![
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "[time]"),
        (r"ip-172-31-\d+-\d+", "ip-172-31-0-10"),
    ]}, {
        insta::assert_snapshot!("events", ended.stdout);
    });

    let document = surroundings
        .m8trx(&["events", "cust_a", "--output", "json"])
        .json();
    assert_eq!(document["schema"], "m8trx.events/1");
    assert_eq!(document["source"], "http");
    let events = document["events"].as_array().unwrap();
    assert_eq!(events.len(), 7, "{document}");
    let times: Vec<Timestamp> = events
        .iter()
        .map(|e| e["ts"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(times.is_sorted(), "oldest first");
    let sessions = &document["summary"]["sessions"];
    assert_eq!(
        *sessions,
        json!({"started": 1, "ended": 2, "ok": 1, "failed": 1, "unclear": 0, "median_duration_ms": 8000})
    );
    let bash = &document["summary"]["tools"][0];
    assert_eq!(
        (&bash["tool_name"], &bash["calls"]),
        (&json!("bash"), &json!(2))
    );
    assert_eq!(
        (&bash["input_bytes"], &bash["output_bytes"]),
        (&json!(200), &json!(2_004_096))
    );

    for (arguments, count) in [
        (&["--type", "session"][..], 3),
        (&["--type", "tool_call"], 3),
        (&["--type", "heartbeat"], 1),
        (&["--type", "session", "--since", "1d"], 4),
        (&["--since", "25m"], 2),
    ] {
        let mut all = vec!["events", "cust_a", "--output", "json"];
        all.extend(arguments);
        let document = surroundings.m8trx(&all).json();
        assert_eq!(
            document["events"].as_array().unwrap().len(),
            count,
            "{arguments:?}: {document}"
        );
    }
    let cut = surroundings
        .m8trx(&[
            "events",
            "cust_a",
            "--type",
            "tool_call",
            "--limit",
            "2",
            "--output",
            "json",
        ])
        .json();
    assert_eq!(
        (cut["events"].as_array().unwrap().len(), &cut["cut_off"]),
        (2, &json!(true))
    );
    let none = surroundings.m8trx(&["events", "cust_ab", "--type", "session"]);
    assert!(
        none.stdout.starts_with("No events of cust_ab since 2"),
        "{none:?}"
    );
    assert!(fleet.sandbox.calls().iter().all(|call| !call.mutating));
}

#[test]
fn odd_events_are_shown_as_they_came() {
    let fleet = Fleet::start();
    fleet.settle("cust_a", 3, None);
    let add = |kind: &str, payload| record(&fleet, "cust_a", 1, kind, payload);
    add(
        "heartbeat",
        json!({"hostname": "evil\u{1b}]0;title\u{7}\nsecond line"}),
    );
    add("tool_call", json!(["no", "object"]));
    add(
        "tool_call",
        json!({"tool_name": {"a": 1}, "input_bytes": -5, "output_bytes": "many"}),
    );
    add(
        "session.end",
        json!({"exit_code": 1e300, "duration_ms": -1}),
    );
    add("session.start", json!({"token": "Bearer m8k_never_shown"}));
    let surroundings = fleet.surroundings();
    let ended = surroundings.m8trx(&["events", "cust_a"]);
    ended.assert_code(0);
    assert!(!ended.stdout.contains(['\u{1b}', '\u{7}']), "{ended:?}");
    for words in [
        "heartbeat      evil\\u{1b}]0;title\\u{7}\\nsecond line",
        "tool_call      payload [\"no\",\"object\"]",
        "tool_call      input_bytes=-5, output_bytes=many, tool_name={\"a\":1}",
        "session.end    unclear, duration_ms=-1, exit_code=1e+300",
        "session.start  token=Bearer ****",
        "sessions    1 started, 1 ended: 0 ok, 0 failed, 1 unclear",
        "(without a name)           1        0 B in        0 B out, 1 without a size",
    ] {
        assert!(
            ended.stdout.contains(words),
            "no {words:?} in {}",
            ended.stdout
        );
    }
    let json = surroundings.m8trx(&["events", "cust_a", "--output", "json"]);
    assert!(!json.stdout.contains("m8k_never_shown"), "{json:?}");
    assert_eq!(json.json()["events"].as_array().unwrap().len(), 5);
}

#[test]
fn what_cannot_be_asked_is_told_with_what_to_do() {
    let fleet = Fleet::start();
    fleet.settle("cust_a", 3, Some(1));
    let surroundings = fleet.surroundings();
    let told = |arguments: &[&str], code: i32, words: &[&str]| {
        let mut all = vec!["events"];
        all.extend(arguments);
        let ended = surroundings.m8trx(&all);
        ended.assert_code(code);
        for words in words {
            assert!(ended.stderr.contains(words), "no {words:?} in {ended:?}");
        }
    };
    told(
        &["cust_b"],
        3,
        &[
            "/m8trx/cust_b/brain-key does not exist",
            "m8trx status cust_b",
        ],
    );
    told(&["Acme"], 2, &["cust_"]);
    told(&["cust_a", "--since", "soon"], 2, &["90s", "7d"]);
    told(&["cust_a", "--since", "0s"], 2, &["no time at all"]);
    told(
        &["cust_a", "--type", "sessions"],
        2,
        &["heartbeat, session, tool_call"],
    );
    told(&["cust_a", "--limit", "0"], 2, &["--limit"]);
    let kind = aws_sdk_ssm::types::ParameterType::SecureString;
    fleet.put("/m8trx/cust_a/brain-key", "m8k_revoked", kind);
    told(&["cust_a"], 4, &["refuses the brain key of cust_a"]);
    fleet.sandbox.turn_events_route_off();
    told(
        &["cust_a"],
        3,
        &["has no route GET /v1/events", "brain.database_url"],
    );
}

/// `m8trx events --follow`, whose lines are read as they come.
struct Following {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Following {
    fn start(surroundings: &Surroundings, arguments: &[&str]) -> Self {
        let mut child = surroundings
            .command(M8TRX)
            .args(["events", "cust_a", "--follow"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    /// Ctrl-C, the exit code, and what had not been read yet.
    fn interrupt(mut self) -> (i32, String) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code().unwrap(), rest)
    }
}

#[test]
fn following_shows_each_event_once_and_ends_cleanly() {
    let fleet = Fleet::start();
    fleet.settle("cust_a", 3, Some(2));
    let surroundings = fleet.surroundings();
    let call = |name: &str| record(&fleet, "cust_a", 0, "tool_call", json!({"tool_name": name}));
    let mut text = Following::start(&surroundings, &[]);
    let mut json = Following::start(&surroundings, &["--output", "json"]);
    assert!(text.line().contains("  heartbeat      ip-172-31-"));
    json.line();
    for name in ["first", "second", "third"] {
        call(name);
        assert!(
            text.line()
                .trim_end()
                .ends_with(&format!("  tool_call      {name}"))
        );
        let line: Value = serde_json::from_str(&json.line()).unwrap();
        assert_eq!(line["schema"], "m8trx.event/1");
        assert_eq!(line["customer"], "cust_a");
        assert_eq!(line["payload"]["tool_name"], name);
    }
    let (code, rest) = text.interrupt();
    assert_eq!(code, 0, "{rest}");
    assert!(
        rest.starts_with("\ncust_a:\nheartbeats  1, the last"),
        "{rest}"
    );
    assert!(rest.contains("tool calls  3\n"), "{rest}");
    assert_eq!(json.interrupt(), (0, String::new()));
}

#[test]
fn following_ends_when_nobody_reads_any_more() {
    let fleet = Fleet::start();
    fleet.settle("cust_a", 3, Some(2));
    let mut following = Following::start(&fleet.surroundings(), &[]);
    following.line();
    let Following { mut child, lines } = following;
    // No event comes that it could fail to write.
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn following_bears_a_brain_that_is_away_for_a_moment() {
    let fleet = Fleet::start();
    fleet.settle("cust_a", 3, Some(2));
    let mut surroundings = fleet.surroundings();
    // A way to the brain that can be closed and opened again.
    let brain = surroundings.variables["M8TRX_BRAIN_URL"].replace("http://", "");
    let way = Way::open(&brain);
    let kind = aws_sdk_ssm::types::ParameterType::String;
    fleet.put("/m8trx/brain-url", &format!("http://{}", way.address), kind);
    surroundings.variables.remove("M8TRX_BRAIN_URL");
    let mut run = surroundings.start(&["events", "cust_a", "--follow"]);
    assert!(run.read_until(|line| line.starts_with("Following cust_a")));
    way.set(false);
    assert!(run.read_until(|line| line.contains("does not answer")));
    record(
        &fleet,
        "cust_a",
        0,
        "tool_call",
        json!({"tool_name": "meanwhile"}),
    );
    way.set(true);
    assert!(run.read_until(|line| line == "The brain answers again."));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(run.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = run.end();
    ended.assert_code(0);
    assert!(ended.stdout.contains("meanwhile"), "{ended:?}");
}

/// A relay on loopback that refuses connections while it is closed; ends with the test process.
struct Way {
    address: String,
    open: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Way {
    fn open(to: &str) -> Self {
        use std::sync::atomic::{AtomicBool, Ordering};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Self {
            address: listener.local_addr().unwrap().to_string(),
            open: std::sync::Arc::new(AtomicBool::new(true)),
        };
        let (open, to) = (way.open.clone(), to.to_owned());
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.unwrap();
                if !open.load(Ordering::SeqCst) {
                    continue;
                }
                let far = std::net::TcpStream::connect(&to).unwrap();
                let open = open.clone();
                // One exchange at a time, so that a closed way has no connection left.
                std::thread::spawn(move || relay(near, far, &open));
            }
        });
        way
    }

    fn set(&self, open: bool) {
        self.open.store(open, std::sync::atomic::Ordering::SeqCst);
    }
}

fn relay(
    mut near: std::net::TcpStream,
    mut far: std::net::TcpStream,
    open: &std::sync::atomic::AtomicBool,
) {
    use std::io::Write as _;
    let mut back = far.try_clone().unwrap();
    let mut answer_to = near.try_clone().unwrap();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut back, &mut answer_to);
    });
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = near.read(&mut buffer) {
        if !open.load(std::sync::atomic::Ordering::SeqCst) {
            break;
        }
        far.write_all(&buffer[..count]).unwrap();
    }
    let _ = near.shutdown(std::net::Shutdown::Both);
    let _ = far.shutdown(std::net::Shutdown::Both);
}
