//! `status` and `events` from the brain's database: one query for a whole fleet, and no key is read.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::PostgreSql;
use crate::common::Surroundings;
use crate::fleet::Fleet;

impl PostgreSql {
    fn event(&self, customer: &str, event_type: &str, ts: &str, payload: &str) {
        self.psql_in(
            "brain",
            &format!("insert into events values ('{customer}', '{event_type}', {ts}, $json${payload}$json$)"),
        );
    }

    /// Statements about events that were executed since [`Self::log_statements`].
    fn queries(&self) -> usize {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
        let executed = log.split("execute ").skip(1);
        executed
            .filter(|statement| statement.contains("from events"))
            .count()
    }

    fn log_statements(&self) {
        self.psql_in("brain", "alter role brain set log_statement = 'all'");
    }
}

fn with_database(fleet: &Fleet, url: &str) -> Surroundings {
    // Tailscale would be asked about stored keys, which are read for that.
    let mut surroundings = fleet.surroundings_without_tailscale();
    let file = surroundings.file("database-url", url);
    surroundings.set("M8TRX_BRAIN_DATABASE_URL_FILE", file.to_str().unwrap());
    surroundings
}

fn customer<'d>(document: &'d Value, id: &str) -> &'d Value {
    let customers = document["customers"].as_array().unwrap();
    customers.iter().find(|c| c["customer"] == id).unwrap()
}

