//! The brain: takes events under a customer's key, and mints keys for whoever holds the admin token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Method, StatusCode};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::cloud::same;
use super::fault::Fault;
use super::http::{Handler, Request, Response, header, json as respond};
use super::random;
use crate::customer;

const MAX_EVENT_TYPE_LENGTH: usize = 64;
/// Larger than any telemetry event; a real body is a few hundred bytes.
const MAX_EVENT_LENGTH: usize = 64 * 1024;
const MAX_LABEL_LENGTH: usize = 200;
const MAX_LIMIT: usize = 1000;

/// A stored event.
#[derive(Debug, Clone, Serialize)]
struct Event {
    customer_id: String,
    event_type: String,
    ts: Timestamp,
    payload: Value,
}

struct Key {
    id: String,
    key: SecretString,
    /// Of the key, which finds it among many; it says nothing about how much of a wrong key is right.
    digest: [u8; 32],
    customer_id: String,
    label: String,
    created_at: Timestamp,
}

#[derive(Default)]
struct State {
    /// By customer, so that one customer's question does not go through the whole fleet's.
    events: HashMap<String, Vec<Event>>,
    keys: Vec<Key>,
    events_route_off: bool,
    refused_events: u64,
}

struct Inner {
    state: Mutex<State>,
    admin_token: SecretString,
    faults: Vec<Fault>,
}

/// A brain; clones share one state.
#[derive(Clone)]
pub(crate) struct Brain(Arc<Inner>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewEvent {
    event_type: String,
    ts: String,
    payload: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    customer_id: String,
    label: String,
}

type Answer = Result<(StatusCode, Value), (StatusCode, String)>;

fn bad_request(message: impl Into<String>) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, message.into())
}

