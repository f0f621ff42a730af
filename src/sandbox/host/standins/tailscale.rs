//! `tailscale`: the flags and checks of the real client; joining is a request to the sandbox's control plane. Its failure texts are the
//! real client's.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::https::post;
use super::{err, out, tailscaled, warn_operator};
use crate::sandbox::host::systemd::span;

pub(super) const VERSION: &str = "1.90.8";
const CONTROL: &str = "https://controlplane.tailscale.com";
const STATE: &str = "/var/lib/tailscale/tailscaled.state";

/// Flags of `up` and `set`: a name, and whether it takes a value.
const FLAGS: [(&str, bool); 27] = [
    ("accept-dns", false),
    ("accept-risk", true),
    ("accept-routes", false),
    ("advertise-connector", false),
    ("advertise-exit-node", false),
    ("advertise-routes", true),
    ("advertise-tags", true),
    ("auth-key", true),
    ("authkey", true),
    ("auto-update", false),
    ("client-id", true),
    ("client-secret", true),
    ("exit-node", true),
    ("exit-node-allow-lan-access", false),
    ("force-reauth", false),
    ("hostname", true),
    ("json", false),
    ("login-server", true),
    ("netfilter-mode", true),
    ("operator", true),
    ("qr", false),
    ("reset", false),
    ("shields-up", false),
    ("snat-subnet-routes", false),
    ("ssh", false),
    ("stateful-filtering", false),
    ("timeout", true),
];

/// What the host remembers of its membership.
#[derive(Debug, Serialize, Deserialize)]
struct Membership {
    node_id: String,
    ip: String,
    login_name: String,
    hostname: String,
    tags: Vec<String>,
    ssh: bool,
    up: bool,
}

impl Membership {
    fn read() -> Option<Membership> {
        serde_json::from_slice(&fs::read(STATE).ok()?).ok()
    }

    fn write(&self) -> io::Result<()> {
        if let Some(folder) = Path::new(STATE).parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(STATE, serde_json::to_vec(self)?)?;
        fs::set_permissions(STATE, Permissions::from_mode(0o600))
    }
}

/// Runs `tailscale`.
pub(super) fn run(arguments: &[String]) -> i32 {
    let arguments: Vec<_> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--socket="))
        .cloned()
        .collect();
    let Some((command, rest)) = arguments.split_first() else {
        err(
            "The easiest, most secure way to use WireGuard.\n\nUSAGE\n  tailscale [flags] <subcommand> [command flags]",
        );
        return 1;
    };
    if matches!(command.as_str(), "version" | "--version" | "-version") {
        out(format!("{VERSION}\n  go version: go1.25.3"));
        return 0;
    }
    let known = ["up", "login", "set", "status", "ip", "down", "logout"];
    if !known.contains(&command.as_str()) {
        err(format!("tailscale: unknown subcommand: {command}"));
        return 1;
    }
    if UnixStream::connect(tailscaled::SOCKET).is_err() {
        let failed = "failed to connect to local tailscaled; it doesn't appear to be running (sudo systemctl start tailscaled ?)";
        err(failed);
        return 1;
    }
    let result = match command.as_str() {
        "up" | "login" => up(rest),
        "status" => return status(rest),
        "ip" => ip(rest),
        "set" => flags(rest).map(drop),
        "down" => match Membership::read() {
            Some(mut membership) => {
                membership.up = false;
                membership.write().map_err(|error| error.to_string())
            }
            None => Ok(()),
        },
        _ => logout(),
    };
    match result {
        Ok(()) => 0,
        Err(text) => {
            err(text);
            1
        }
    }
}

type Flags = Vec<(&'static str, String)>;

/// Go's flag syntax: one or two dashes, `=value` or the next word, and no value word for a yes-or-no flag.
fn flags(arguments: &[String]) -> Result<Flags, String> {
    let mut flags = Flags::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let Some(name) = argument
            .strip_prefix("--")
            .or_else(|| argument.strip_prefix('-'))
        else {
            return Err(format!("too many non-flag arguments: {argument:?}"));
        };
        let (name, value) = name
            .split_once('=')
            .map_or((name, None), |(name, value)| (name, Some(value.to_owned())));
        let Some((name, takes_value)) = FLAGS.iter().find(|(known, _)| *known == name) else {
            return Err(format!("flag provided but not defined: -{name}"));
        };
        let value = match value {
            Some(value) => value,
            None if *takes_value => arguments
                .next()
                .cloned()
                .ok_or(format!("flag needs an argument: -{name}"))?,
            None => "true".to_owned(),
        };
        if !takes_value && !["true", "false", "1", "0", "t", "f"].contains(&value.as_str()) {
            return Err(format!(
                "invalid boolean value {value:?} for -{name}: parse error"
            ));
        }
        flags.push((name, value));
    }
    Ok(flags)
}

