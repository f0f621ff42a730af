//! `tailscale`: the flags and checks of the real client; joining is a request to the sandbox's control plane. Its failure texts are the
//! real client's.

mod flags;

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
use flags::{Flags, check_tag, flags, get, is_set, timeout};

pub(super) const VERSION: &str = "1.90.8";
const CONTROL: &str = "https://controlplane.tailscale.com";
const STATE: &str = "/var/lib/tailscale/tailscaled.state";

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
            // A command line that is not understood has an exit code of its own.
            let usage = ["flag ", "invalid value ", "invalid boolean value "];
            let usage = usage.iter().any(|start| text.starts_with(start));
            err(text);
            if usage { 2 } else { 1 }
        }
    }
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
        let this = match &membership {
            Some(membership) => {
                json!({"ID": membership.node_id, "HostName": membership.hostname, "TailscaleIPs": [membership.ip],
                       "Tags": membership.tags, "Online": membership.up})
            }
            None => json!({"ID": "", "Online": false}),
        };
        let ips = membership
            .as_ref()
            .map(|membership| vec![membership.ip.clone()]);
        let status = json!({"Version": VERSION, "BackendState": state, "HaveNodeKey": membership.is_some(),
                            "TailscaleIPs": ips, "Self": this, "Health": [], "Peer": {},
                            "MagicDNSSuffix": "tail8trx.ts.net"});
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
    // A host that is down keeps its address.
    let membership = Membership::read().ok_or("no current Tailscale IPs; state: NeedsLogin")?;
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