#[test]
fn one_query_tells_of_the_whole_fleet() {
    let database = PostgreSql::start();
    let fleet = Fleet::start();
    for number in 0..30 {
        fleet.settle(&format!("cust_{number}"), 5, None);
        let payload = format!("{{\"hostname\": \"ip-172-31-0-{}\"}}", 10 + number);
        database.event(
            &format!("cust_{number}"),
            "heartbeat",
            "now() - interval '3 min'",
            &payload,
        );
    }
    database.psql_in(
        "brain",
        "update events set ts = now() - interval '3 days' where customer_id = 'cust_3'",
    );
    database.psql_in("brain", "delete from events where customer_id = 'cust_4'");
    database.psql_in(
        "brain",
        "update events set payload = '\"a text\"' where customer_id = 'cust_5'",
    );
    let beats = [
        ("cust_0", "now() - interval '9 min'"),
        ("cust_0", "'infinity'"),
        ("cust_00", "now()"),
    ];
    for (id, ts) in beats {
        database.event(id, "heartbeat", ts, r#"{"hostname": "another"}"#);
    }
    for (event_type, ts, payload) in [
        ("session.start", "now()", "{}"),
        ("session.start", "now() - interval '2 h'", "{}"),
        (
            "session.end",
            "now()",
            r#"{"status": "ok", "exit_code": 0}"#,
        ),
        (
            "session.end",
            "now()",
            r#"{"status": "ok", "exit_code": 3}"#,
        ),
        (
            "session.end",
            "now()",
            r#"{"status": {"odd": true}, "exit_code": "1"}"#,
        ),
        ("session.end", "now()", "[1, 2]"),
        ("tool_call", "now()", "null"),
        ("tool_call", "now()", "7"),
        ("tool_call", "now() - interval '61 min'", "{}"),
        ("something.else", "now()", "{}"),
    ] {
        database.event("cust_1", event_type, ts, payload);
    }
    database.log_statements();
    let surroundings = with_database(&fleet, &database.url());
    let ended = surroundings.m8trx(&["status", "--output", "json"]);
    ended.assert_code(0);
    let document = ended.json();
    assert_eq!(database.queries(), 1);
    let keys_read = fleet
        .sandbox
        .calls()
        .into_iter()
        .filter(|call| call.action == "GetParameters");
    assert_eq!(keys_read.count(), 0);
    assert_eq!(document["brain"]["source"], "database");

    let first = &customer(&document, "cust_0")["heartbeat"];
    assert_eq!(first["hostname"], "ip-172-31-0-10", "{document}");
    assert!(
        (180..240).contains(&first["age_s"].as_i64().unwrap()),
        "{first}"
    );
    assert_eq!(customer(&document, "cust_2")["status"], "healthy");
    let hour = json!({"sessions_started": 1, "sessions_ended": 4, "sessions_failed": 2, "tool_calls": 2, "at_least": false});
    assert_eq!(customer(&document, "cust_1")["last_hour"], hour);
    let old = customer(&document, "cust_3");
    assert_eq!(old["status"], "silent");
    assert_eq!(old["heartbeat"]["age_s"].as_i64().unwrap() / 3600, 72);
    let never = customer(&document, "cust_4");
    assert_eq!(
        (&never["status"], &never["heartbeat"]),
        (&json!("silent"), &Value::Null)
    );
    // A heartbeat without a name is of nobody's host.
    assert_eq!(customer(&document, "cust_5")["status"], "misconfigured");
}

#[test]
fn a_database_that_cannot_be_asked_makes_customers_unreachable() {
    let database = PostgreSql::start();
    let fleet = Fleet::start();
    fleet.settle("cust_a", 3, Some(1));
    database.psql_in("brain", "alter table events rename to happenings");
    let wrong = database.url().replace("hunter2", "hunter3");
    for (url, words) in [
        (
            database.url().as_str(),
            "relation \"events\" does not exist",
        ),
        (&wrong, "password authentication failed"),
        ("postgresql://brain:hunter3@127.0.0.1:1/brain", "refused"),
    ] {
        let surroundings = with_database(&fleet, url);
        let ended = surroundings.m8trx(&["status"]);
        ended.assert_code(0);
        assert!(ended.stdout.contains("unreachable"), "{ended:?}");
        assert!(ended.stdout.contains(words), "no {words:?} in {ended:?}");
        let events = surroundings.m8trx(&["events", "cust_a"]);
        events.assert_code(1);
        assert!(events.stderr.contains(words), "no {words:?} in {events:?}");
        for text in [ended.stdout, ended.stderr, events.stderr] {
            assert!(!text.contains("hunter"), "{text}");
        }
    }
}

#[test]
fn events_of_every_type_are_read_without_aws() {
    let database = PostgreSql::start();
    let fleet = Fleet::start();
    for (event_type, ts, payload) in [
        (
            "heartbeat",
            "now() - interval '3 min'",
            r#"{"hostname": "ip-1"}"#,
        ),
        (
            "session.end",
            "now() - interval '2 min'",
            r#"{"exit_code": 0, "duration_ms": 1500}"#,
        ),
        ("disk.full", "now() - interval '1 min'", r#"{"mount": "/"}"#),
        (
            "tool_call",
            "now()",
            r#"{"tool_name": "bash", "input_bytes": 1e400, "output_bytes": 5}"#,
        ),
        ("tool_call", "'infinity'", r#"{"tool_name": "later"}"#),
        ("tool_call", "'-infinity'", r#"{"tool_name": "before all"}"#),
        (
            "heartbeat",
            "now() - interval '2 h'",
            r#"{"hostname": "too early"}"#,
        ),
    ] {
        database.event("cust_a", event_type, ts, payload);
    }
    database.event(
        "cust_ab",
        "heartbeat",
        "now()",
        r#"{"hostname": "the neighbour"}"#,
    );
    database.psql_in(
        "brain",
        "insert into events values ('cust_a', 'heartbeat', now(), null)",
    );
    let surroundings = with_database(&fleet, &database.url());
    let ended = surroundings.m8trx(&["events", "cust_a"]);
    ended.assert_code(0);
    let shown: Vec<&str> = ended
        .stdout
        .lines()
        .map(|line| line.split_once("  ").map_or(line, |(_, rest)| rest))
        .collect();
    for words in [
        "heartbeat      ip-1",
        "session.end    ok, exit 0, 1.5 s",
        "disk.full      mount=/",
        "heartbeat      no payload",
        "tool_call      later",
    ] {
        assert!(shown.contains(&words), "no {words:?} in {}", ended.stdout);
    }
    // A number no program holds is shown as it came.
    assert!(
        ended
            .stdout
            .contains(r#"payload {"tool_name": "bash", "input_bytes": 1000"#),
        "{ended:?}"
    );
    assert!(ended.stdout.contains("others      1"), "{ended:?}");
    assert!(
        !ended.stdout.contains("early") && !ended.stdout.contains("neighbour"),
        "{ended:?}"
    );
    assert!(!ended.stdout.contains("before all"), "{ended:?}");
    assert_eq!(fleet.sandbox.calls().len(), 0);

    let newest = surroundings
        .m8trx(&[
            "events",
            "cust_a",
            "--type",
            "tool_call",
            "--limit",
            "1",
            "--output",
            "json",
        ])
        .json();
    assert_eq!(newest["events"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&newest["source"], &newest["cut_off"]),
        (&json!("database"), &json!(true))
    );
}

#[test]
fn following_reads_on_from_the_database() {
    let database = PostgreSql::start();
    let fleet = Fleet::start();
    let surroundings = with_database(&fleet, &database.url());
    let mut run = surroundings.start(&["events", "cust_a", "--follow", "--output", "json"]);
    assert!(run.read_until(|line| line.starts_with("Following cust_a")));
    let sent: Timestamp = Timestamp::now() - SignedDuration::from_secs(5);
    database.event(
        "cust_a",
        "tool_call",
        &format!("'{sent}'"),
        r#"{"tool_name": "bash"}"#,
    );
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(run.child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&event["event_type"], &event["payload"]["tool_name"]),
        (&json!("tool_call"), &json!("bash"))
    );
    let pid = nix::unistd::Pid::from_raw(i32::try_from(run.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(run.child.wait().unwrap().code(), Some(0));
}