fn get<'a>(flags: &'a Flags, name: &str) -> Option<&'a str> {
    flags
        .iter()
        .rev()
        .find(|(flag, _)| *flag == name)
        .map(|(_, value)| value.as_str())
}

fn is_set(flags: &Flags, name: &str) -> bool {
    get(flags, name).is_some_and(|value| matches!(value, "true" | "1" | "t"))
}

/// The client's own check of a tag, before anything reaches the network.
fn check_tag(tag: &str) -> Result<(), String> {
    let problem = match tag.strip_prefix("tag:") {
        None => "tags must start with 'tag:'",
        Some("") => "tag names must not be empty",
        Some(name) if !name.starts_with(|first: char| first.is_ascii_alphabetic()) => {
            "tag names must start with a letter, after 'tag:'"
        }
        Some(name)
            if !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') =>
        {
            "tag names can only contain numbers, letters, or dashes"
        }
        Some(_) => return Ok(()),
    };
    Err(format!("tag: {tag:?}: {problem}"))
}

fn auth_key(flags: &Flags) -> Result<Option<String>, String> {
    let Some(value) = get(flags, "auth-key").or(get(flags, "authkey")) else {
        return Ok(None);
    };
    if let Some(path) = value.strip_prefix("file:") {
        let text = fs::read_to_string(path).map_err(|error| {
            let reason = if error.kind() == io::ErrorKind::NotFound {
                "no such file or directory".to_owned()
            } else {
                error.to_string()
            };
            format!("open {path}: {reason}")
        })?;
        return Ok(Some(text.trim().to_owned()));
    }
    warn_operator(
        "the auth key was on the command line of tailscale, where every process of the host can read it; give --auth-key=file:PATH",
    );
    Ok(Some(value.to_owned()))
}

/// Go's durations (`90s`, `1m30s`); 0 means no limit.
fn timeout(flags: &Flags) -> Result<Duration, String> {
    let Some(text) = get(flags, "timeout") else {
        return Ok(Duration::MAX);
    };
    let bare = text.bytes().all(|byte| byte.is_ascii_digit());
    match span::parse(text).filter(|_| !bare || text == "0") {
        Some(Duration::ZERO) => Ok(Duration::MAX),
        Some(limit) => Ok(limit),
        None => Err(format!(
            "invalid value {text:?} for flag -timeout: parse error"
        )),
    }
}

