//! How a device joins: what `tailscale up` asks of the control plane, and what it is told.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AuthKey, Device, State, Tailnet, USER, check_tag};
use crate::cloud::same;
use crate::fault::Fault;
use crate::http::Request;
use crate::random;

/// What the API says of a device that Tailnet Lock shuts out.
const LOCKED_OUT: &str =
    "this node is locked out; it will not have connectivity until it is signed";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    auth_key: String,
    #[serde(default)]
    tags: Vec<String>,
    hostname: String,
    /// Version of the client; taken and not looked at.
    #[serde(default, rename = "version")]
    _version: Option<String>,
}

impl Tailnet {
    /// Lets a device in, or says why not in the words that `tailscale up` prints after `backend error: `.
    pub(super) fn register(&self, request: &Request, instance: &str) -> Result<Value, String> {
        let asked: Registration = serde_json::from_slice(request.body())
            .map_err(|error| format!("the registration cannot be read: {error}"))?;
        for tag in &asked.tags {
            check_tag(tag)?;
        }
        let mut state = self.state();
        let rest = asked
            .auth_key
            .strip_prefix("tskey-auth-")
            .and_then(|rest| rest.split_once('-'));
        let (id, secret) =
            rest.ok_or_else(|| "invalid key: unable to validate API key".to_owned())?;
        // A key that was wrapped for Tailnet Lock carries a signature and a key of its own behind the secret.
        let (secret, wrap) = match secret.split_once("--TL") {
            Some((secret, wrap)) => (secret, Some(wrap)),
            None => (secret, None),
        };
        if self.0.faults.contains(&Fault::TailscaleKeyRejected) {
            return Err(format!("invalid key: API key {id} not valid"));
        }
        let key = state
            .keys
            .get(id)
            .filter(|key| same(&key.secret, secret) && key.revoked.is_none())
            .ok_or_else(|| "invalid key: API key does not exist".to_owned())?;
        if key.expires <= Timestamp::now() || (key.used && !key.spec.reusable) {
            return Err(format!("invalid key: API key {id} not valid"));
        }
        let refused: Vec<&str> = asked
            .tags
            .iter()
            .filter(|tag| {
                self.0.faults.contains(&Fault::TailscaleTagRefused) || !state.permits(key, tag)
            })
            .map(String::as_str)
            .collect();
        if !refused.is_empty() {
            return Err(format!(
                "requested tags [{}] are invalid or not permitted",
                refused.join(" ")
            ));
        }
        let tags = if asked.tags.is_empty() {
            key.spec.tags.iter().cloned().collect()
        } else {
            asked.tags
        };
        let ephemeral = key.spec.ephemeral;
        let known = state.devices.get(instance);
        let authorized = !state.conduct.device_approval
            || key.spec.preauthorized
            || known.is_some_and(|device| device.authorized);
        let lock_error = if state.conduct.lock && !wrap.is_some_and(is_signature) {
            LOCKED_OUT.to_owned()
        } else {
            String::new()
        };
        if let Some(key) = state.keys.get_mut(id) {
            key.used = true;
        }
        // A device that logs in again keeps its address.
        let known = state.devices.get(instance);
        let (node_id, ip, node_key, created) = match known {
            Some(device) => (
                device.node_id.clone(),
                device.ip.clone(),
                device.node_key.clone(),
                device.created,
            ),
            None => {
                let number = state.joined_so_far + 1;
                state.joined_so_far = number;
                let ip = format!("100.64.{}.{}", number / 250, number % 250 + 1);
                (
                    format!("n{}CNTRL", random::mixed(12)),
                    ip,
                    format!("nodekey:{}", random::hex(64)),
                    Timestamp::now(),
                )
            }
        };
        let login_name = if tags.is_empty() {
            USER
        } else {
            "tagged-devices"
        };
        let answer = json!({"node_id": node_id, "ip": ip, "login_name": login_name});
        let device = Device {
            node_id,
            hostname: asked.hostname,
            ip,
            tags,
            instance_id: instance.to_owned(),
            ephemeral,
            online: authorized,
            last_seen: Timestamp::now(),
            created,
            authorized,
            node_key,
            lock_error,
        };
        state.devices.insert(instance.to_owned(), device);
        if authorized {
            Ok(answer)
        } else {
            Err("To approve your machine, visit (as admin)".to_owned())
        }
    }
}

impl State {
    /// A tagged key gives its own tags only, as long as they are defined; an untagged one those that its user owns.
    fn permits(&self, key: &AuthKey, tag: &str) -> bool {
        if key.spec.tags.is_empty() {
            return self.may_assign(tag, &[USER]);
        }
        let undefined = !self.policy.defines(tag) && !self.may_assign(tag, &[]);
        key.spec.tags.contains(tag) && !undefined
    }
}

/// `<signature>-<key>`, as `tailscale lock sign` appends it. What is signed is not checked, its form is.
fn is_signature(wrap: &str) -> bool {
    let charset = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    wrap.split_once('-').is_some_and(|(signature, key)| {
        signature.len() >= 16
            && key.len() >= 16
            && (signature.to_owned() + key).chars().all(charset)
    })
}
