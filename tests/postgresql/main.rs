//! Heartbeats found in a real PostgreSQL, started by the test, and brains that cannot be asked over HTTP.

#[path = "../behaviour/common.rs"]
#[allow(dead_code)]
mod common;
#[path = "../behaviour/fleet.rs"]
#[allow(dead_code)]
mod fleet;
#[path = "../behaviour/settled.rs"]
mod settled;
mod status;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{RunningSandbox, Surroundings, ended};

/// A PostgreSQL of its own, on a loopback port, ended when dropped.
struct PostgreSql {
    directory: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
}

/// As root, PostgreSQL's programs are run as an ordinary user: they refuse to run as root.
fn program(path: &Path) -> Command {
    if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(path);
        command
    } else {
        Command::new(path)
    }
}

impl PostgreSql {
    fn start() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .expect("PostgreSQL is installed by tests/run")
            .map(|entry| entry.unwrap().path().join("bin"))
            .filter(|programs| programs.join("initdb").exists())
            .collect();
        versions.sort();
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Self {
            directory,
            programs: versions
                .pop()
                .expect("PostgreSQL is installed by tests/run"),
            port,
        };
        let password = server.directory.path().join("password");
        std::fs::write(&password, "hunter2\n").unwrap();
        let data = server.data();
        ended(
            program(&server.programs.join("initdb"))
                .args(["-A", "scram-sha-256", "-U", "brain", "--no-sync", "-D"])
                .arg(&data)
                .arg(format!("--pwfile={}", password.display())),
        )
        .assert_code(0);
        // pg_ctl waits until the server answers.
        let started = program(&server.programs.join("pg_ctl"))
            .arg("start")
            .arg("-w")
            .arg("-D")
            .arg(&data)
            .arg("-o")
            .arg(format!(
                "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
            ))
            .arg("-l")
            .arg(server.directory.path().join("log"))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(started.success());
        server.psql("create database brain");
        server.psql_in(
            "brain",
            "create table events (customer_id text, event_type text, ts timestamptz, payload jsonb)",
        );
        server
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn url(&self) -> String {
        format!("postgresql://brain:hunter2@127.0.0.1:{}/brain", self.port)
    }

    fn psql(&self, sql: &str) {
        self.psql_in("postgres", sql);
    }

    fn psql_in(&self, database: &str, sql: &str) {
        ended(
            Command::new(self.programs.join("psql"))
                .env("PGPASSWORD", "hunter2")
                .args([
                    "-qX",
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &self.port.to_string(),
                    "-U",
                    "brain",
                    "-v",
                    "ON_ERROR_STOP=1",
                    "-d",
                    database,
                    "-c",
                    sql,
                ]),
        )
        .assert_code(0);
    }

    fn beat(&self, customer: &str, hostname: &str, ago: &str) {
        self.psql_in(
            "brain",
            &format!(
                "insert into events values ('{customer}', 'heartbeat', now() - interval '{ago}', '{{\"hostname\": \"{hostname}\"}}')"
            ),
        );
    }
}