fn up(arguments: &[String]) -> Result<(), String> {
    let flags = flags(arguments)?;
    let limit = timeout(&flags)?;
    let tags: Vec<_> = get(&flags, "advertise-tags")
        .unwrap_or_default()
        .split(',')
        .filter(|tag| !tag.is_empty())
        .map(str::to_owned)
        .collect();
    for tag in &tags {
        check_tag(tag)?;
    }
    if let Some(server) = get(&flags, "login-server")
        && server != CONTROL
    {
        return Err(format!("the sandbox's tailscale knows only {CONTROL}"));
    }
    let key = auth_key(&flags)?;
    let hostname = get(&flags, "hostname").map(str::to_owned);
    let hostname = hostname.unwrap_or_else(|| {
        nix::unistd::gethostname()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    });
    if let Some(mut membership) = Membership::read()
        && !is_set(&flags, "force-reauth")
    {
        // Already a member: the node's key is still good, and an auth key is not looked at.
        membership.up = true;
        return membership.write().map_err(|error| error.to_string());
    }
    let start = Instant::now();
    let timed_out = || {
        "timeout waiting for Tailscale service to enter a Running state; check health with \"tailscale status\"".to_owned()
    };
    let Some(key) = key else {
        err("\nTo authenticate, visit:\n\n\thttps://login.tailscale.com/a/sandbox\n");
        sleep_until(start, limit);
        return Err(timed_out());
    };
    let request = json!({"auth_key": key, "tags": tags, "hostname": hostname, "version": VERSION})
        .to_string();
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let (status, text) = loop {
        let left = limit.saturating_sub(start.elapsed());
        match post(
            &format!("{CONTROL}/machine/register"),
            headers.clone(),
            request.clone(),
            left.min(Duration::from_secs(30)),
        ) {
            // The real client keeps trying until its time is over.
            Ok((500.., _)) | Err(_) if start.elapsed() < limit => {
                std::thread::sleep(Duration::from_millis(500).min(left))
            }
            Ok(answer) => break answer,
            Err(_) => return Err(timed_out()),
        }
    };
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    let field = |name: &str| {
        answer
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    if status != 200 {
        let error = field("error");
        if error.starts_with("To approve your machine") {
            err(
                "\nTo approve your machine, visit (as admin):\n\n\thttps://login.tailscale.com/admin\n",
            );
            sleep_until(start, limit);
            return Err(timed_out());
        }
        return Err(format!("backend error: {error}"));
    }
    let membership = Membership {
        node_id: field("node_id"),
        ip: field("ip"),
        login_name: field("login_name"),
        hostname,
        tags,
        ssh: is_set(&flags, "ssh"),
        up: true,
    };
    membership.write().map_err(|error| error.to_string())
}

fn sleep_until(start: Instant, limit: Duration) {
    std::thread::sleep(limit.saturating_sub(start.elapsed()));
}

fn status(arguments: &[String]) -> i32 {
    let as_json = arguments
        .iter()
        .any(|argument| argument.trim_start_matches('-').starts_with("json"));
    let membership = Membership::read();
    let state = match &membership {
        None => "NeedsLogin",
        Some(membership) if membership.up => "Running",
        Some(_) => "Stopped",
    };
    if as_json {
        let this = membership.as_ref().map(|membership| {
            json!({"ID": membership.node_id, "HostName": membership.hostname, "TailscaleIPs": [membership.ip],
                   "Tags": membership.tags, "Online": membership.up})
        });
        let ips = membership
            .as_ref()
            .map(|membership| vec![membership.ip.clone()]);
        let status = json!({"Version": VERSION, "BackendState": state, "HaveNodeKey": membership.is_some(),
                            "TailscaleIPs": ips, "Self": this, "Health": [], "Peer": {}});
        out(format!("{status:#}"));
        return 0;
    }
    match membership {
        None => {
            out("Logged out.");
            1
        }
        Some(membership) if !membership.up => {
            out("Tailscale is stopped.");
            1
        }
        Some(membership) => {
            let owner = if membership.tags.is_empty() {
                membership.login_name
            } else {
                "tagged-devices".to_owned()
            };
            out(format!(
                "{:<15} {:<20} {owner:<12} linux   -",
                membership.ip, membership.hostname
            ));
            0
        }
    }
}

fn ip(arguments: &[String]) -> Result<(), String> {
    let membership = Membership::read().filter(|membership| membership.up);
    let membership = membership.ok_or("no current Tailscale IPs; state: NeedsLogin")?;
    if arguments
        .iter()
        .any(|argument| matches!(argument.as_str(), "-6" | "--6"))
    {
        return Err("no Tailscale IPv6 address".to_owned());
    }
    out(membership.ip);
    Ok(())
}

fn logout() -> Result<(), String> {
    if let Some(membership) = Membership::read() {
        let request = json!({"node_id": membership.node_id}).to_string();
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        // The node leaves even where the control plane cannot be told; it is ephemeral.
        let _ = post(
            &format!("{CONTROL}/machine/logout"),
            headers,
            request,
            Duration::from_secs(5),
        );
        fs::remove_file(STATE).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        let flags_of = |line: &str| flags(&words(line));
        let all =
            flags_of("--auth-key=file:/run/k --ssh -advertise-tags tag:a,tag:b --timeout=60s")
                .unwrap();
        assert_eq!(get(&all, "auth-key"), Some("file:/run/k"));
        assert!(is_set(&all, "ssh"));
        assert_eq!(get(&all, "advertise-tags"), Some("tag:a,tag:b"));
        assert_eq!(timeout(&all), Ok(Duration::from_secs(60)));
        assert_eq!(
            timeout(&flags_of("--timeout=0").unwrap()),
            Ok(Duration::MAX)
        );
        assert!(timeout(&flags_of("--timeout=60").unwrap()).is_err());
        assert_eq!(
            flags_of("--tags=x").unwrap_err(),
            "flag provided but not defined: -tags"
        );
        assert_eq!(
            flags_of("--ssh=maybe").unwrap_err(),
            "invalid boolean value \"maybe\" for -ssh: parse error"
        );
    }

    #[test]
    fn tags_are_checked_by_the_client() {
        assert_eq!(check_tag("tag:m8trx-cust-b4-smoke"), Ok(()));
        assert_eq!(
            check_tag("tag:b4_smoke").unwrap_err(),
            "tag: \"tag:b4_smoke\": tag names can only contain numbers, letters, or dashes"
        );
        for bad in ["b4", "tag:", "tag:4b", "tag:é"] {
            assert!(check_tag(bad).is_err(), "{bad}");
        }
    }
}