impl Brain {
    /// A brain without keys and events.
    pub fn new(faults: Vec<Fault>) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            admin_token: format!("m8a_{}", random::mixed(40)).into(),
            faults,
        }))
    }

    /// The token that mints keys.
    pub fn admin_token(&self) -> &SecretString {
        &self.0.admin_token
    }

    /// Turns `GET /v1/events` off: a brain of the kind that only stores.
    pub fn turn_events_route_off(&self) {
        self.state().events_route_off = true;
    }

    /// Mints a key without a request.
    pub fn mint(&self, customer: &str, label: &str) -> SecretString {
        let key = Key::new(customer, label.to_owned());
        let secret = key.key.clone();
        self.state().keys.push(key);
        secret
    }

    /// Records an event without a request: also one that this brain would not take, as an older one may have.
    pub fn record(&self, customer: &str, event_type: &str, ts: Timestamp, payload: Value) {
        self.state().keep(Event {
            customer_id: customer.to_owned(),
            event_type: event_type.to_owned(),
            ts,
            payload,
        });
    }

    /// What answers requests, from the operator or from a host.
    pub fn handler(&self) -> Handler {
        let brain = self.clone();
        Arc::new(move |request| {
            let brain = brain.clone();
            Box::pin(async move { brain.answer(&request) })
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request) -> Response {
        let path = request.uri().path();
        let answer = match (request.method(), path) {
            (&Method::GET, "/healthz") => Ok((StatusCode::OK, json!({"status": "ok"}))),
            (&Method::POST, "/v1/events") => self.post_event(request).inspect_err(|(status, _)| {
                if *status == StatusCode::UNAUTHORIZED {
                    self.state().refused_events += 1;
                }
            }),
            // Not of the real brain: whether a beat was ever refused.
            (&Method::GET, "/_sandbox/refused-events") => Ok((
                StatusCode::OK,
                json!({"count": self.state().refused_events}),
            )),
            (&Method::GET, "/v1/events") if !self.state().events_route_off => {
                self.get_events(request)
            }
            (&Method::POST, "/v1/keys") => self.post_key(request),
            (&Method::GET, "/v1/keys") => self.get_keys(request),
            (method, path) => match path.strip_prefix("/v1/keys/") {
                Some(id) if method == Method::DELETE => self.delete_key(request, id),
                Some(_) => Err(method_not_allowed()),
                None if matches!(path, "/healthz" | "/v1/events" | "/v1/keys") => {
                    Err(method_not_allowed())
                }
                None => Err((StatusCode::NOT_FOUND, "there is no such route".to_owned())),
            },
        };
        match answer {
            Ok((status, body)) => respond(status, &body),
            Err((status, message)) => respond(status, &json!({ "error": message })),
        }
    }

    /// The customer of the request's key.
    fn customer(&self, request: &Request) -> Result<String, (StatusCode, String)> {
        let given = bearer(request)?;
        let state = self.state();
        let digest = digest(given);
        let held = state.keys.iter().find(|held| held.digest == digest);
        held.map(|held| held.customer_id.clone())
            .ok_or_else(|| unauthorized("the key is not valid"))
    }

    fn admin(&self, request: &Request) -> Result<(), (StatusCode, String)> {
        if same(self.0.admin_token.expose_secret(), bearer(request)?) {
            return Ok(());
        }
        Err(unauthorized("the admin token is not valid"))
    }

    fn post_event(&self, request: &Request) -> Answer {
        if self.0.faults.contains(&Fault::BrainKeyRefused) {
            return Err(unauthorized("the key is not valid"));
        }
        let customer_id = self.customer(request)?;
        if request.body().len() > MAX_EVENT_LENGTH {
            return Err((
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("an event has at most {MAX_EVENT_LENGTH} bytes"),
            ));
        }
        let event: NewEvent = serde_json::from_slice(request.body())
            .map_err(|error| bad_request(format!("the body is not an event: {error}")))?;
        let ts = checked_time(&event.ts).ok_or_else(|| bad_request("`ts` is not RFC 3339"))?;
        let charset = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c);
        if event.event_type.is_empty()
            || event.event_type.len() > MAX_EVENT_TYPE_LENGTH
            || !event.event_type.chars().all(charset)
        {
            return Err(bad_request(
                "`event_type` consists of 1 to 64 of the characters a-z, 0-9, `.` and `_`",
            ));
        }
        let hostname = event.payload.get("hostname").and_then(Value::as_str);
        if event.event_type == "heartbeat" && hostname.is_none_or(str::is_empty) {
            return Err(bad_request("the `payload` of a heartbeat has a `hostname`"));
        }
        if !self.0.faults.contains(&Fault::NoHeartbeat) {
            self.state().keep(Event {
                customer_id,
                event_type: event.event_type,
                ts,
                payload: Value::Object(event.payload),
            });
        }
        Ok((StatusCode::ACCEPTED, json!({"accepted": true})))
    }

    fn get_events(&self, request: &Request) -> Answer {
        let customer = self.customer(request)?;
        let mut event_type = None;
        let mut since = None;
        let mut limit = 100;
        let query = request.uri().query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "event_type" => event_type = Some(value.into_owned()),
                "since" => {
                    let time = checked_time(&value);
                    since = Some(time.ok_or_else(|| bad_request("`since` is not RFC 3339"))?);
                }
                "limit" => {
                    let number = value.parse().ok().filter(|n| (1..=MAX_LIMIT).contains(n));
                    limit =
                        number.ok_or_else(|| bad_request("`limit` is a number from 1 to 1000"))?;
                }
                other => {
                    let other = other.escape_debug();
                    return Err(bad_request(format!("there is no parameter `{other}`")));
                }
            }
        }
        let state = self.state();
        let mut events: Vec<&Event> = state
            .events
            .get(&customer)
            .into_iter()
            .flatten()
            .filter(|event| {
                event_type
                    .as_ref()
                    .is_none_or(|kind| *kind == event.event_type)
                    && since.is_none_or(|since| event.ts >= since)
            })
            .collect();
        events.sort_by_key(|event| std::cmp::Reverse(event.ts));
        events.truncate(limit);
        Ok((StatusCode::OK, json!({ "events": events })))
    }

    fn post_key(&self, request: &Request) -> Answer {
        self.admin(request)?;
        let new: NewKey = serde_json::from_slice(request.body()).map_err(|error| {
            bad_request(format!("the body is not a request for a key: {error}"))
        })?;
        if !customer::is_id(&new.customer_id) {
            return Err(bad_request(
                "`customer_id` is not a customer id, like `cust_acme`",
            ));
        }
        if new.label.chars().count() > MAX_LABEL_LENGTH {
            return Err(bad_request("`label` has at most 200 characters"));
        }
        let key = Key::new(&new.customer_id, new.label);
        let mut shown = key.shown();
        shown["key"] = json!(key.key.expose_secret());
        self.state().keys.push(key);
        Ok((StatusCode::CREATED, shown))
    }

    fn get_keys(&self, request: &Request) -> Answer {
        self.admin(request)?;
        let query = request.uri().query().unwrap_or_default();
        let customer = form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == "customer_id")
            .map(|(_, value)| value.into_owned());
        let state = self.state();
        let shown: Vec<Value> = state
            .keys
            .iter()
            .filter(|key| customer.as_ref().is_none_or(|id| *id == key.customer_id))
            .map(|key| {
                let mut shown = key.shown();
                shown["prefix"] = json!(key.key.expose_secret()[..8]);
                shown
            })
            .collect();
        Ok((StatusCode::OK, json!({ "keys": shown })))
    }

    fn delete_key(&self, request: &Request, id: &str) -> Answer {
        self.admin(request)?;
        let mut state = self.state();
        let position = state.keys.iter().position(|key| key.id == id);
        let position =
            position.ok_or_else(|| (StatusCode::NOT_FOUND, "there is no such key".to_owned()))?;
        state.keys.remove(position);
        Ok((StatusCode::OK, json!({"id": id, "deleted": true})))
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

impl State {
    fn keep(&mut self, event: Event) {
        self.events
            .entry(event.customer_id.clone())
            .or_default()
            .push(event);
    }
}

impl Key {
    fn new(customer: &str, label: String) -> Self {
        let key = format!("m8k_{}", random::mixed(40));
        Self {
            id: format!("key_{}", random::hex(16)),
            digest: digest(&key),
            key: key.into(),
            customer_id: customer.to_owned(),
            label,
            created_at: Timestamp::now(),
        }
    }

    fn shown(&self) -> Value {
        json!({
            "id": self.id,
            "customer_id": self.customer_id,
            "label": self.label,
            "created_at": self.created_at,
        })
    }
}

fn method_not_allowed() -> (StatusCode, String) {
    (
        StatusCode::METHOD_NOT_ALLOWED,
        "this route does not take this method".to_owned(),
    )
}

fn unauthorized(message: &str) -> (StatusCode, String) {
    (StatusCode::UNAUTHORIZED, message.to_owned())
}

fn bearer(request: &Request) -> Result<&str, (StatusCode, String)> {
    header(request, "authorization")
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| unauthorized("a bearer is needed in the Authorization header"))
}

/// RFC 3339 exactly: the parser alone would take more than that.
fn checked_time(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 20
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && matches!(bytes[10], b'T' | b't')
        && bytes[13] == b':'
        && bytes[16] == b':'
        && !text.contains('[');
    shaped.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