impl Drop for PostgreSql {
    fn drop(&mut self) {
        let _ = program(&self.programs.join("pg_ctl"))
            .args(["stop", "-m", "immediate", "-D"])
            .arg(self.data())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// A brain that takes events and lets nobody read them; ends with the test process.
fn brain_without_routes() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else {
                continue;
            };
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match connection.read(&mut buffer) {
                    Ok(count @ 1..) => request.extend_from_slice(&buffer[..count]),
                    _ => break,
                }
            }
            let _ = connection.write_all(
                b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    url
}

#[test]
fn the_first_heartbeat_is_found_in_the_database() {
    let database = PostgreSql::start();
    let sandbox = RunningSandbox::up();
    let mut surroundings = Surroundings::of(&sandbox);
    let url = surroundings.file("database-url", &database.url());
    surroundings.set("M8TRX_BRAIN_DATABASE_URL_FILE", url.to_str().unwrap());
    // Neither another customer's beat nor one from before the launch counts.
    database.beat("cust_ab", "ip-neighbour", "0 s");
    database.beat("cust_a", "ip-of-an-earlier-host", "1 h");
    let mut run = surroundings.start(&["onboard", "cust_a", "--yes", "--output", "json"]);
    assert!(run.read_until(|line| line.starts_with("first-heartbeat: ") && line.ends_with("has booted")));
    database.beat("cust_a", "ip-from-the-database", "0 s");
    let ended = run.end();
    ended.assert_code(0);
    assert_eq!(
        ended.json()["heartbeat"]["hostname"],
        "ip-from-the-database"
    );
    let second = surroundings.m8trx(&["onboard", "cust_a", "--yes", "--output", "json"]);
    assert_eq!(
        second.assert_code(0).json()["heartbeat"]["hostname"],
        "ip-from-the-database"
    );
}

#[test]
fn the_next_heartbeat_and_who_follows_are_found_in_the_database() {
    let database = PostgreSql::start();
    let sandbox = RunningSandbox::up();
    let mut surroundings = Surroundings::of(&sandbox);
    surroundings
        .m8trx(&["onboard", "cust_a", "--yes"])
        .assert_code(0);
    let url = surroundings.file("database-url", &database.url());
    surroundings.set("M8TRX_BRAIN_DATABASE_URL_FILE", url.to_str().unwrap());
    let following = || {
        let got = surroundings.m8trx(&["brain-url", "get", "--hosts", "--output", "json"]);
        got.assert_code(0).json()["hosts"]["following"].clone()
    };
    assert_eq!(following(), 0);
    database.beat("cust_a", "ip-of-now", "0 s");
    assert_eq!(following(), 1);
    // The database needs no key of the customer.
    surroundings
        .m8trx(&["params", "delete", "cust_a/brain-key", "--yes"])
        .assert_code(0);
    let mut run = surroundings.start(&[
        "wait",
        "cust_a",
        "--next",
        "--timeout",
        "2m",
        "--output",
        "json",
    ]);
    assert!(run.read_until(|line| line.starts_with("first-heartbeat: ")));
    database.beat("cust_ab", "ip-neighbour", "0 s");
    database.beat("cust_a", "ip-that-is-next", "0 s");
    let ended = run.end();
    let document = ended.assert_code(0).json();
    assert_eq!(document["heartbeat"]["hostname"], "ip-that-is-next");
}

#[test]
fn a_host_that_took_the_new_key_is_found_in_the_database() {
    let database = PostgreSql::start();
    let sandbox = RunningSandbox::up();
    let mut surroundings = Surroundings::of(&sandbox);
    let url = surroundings.file("database-url", &database.url());
    surroundings.set("M8TRX_BRAIN_DATABASE_URL_FILE", url.to_str().unwrap());
    let mut run = surroundings.start(&["onboard", "cust_a", "--yes", "--output", "json"]);
    assert!(run.read_until(|line| line.starts_with("first-heartbeat: ") && line.ends_with("has booted")));
    database.beat("cust_a", "ip-from-the-database", "0 s");
    let host = run.end().json()["instance_id"].as_str().unwrap().to_owned();

    let mut run = surroundings.start(&["rotate-brain-key", "cust_a", "--yes", "--output", "json"]);
    assert!(run.read_until(|line| line.starts_with("hosts: waiting for ")));
    let shown = surroundings.m8trx(&[
        "params",
        "show",
        "cust_a/brain-key",
        "--reveal",
        "--yes",
        "--output",
        "json",
    ]);
    let key = shown.assert_code(0).json()["value"]
        .as_str()
        .unwrap()
        .to_owned();
    let mark = m8trx::secret::BrainKey::parse(&key).unwrap().fingerprint();
    // Neither another customer's beat, nor another host's, nor one with another key counts.
    for (customer, instance, mark) in [
        ("cust_ab", host.as_str(), mark.as_str()),
        ("cust_a", "i-0000000000000000f", &mark),
        ("cust_a", &host, "00000000"),
        ("cust_a", &host, &mark),
    ] {
        database.psql_in(
            "brain",
            &format!("insert into events values ('{customer}', 'heartbeat', now(), '{{\"hostname\": \"ip\", \"instance_id\": \"{instance}\", \"key\": \"{mark}\"}}')"),
        );
    }
    let rotated = run.end();
    assert_eq!(
        rotated.assert_code(0).json()["hosts"][0]["instance_id"],
        host.as_str()
    );
    assert_eq!(rotated.json()["old_key_revoked"], true);
}

#[test]
fn smoke_reads_the_hostname_and_the_tool_call_from_the_database() {
    let database = PostgreSql::start();
    for (hostname, code) in [("ip-172-31-0-10", 0), ("ip-of-another-machine", 1)] {
        // The first host of a sandbox has this address.
        let sandbox = RunningSandbox::up();
        let mut surroundings = Surroundings::of(&sandbox);
        let url = surroundings.file("database-url", &database.url());
        surroundings.set("M8TRX_BRAIN_DATABASE_URL_FILE", url.to_str().unwrap());
        let mut run =
            surroundings.start(&["smoke", "--yes", "--expect-tool-call", "--output", "json"]);
        assert!(run.read_until(
            |line| line.starts_with("first-heartbeat: ") && line.ends_with("has booted")
        ));
        database.beat("cust_b4_smoke", hostname, "0 s");
        if code == 0 {
            assert!(run.read_until(|line| line.starts_with("tool-call: waiting")));
            database.psql_in(
                "brain",
                "insert into events values ('cust_b4_smoke2', 'tool_call', now(), '{\"tool_name\": \"of a neighbour\"}')",
            );
            database.psql_in(
                "brain",
                "insert into events values ('cust_b4_smoke', 'tool_call', now(), '{\"tool_name\": \"bash\"}')",
            );
        }
        let ended = run.end();
        ended.assert_code(code);
        if code == 0 {
            assert_eq!(ended.json()["heartbeat"]["hostname"], hostname);
            assert_eq!(ended.json()["tool_call"]["tool_name"], "bash");
        } else {
            let words = "a heartbeat of `ip-of-another-machine` for cust_b4_smoke";
            assert!(ended.stderr.contains(words), "{ended:?}");
        }
        let left = surroundings.m8trx(&["smoke", "--cleanup", "--yes"]);
        assert!(left.stdout.starts_with("nothing to remove"), "{left:?}");
    }
}

#[test]
fn a_database_that_cannot_be_asked_is_told_without_its_password() {
    let database = PostgreSql::start();
    let sandbox = RunningSandbox::up();
    let mut surroundings = Surroundings::of(&sandbox);
    surroundings
        .m8trx(&["onboard", "cust_a", "--yes"])
        .assert_code(0);
    let wrong = database.url().replace("hunter2", "hunter3");
    for (url, words) in [
        (wrong.as_str(), "password authentication failed"),
        ("postgresql://brain:hunter3@127.0.0.1:1/brain", "refused"),
        (
            "mysql://brain:hunter3@127.0.0.1/brain",
            "is not a PostgreSQL URL",
        ),
    ] {
        let file = surroundings.file("database-url", url);
        surroundings.set("M8TRX_BRAIN_DATABASE_URL_FILE", file.to_str().unwrap());
        let ended = surroundings.m8trx(&["onboard", "cust_a", "--yes"]);
        ended.assert_code(1);
        assert!(ended.stderr.contains(words), "{ended:?}");
        assert!(ended.stderr.contains("brain.database_url"), "{ended:?}");
        assert!(!ended.stderr.contains("hunter"), "{ended:?}");
    }
}

#[test]
fn a_brain_that_cannot_be_asked_names_the_setting() {
    let sandbox = RunningSandbox::up();
    let mut surroundings = Surroundings::of(&sandbox);
    surroundings.set("M8TRX_BRAIN_URL", brain_without_routes());
    let key = surroundings.file("brain-key", "m8k_minted_elsewhere");
    let began = Instant::now();
    let ended = surroundings.m8trx(&[
        "onboard",
        "cust_a",
        "--yes",
        "--brain-key-file",
        key.to_str().unwrap(),
    ]);
    ended.assert_code(3);
    assert!(
        ended.stderr.contains("has no route GET /v1/events"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("brain.database_url"), "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(60));
    // By the admin token, a key cannot be minted there either.
    let ended = surroundings.m8trx(&["onboard", "cust_b", "--yes"]);
    ended.assert_code(3);
    assert!(ended.stderr.contains("POST /v1/keys"), "{ended:?}");
    assert!(ended.stderr.contains("--mint-command"), "{ended:?}");
}
