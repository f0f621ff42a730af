//! The way to a shell on a host: Tailscale SSH where this machine and the host are in the tailnet, else Session Manager.

use std::process::Command;
use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;

use super::doctor::is_program;
use crate::aws::Aws;
use crate::aws::ec2::Instance;
use crate::child;
use crate::config::{Settings, is_loopback};
use crate::terminal::failure::{Failure, Kind};

/// How long `tailscale status` may take.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// What a person may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Via {
    /// Tailscale SSH, as root.
    Tailscale,
    /// AWS Session Manager, as ssm-user, who may sudo.
    SessionManager,
}

/// A way to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// The host's name in the tailnet.
    Tailscale(String),
    /// What the `aws` command is told besides.
    SessionManager {
        instance: String,
        place: Vec<String>,
    },
}

#[derive(Deserialize)]
struct Status {
    #[serde(rename = "Peer", default)]
    peers: Option<std::collections::HashMap<String, Peer>>,
}

#[derive(Deserialize)]
struct Peer {
    #[serde(rename = "DNSName", default)]
    dns_name: String,
    #[serde(rename = "HostName", default)]
    host_name: String,
    #[serde(rename = "Online", default)]
    online: bool,
}

impl Peer {
    /// Its first label, by which the tailnet finds it.
    fn name(&self) -> &str {
        let dns = self.dns_name.split('.').next().unwrap_or_default();
        if dns.is_empty() { &self.host_name } else { dns }
    }
}

/// The host among this machine's peers, where it is online: its name ends with the instance's id.
async fn peer(host: &Instance) -> Result<String, String> {
    if !is_program("tailscale") {
        return Err("this machine has no `tailscale`".to_owned());
    }
    let output = child::run("tailscale", &["status", "--json"], STATUS_TIMEOUT)
        .await
        .map_err(|e| format!("`tailscale status` {e}"))?;
    if !output.status.success() {
        return Err("this machine is not in the tailnet (tailscale status)".to_owned());
    }
    let status: Status = serde_json::from_slice(&output.stdout)
        .map_err(|_| "`tailscale status --json` answers something else".to_owned())?;
    let peers = status.peers.unwrap_or_default();
    let found = peers.values().filter(|peer| {
        peer.name()
            .to_lowercase()
            .ends_with(&host.id.to_lowercase())
    });
    match found.max_by_key(|peer| peer.online) {
        Some(peer) if peer.online => Ok(peer.name().to_owned()),
        Some(_) => Err(format!("{} is in the tailnet, and offline", host.id)),
        None => Err(format!("this machine sees no {} in the tailnet", host.id)),
    }
}

fn session_manager(host: &Instance, aws: &Aws, settings: &Settings) -> Result<Way, String> {
    if settings.aws.endpoint_url.as_ref().is_some_and(is_loopback) {
        return Err("a sandbox has no Session Manager".to_owned());
    }
    for program in ["aws", "session-manager-plugin"] {
        if !is_program(program) {
            return Err(format!("this machine has no `{program}`"));
        }
    }
    let mut place = vec!["--region".to_owned(), aws.region.clone()];
    if let Some(profile) = &settings.aws.profile {
        place.extend(["--profile".to_owned(), profile.name.clone()]);
    }
    if let Some(url) = &settings.aws.endpoint_url {
        place.extend(["--endpoint-url".to_owned(), url.to_string()]);
    }
    Ok(Way::SessionManager {
        instance: host.id.clone(),
        place,
    })
}

/// The way to a host, or why there is none.
pub(super) async fn way(
    host: &Instance,
    via: Option<Via>,
    aws: &Aws,
    settings: &Settings,
) -> Result<Way, Failure> {
    let no_way = |reasons: Vec<String>| {
        let mut failure = Failure::words(
            Kind::Precondition,
            format!("{} cannot be reached from here", host.id),
        )
        .hint(format!(
            "join the tailnet with tag:m8trx-team (the policy's SSH rule lets it in), or install the AWS CLI with its session-manager-plugin and give the host's role the statement for it (runbook, section IAM). Without a shell: m8trx logs {} shows its console",
            host.id
        ));
        failure.causes.extend(reasons);
        failure
    };
    if !host.is_live() {
        return Err(Failure::words(
            Kind::Precondition,
            format!("{} is {}: there is nothing to reach", host.id, host.state),
        )
        .hint(format!(
            "its last words: m8trx logs {}; why it ended: m8trx diagnose {0}",
            host.id
        )));
    }
    let mut reasons = Vec::new();
    if via != Some(Via::SessionManager) {
        match peer(host).await {
            Ok(node) => return Ok(Way::Tailscale(node)),
            Err(why) => reasons.push(format!("Tailscale SSH: {why}")),
        }
    }
    if via != Some(Via::Tailscale) {
        match session_manager(host, aws, settings) {
            Ok(way) => return Ok(way),
            Err(why) => reasons.push(format!("Session Manager: {why}")),
        }
    }
    Err(no_way(reasons))
}

impl Way {
    /// For people.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Tailscale(node) => format!("Tailscale SSH to {node}, as root"),
            Self::SessionManager { instance, .. } => {
                format!("Session Manager to {instance}, as ssm-user (sudo -i for root)")
            }
        }
    }

    /// The stable word of the JSON output.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Tailscale(_) => "tailscale",
            Self::SessionManager { .. } => "session-manager",
        }
    }

    /// The command that opens a shell there, or runs a command in one.
    pub(super) fn command(&self, remote: &[String]) -> Command {
        match self {
            Self::Tailscale(node) => {
                let mut command = Command::new("tailscale");
                command.args(["ssh", &format!("root@{node}")]).args(remote);
                command
            }
            Self::SessionManager { instance, place } => {
                let mut command = Command::new("aws");
                command
                    .args(["ssm", "start-session", "--target", instance])
                    .args(place);
                if !remote.is_empty() {
                    let line = serde_json::json!({ "command": [remote.join(" ")] });
                    command.args(["--document-name", "AWS-StartInteractiveCommand"]);
                    command.args(["--parameters", &line.to_string()]);
                }
                command
            }
        }
    }
}

/// A command as it could be pasted.
pub(super) fn pasted(command: &Command) -> String {
    let words = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned());
    shell_words::join(words)
}
