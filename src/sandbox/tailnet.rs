//! The tailnet: auth keys, the devices that joined with them, the install script, and Tailscale's API.

mod api;
mod conduct;
mod hujson;
mod join;
mod policy;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::fault::Fault;
use super::http::{Handler, Request, Response, json as respond, response};
use super::random;
use conduct::Conduct;
use policy::Policy;

/// What `https://tailscale.com/install.sh` answers in the sandbox.
const INSTALL_SCRIPT: &str = include_str!("host/tailscale-install.sh");

/// The user whose key the operator pastes.
const USER: &str = "operator@m8trx.example";

/// How customers' tags begin.
const CUSTOMER_TAG_PREFIX: &str = "tag:m8trx-cust-";

/// Default and longest life of an auth key.
pub(super) const KEY_LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);

/// What a new auth key may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthKeySpec {
    /// The tags of devices that join with it; a key without tags joins as its user.
    pub tags: BTreeSet<String>,
    /// Good for more than one device.
    pub reusable: bool,
    /// Devices are removed after they went offline.
    pub ephemeral: bool,
    /// Devices need no approval by an administrator.
    pub preauthorized: bool,
    /// How long it is good; at most 90 days.
    pub lifetime: SignedDuration,
}

impl Default for AuthKeySpec {
    fn default() -> Self {
        Self {
            tags: BTreeSet::new(),
            reusable: true,
            ephemeral: true,
            preauthorized: true,
            lifetime: KEY_LIFETIME,
        }
    }
}

struct AuthKey {
    secret: String,
    spec: AuthKeySpec,
    description: String,
    created: Timestamp,
    expires: Timestamp,
    revoked: Option<Timestamp>,
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
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// When it joined.
    pub created: Timestamp,
    /// Approved by an administrator, or by its key.
    pub authorized: bool,
    /// `nodekey:…`
    pub node_key: String,
    /// Why Tailnet Lock shuts it out; empty where it does not.
    pub lock_error: String,
}

struct State {
    /// By id.
    keys: BTreeMap<String, AuthKey>,
    /// By instance.
    devices: BTreeMap<String, Device>,
    /// Devices that are no hosts, as the API shows them.
    residents: Vec<Value>,
    joined_so_far: u32,
    policy: Policy,
    /// The API's tokens.
    tokens: BTreeMap<String, Token>,
    /// OAuth clients that were made later, in the admin console.
    clients: Vec<Client>,
    conduct: Conduct,
    calls: Vec<Value>,
}

/// An OAuth client.
#[derive(Clone)]
pub(crate) struct Client {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: SecretString,
    /// What it may do; none where that is what [`Conduct`] says.
    scopes: Option<Vec<String>>,
}

impl Client {
    fn new(scopes: Option<Vec<String>>) -> Self {
        let id = format!("k{}CNTRL", random::mixed(10));
        let secret = format!("tskey-client-{id}-{}", random::mixed(32)).into();
        Self { id, secret, scopes }
    }
}

/// A token of the API.
struct Token {
    until: Timestamp,
    client: Client,
}

struct Inner {
    state: Mutex<State>,
    client: Client,
    faults: Vec<Fault>,
}

/// A tailnet; clones share one state.
#[derive(Clone)]
pub(crate) struct Tailnet(Arc<Inner>);

impl Tailnet {
    /// A tailnet without hosts.
    pub fn new(faults: Vec<Fault>) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                keys: BTreeMap::new(),
                devices: BTreeMap::new(),
                residents: residents(),
                joined_so_far: 0,
                policy: Policy::first(),
                tokens: BTreeMap::new(),
                clients: Vec::new(),
                conduct: Conduct::default(),
                calls: Vec::new(),
            }),
            client: Client::new(None),
            faults,
        }))
    }

    /// The OAuth client with which the operator's commands sign in.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Mints an auth key as an administrator does in the admin console.
    pub fn mint_key(&self, spec: AuthKeySpec) -> SecretString {
        self.state().mint(spec, String::new()).1
    }

    /// Deletes a key by its id; says whether it was there.
    pub fn delete_key(&self, id: &str) -> bool {
        self.state().keys.remove(id).is_some()
    }

    /// The devices that joined and were not removed.
    pub fn devices(&self) -> Vec<Device> {
        self.state().devices.values().cloned().collect()
    }

    /// Whether an instance is in the tailnet and reaches anything there.
    pub fn has_joined(&self, instance: &str) -> bool {
        let state = self.state();
        state
            .devices
            .get(instance)
            .is_some_and(|device| device.online && device.lock_error.is_empty())
    }

    /// An instance is gone: its device goes offline, and an ephemeral one is removed (at Tailscale some time later).
    pub fn instance_gone(&self, instance: &str) {
        let mut state = self.state();
        let lingers = state.conduct.ephemeral_devices_linger;
        if let Some(device) = state.devices.get_mut(instance) {
            device.online = false;
            device.last_seen = Timestamp::now();
            if device.ephemeral && !lingers {
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
}

impl State {
    fn mint(&mut self, spec: AuthKeySpec, description: String) -> (String, SecretString) {
        let id = format!("k{}CNTRL", random::mixed(10));
        let secret = random::mixed(32);
        let key = format!("tskey-auth-{id}-{secret}");
        let created = Timestamp::now();
        let expires = created + spec.lifetime.min(KEY_LIFETIME);
        let held = AuthKey {
            secret,
            spec,
            description,
            created,
            expires,
            revoked: None,
            used: false,
        };
        self.keys.insert(id.clone(), held);
        (id, key.into())
    }
}

/// The brain and the operator's laptop, as the API shows them.
fn residents() -> Vec<Value> {
    let now = Timestamp::now();
    let resident = |number: u8, node_id: &str, hostname: &str| {
        json!({
            "id": format!("10{number}"),
            "nodeId": node_id,
            "name": format!("{hostname}.tail8trx.ts.net"),
            "hostname": hostname,
            "addresses": [format!("100.64.255.{number}")],
            "user": USER,
            "os": "linux",
            "clientVersion": "1.90.8",
            "authorized": true,
            "isEphemeral": false,
            "isExternal": false,
            "created": now,
            "lastSeen": null,
            "connectedToControl": true,
            "nodeKey": format!("nodekey:{}", random::hex(64)),
            "tailnetLockError": "",
            "tailnetLockKey": format!("nlpub:{}", random::hex(64)),
        })
    };
    let mut brain = resident(1, "nBrainCNTRL", "m8trx-brain");
    brain["tags"] = json!(["tag:m8trx-brain"]);
    vec![brain, resident(2, "nLaptopCNTRL", "operators-laptop")]
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
