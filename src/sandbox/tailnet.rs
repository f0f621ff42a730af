//! The tailnet: auth keys, the devices that joined with them, and the install script.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use super::cloud::same;
use super::fault::Fault;
use super::http::{Handler, Request, Response, json as respond, response};
use super::random;

/// What `https://tailscale.com/install.sh` answers in the sandbox.
const INSTALL_SCRIPT: &str = include_str!("host/tailscale-install.sh");

/// The user whose key the operator pastes.
const USER: &str = "operator@m8trx.example";

/// The tags that this user owns in the tailnet's policy file, by their beginning.
const OWNED_TAG_PREFIX: &str = "tag:m8trx-cust-";

/// Default and longest life of an auth key.
const KEY_LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);

/// What a new auth key may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthKeySpec {
    /// The tags of devices that join with it; a key without tags joins as its user.
    pub tags: BTreeSet<String>,
    /// Good for more than one device.
    pub reusable: bool,
    /// Devices are removed after they went offline.
    pub ephemeral: bool,
    /// How long it is good; at most 90 days.
    pub lifetime: SignedDuration,
}

impl Default for AuthKeySpec {
    fn default() -> Self {
        Self {
            tags: BTreeSet::new(),
            reusable: true,
            ephemeral: true,
            lifetime: KEY_LIFETIME,
        }
    }
}

struct AuthKey {
    secret: String,
    spec: AuthKeySpec,
    expires: Timestamp,
    used: bool,
}

/// A device of the tailnet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Device {
    /// Its id.
    pub node_id: String,
    /// The name it gave.
    pub hostname: String,
    /// Its address in the tailnet.
    pub ip: String,
    /// Its tags; none when it joined as the key's user.
    pub tags: Vec<String>,
    /// The instance it runs on.
    pub instance_id: String,
    /// Removed after it goes offline.
    pub ephemeral: bool,
    /// Connected now.
    pub online: bool,
}

#[derive(Default)]
struct State {
    /// By id.
    keys: BTreeMap<String, AuthKey>,
    /// By instance.
    devices: BTreeMap<String, Device>,
    joined_so_far: u32,
}

struct Inner {
    state: Mutex<State>,
    faults: Vec<Fault>,
}

/// A tailnet; clones share one state.
#[derive(Clone)]
pub(crate) struct Tailnet(Arc<Inner>);

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
    /// A tailnet without devices.
    pub fn new(faults: Vec<Fault>) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            faults,
        }))
    }

    /// Mints an auth key.
    pub fn mint_key(&self, spec: AuthKeySpec) -> SecretString {
        let id = format!("k{}CNTRL", random::mixed(10));
        let secret = random::mixed(32);
        let key = format!("tskey-auth-{id}-{secret}");
        let expires = Timestamp::now() + spec.lifetime.min(KEY_LIFETIME);
        let held = AuthKey {
            secret,
            spec,
            expires,
            used: false,
        };
        self.state().keys.insert(id, held);
        key.into()
    }

    /// Deletes a key by its id; says whether it was there.
    pub fn delete_key(&self, id: &str) -> bool {
        self.state().keys.remove(id).is_some()
    }

    /// The devices that joined and were not removed.
    pub fn devices(&self) -> Vec<Device> {
        self.state().devices.values().cloned().collect()
    }

    /// Whether an instance is in the tailnet.
    pub fn has_joined(&self, instance: &str) -> bool {
        let state = self.state();
        state
            .devices
            .get(instance)
            .is_some_and(|device| device.online)
    }

    /// An instance is gone: its device goes offline, and an ephemeral one is removed (at Tailscale some time later).
    pub fn instance_gone(&self, instance: &str) {
        let mut state = self.state();
        if let Some(device) = state.devices.get_mut(instance) {
            device.online = false;
            if device.ephemeral {
                state.devices.remove(instance);
            }
        }
    }

    /// What answers an instance's requests to tailscale.com and the control plane.
    pub fn handler(&self, instance: String) -> Handler {
        let tailnet = self.clone();
        Arc::new(move |request| {
            let tailnet = tailnet.clone();
            let instance = instance.clone();
            Box::pin(async move { tailnet.answer(&request, &instance) })
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request, instance: &str) -> Response {
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/install.sh") => {
                response(StatusCode::OK, "text/plain; charset=utf-8", INSTALL_SCRIPT)
            }
            (&Method::POST, "/machine/register") => match self.register(request, instance) {
                Ok(device) => respond(StatusCode::OK, &device),
                Err(text) => respond(StatusCode::FORBIDDEN, &json!({ "error": text })),
            },
            (&Method::POST, "/machine/logout") => {
                self.state().devices.remove(instance);
                respond(StatusCode::OK, &json!({}))
            }
            _ => respond(
                StatusCode::NOT_FOUND,
                &json!({"error": "404 page not found"}),
            ),
        }
    }

    /// Lets a device in, or says why not in the words that `tailscale up` prints after `backend error: `.
    fn register(&self, request: &Request, instance: &str) -> Result<Value, String> {
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
        if self.0.faults.contains(&Fault::TailscaleKeyRejected) {
            return Err(format!("invalid key: API key {id} not valid"));
        }
        let key = state
            .keys
            .get(id)
            .filter(|key| same(&key.secret, secret))
            .ok_or_else(|| "invalid key: API key does not exist".to_owned())?;
        if key.expires <= Timestamp::now() || (key.used && !key.spec.reusable) {
            return Err(format!("invalid key: API key {id} not valid"));
        }
        let refused: Vec<&str> = asked
            .tags
            .iter()
            .filter(|tag| {
                self.0.faults.contains(&Fault::TailscaleTagRefused) || !key.spec.permits(tag)
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
        if let Some(key) = state.keys.get_mut(id) {
            key.used = true;
        }
        // A device that logs in again keeps its address.
        let known = state.devices.get(instance);
        let (node_id, ip) = match known {
            Some(device) => (device.node_id.clone(), device.ip.clone()),
            None => {
                let number = state.joined_so_far + 1;
                state.joined_so_far = number;
                let ip = format!("100.64.{}.{}", number / 250, number % 250 + 1);
                (format!("n{}CNTRL", random::mixed(12)), ip)
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
            online: true,
        };
        state.devices.insert(instance.to_owned(), device);
        Ok(answer)
    }
}

impl AuthKeySpec {
    /// A tagged key gives its own tags only; an untagged one those that its user owns.
    fn permits(&self, tag: &str) -> bool {
        if self.tags.is_empty() {
            return tag.starts_with(OWNED_TAG_PREFIX);
        }
        self.tags.contains(tag)
    }
}

/// The rules of Tailscale's clients for a tag, in their words.
fn check_tag(tag: &str) -> Result<(), String> {
    let Some(name) = tag.strip_prefix("tag:") else {
        return Err(format!("tag: {tag:?}: tags must start with 'tag:'"));
    };
    if name.is_empty() {
        return Err(format!("tag: {tag:?}: tag names must not be empty"));
    }
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(format!(
            "tag: {tag:?}: tag names must start with a letter, after 'tag:'"
        ));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(format!(
            "tag: {tag:?}: tag names can only contain numbers, letters, or dashes"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
