//! Running the binary in an environment of its own, against a sandbox that outlives single commands.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// The binary under test.
pub const M8TRX: &str = env!("CARGO_BIN_EXE_m8trx");

/// A copy of the binary that every user can run: nobody else can look into root's cache.
pub fn binary_for_anyone(surroundings: &Surroundings) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let home = surroundings.home.path();
    let binary = home.join("m8trx");
    if !binary.exists() {
        std::fs::copy(M8TRX, &binary).unwrap();
        std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    binary
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The one JSON document on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// A home of its own and no variable of the machine's, so that nothing real can be reached.
pub struct Surroundings {
    pub home: tempfile::TempDir,
    pub variables: BTreeMap<String, String>,
}

impl Surroundings {
    pub fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
            variables: BTreeMap::new(),
        }
    }

    /// A home whose commands talk to `sandbox`.
    pub fn of(sandbox: &RunningSandbox) -> Self {
        let mut surroundings = Self::new();
        surroundings.variables = sandbox.environment.clone();
        surroundings
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.home.path())
            // Without these, the SDK would ask the machine's own metadata service for credentials.
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(&self.variables)
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub fn m8trx(&self, arguments: &[&str]) -> Ended {
        ended(self.command(M8TRX).args(arguments))
    }

    /// Starts the binary; its stderr can be read line by line.
    pub fn start(&self, arguments: &[&str]) -> Started {
        self.started(self.command(M8TRX).args(arguments))
    }

    /// The same by another command, `nohup` for one.
    pub fn start_with(&self, program: &str, arguments: &[&str]) -> Started {
        self.started(self.command(program).arg(M8TRX).args(arguments))
    }

    fn started(&self, command: &mut Command) -> Started {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Started { child, stderr }
    }

    /// A file that nobody else can read, as those with secrets must be.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        self.file_with_mode(name, text, 0o600)
    }

    pub fn file_with_mode(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

pub fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A command that is still running.
pub struct Started {
    pub child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Started {
    /// Reads stderr until a line that `wanted` accepts; `false` when stderr ends first.
    pub fn read_until(&mut self, wanted: impl Fn(&str) -> bool) -> bool {
        let mut line = String::new();
        loop {
            line.clear();
            if self.stderr.read_line(&mut line).unwrap() == 0 {
                return false;
            }
            if wanted(line.trim_end()) {
                return true;
            }
        }
    }

    /// Waits for the end, with what had not been read yet.
    pub fn end(mut self) -> Ended {
        let mut stderr = String::new();
        self.stderr.read_to_string(&mut stderr).unwrap();
        let mut stdout = String::new();
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut stdout)
            .unwrap();
        let status = self.child.wait().unwrap();
        Ended {
            code: status.code().unwrap_or(-1),
            stdout,
            stderr,
        }
    }
}

/// `m8trx sandbox up`, ended when dropped.
pub struct RunningSandbox {
    child: Child,
    // Its working folder, until it has ended.
    _surroundings: Surroundings,
    pub environment: BTreeMap<String, String>,
}

impl RunningSandbox {
    pub fn up() -> Self {
        Self::up_with(&[])
    }

    /// With options of `sandbox up`.
    pub fn up_with(options: &[&str]) -> Self {
        let surroundings = Surroundings::new();
        let mut child = surroundings
            .command(M8TRX)
            .args(["sandbox", "up", "--output", "json"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let document: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(document["schema"], "m8trx.sandbox/1");
        let environment = document["environment"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect();
        Self {
            child,
            _surroundings: surroundings,
            environment,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A file with an auth key for a customer's hosts, made as in Tailscale's admin console.
    pub fn auth_key_file(&self, surroundings: &Surroundings, customer: &str) -> PathBuf {
        let tag = customer
            .replace("cust_", "tag:m8trx-cust-")
            .replace('_', "-");
        let url = format!(
            "{}/_sandbox/keys",
            self.environment["M8TRX_TAILSCALE_API_URL"]
        );
        let asked = serde_json::json!({ "tags": [tag] }).to_string();
        let output = Command::new("curl")
            .args(["-qfsS", "--noproxy", "*", "-d", &asked, &url])
            .output()
            .unwrap();
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        surroundings.file("tailscale-auth-key", made["key"].as_str().unwrap())
    }

    /// Every call the cloud has handled, as its ledger has them.
    pub fn calls(&self) -> Vec<Value> {
        let url = format!("{}/_sandbox/calls", self.environment["AWS_ENDPOINT_URL"]);
        let calls: Value = serde_json::from_str(&get(&url)).unwrap();
        calls
            .as_array()
            .or_else(|| calls["calls"].as_array())
            .unwrap()
            .clone()
    }

    /// What the brain answers, asked with the admin token unless another bearer is given.
    pub fn brain(
        &self,
        method: &str,
        path: &str,
        bearer: Option<&str>,
        body: Option<&Value>,
    ) -> Value {
        let token = std::fs::read_to_string(&self.environment["M8TRX_BRAIN_ADMIN_TOKEN_FILE"]);
        let token = token.unwrap().trim().to_owned();
        let mut curl = Command::new("curl");
        curl.args(["-qfsS", "--noproxy", "*", "-X", method]).args([
            "-H",
            &format!("Authorization: Bearer {}", bearer.unwrap_or(&token)),
        ]);
        if let Some(body) = body {
            curl.args([
                "-H",
                "Content-Type: application/json",
                "-d",
                &body.to_string(),
            ]);
        }
        let answer = ended(curl.arg(format!("{}{path}", self.environment["M8TRX_BRAIN_URL"])));
        answer.assert_code(0);
        serde_json::from_str(&answer.stdout).unwrap_or(Value::Null)
    }

    /// A new key of a customer, and the brain's id of it.
    pub fn mint(&self, customer: &str) -> (String, String) {
        let body = serde_json::json!({"customer_id": customer, "label": "a test"});
        let minted = self.brain("POST", "/v1/keys", None, Some(&body));
        let text = |name: &str| minted[name].as_str().unwrap().to_owned();
        (text("key"), text("id"))
    }

    /// The ids of a customer's valid keys, and what they were minted for.
    pub fn brain_keys(&self, customer: &str) -> Vec<(String, String)> {
        let keys = self.brain(
            "GET",
            &format!("/v1/keys?customer_id={customer}"),
            None,
            None,
        );
        let text = |key: &Value, name: &str| key[name].as_str().unwrap().to_owned();
        let keys = keys["keys"].as_array().unwrap();
        keys.iter()
            .map(|key| (text(key, "id"), text(key, "label")))
            .collect()
    }

    /// The customer's heartbeats, newest first.
    pub fn heartbeats(&self, key: &str) -> Vec<Value> {
        let events = self.brain(
            "GET",
            "/v1/events?event_type=heartbeat&limit=1000",
            Some(key),
            None,
        );
        events["events"].as_array().unwrap().clone()
    }

    /// The actions among the calls that change something and were let through.
    pub fn changes(&self) -> Vec<String> {
        self.calls()
            .iter()
            .filter(|call| call["mutating"] == true && call["error"].is_null())
            .map(|call| call["action"].as_str().unwrap().to_owned())
            .collect()
    }

    /// How often an action succeeded.
    pub fn count(&self, action: &str) -> usize {
        self.changes().iter().filter(|name| *name == action).count()
    }
}

impl Drop for RunningSandbox {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// A plain HTTP GET on loopback.
pub fn get(url: &str) -> String {
    let output = Command::new("curl")
        .args(["-qfsS", "--noproxy", "*", url])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Sends a heartbeat of a customer to the brain, as one of its hosts would.
pub fn beat(surroundings: &Surroundings, brain: &str, customer: &str, hostname: &str) {
    let parameter = format!("{customer}/brain-key");
    let shown = surroundings.m8trx(&[
        "params", "show", &parameter, "--reveal", "--yes", "--output", "json",
    ]);
    let key = shown.assert_code(0).json()["value"]
        .as_str()
        .unwrap()
        .to_owned();
    let event = serde_json::json!({
        "event_type": "heartbeat",
        "ts": jiff::Timestamp::now().to_string(),
        "payload": { "hostname": hostname },
    });
    let header = surroundings.file("header", &format!("Authorization: Bearer {key}"));
    let sent = ended(Command::new("curl").args([
        "-qfsS",
        "--noproxy",
        "*",
        "-H",
        &format!("@{}", header.display()),
        "-d",
        &event.to_string(),
        &format!("{brain}/v1/events"),
    ]));
    sent.assert_code(0);
}

/// Every regular file below a directory.
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}
