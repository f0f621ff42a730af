//! How the API conducts itself when a test or a drill asks for something else than its best: what an administrator does
//! by hand, and what networks do.

use http::header::{HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AuthKeySpec, Client, Tailnet};
use crate::http::{Request, Response, json as respond, response};

/// What every client of the sandbox may do unless told otherwise.
const SCOPES: [&str; 3] = ["auth_keys", "policy_file", "devices:core"];

/// Standing conditions of the tailnet, and answers yet to be given.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Conduct {
    /// Tailnet Lock is on: a device whose key was not signed joins and is shut out.
    pub(super) lock: bool,
    /// Devices need the approval of an administrator, unless their key is pre-approved.
    pub(super) device_approval: bool,
    /// Ephemeral devices stay for a while after they went offline, as they do at Tailscale.
    pub(super) ephemeral_devices_linger: bool,
    /// Whether customers' tags that the policy file does not define may be given nevertheless.
    pub(super) takes_undefined_customer_tags: bool,
    /// A proxy in front marks the ETags as weak.
    pub(super) weak_etags: bool,
    /// Groups of the policy file that do not sync: `validate` warns of them.
    unsynced_groups: Vec<String>,
    scopes: Vec<String>,
    answers: Vec<Odd>,
}

/// An answer that is not the one the request deserves.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Odd {
    method: String,
    /// How the path ends: `/keys`.
    path: String,
    how: How,
    #[serde(default = "once")]
    times: u32,
    #[serde(default)]
    retry_after: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum How {
    /// No answer at all.
    Hang,
    /// A web page, and nothing is done.
    Page,
    /// A load balancer's page with 502, and nothing is done.
    BadGateway,
    /// It is done, and a gateway's page is answered.
    Lose,
    /// 429.
    TooMany,
    /// 401.
    Unauthorized,
    /// 412.
    Changed,
    /// 500.
    Broken,
}

/// What to do with a request.
pub(super) enum Turn {
    Serve,
    Hang,
    Lose,
    Answer(Response),
}

fn once() -> u32 {
    1
}

impl Default for Conduct {
    fn default() -> Self {
        Self {
            lock: false,
            device_approval: false,
            ephemeral_devices_linger: false,
            takes_undefined_customer_tags: false,
            weak_etags: false,
            unsynced_groups: Vec::new(),
            scopes: SCOPES.map(str::to_owned).to_vec(),
            answers: Vec::new(),
        }
    }
}

impl Conduct {
    /// What an OAuth client may do.
    pub(super) fn scopes(&self, client: &Client) -> Vec<String> {
        client.scopes.clone().unwrap_or_else(|| self.scopes.clone())
    }

    /// What `validate` answers to a file that is taken.
    pub(super) fn warnings(&self) -> Value {
        if self.unsynced_groups.is_empty() {
            return json!({});
        }
        let text = "group is not syncing from SCIM and will be ignored by rules in the policy file";
        let warn = |group: &String| json!({"user": group, "warnings": [text]});
        let data: Vec<Value> = self.unsynced_groups.iter().map(warn).collect();
        json!({"message": "warning(s) found", "data": data})
    }

    /// The turn of a request; an odd answer is used up by it.
    pub(super) fn turn(&mut self, method: &Method, path: &str) -> Turn {
        let Some(odd) = self.answers.iter_mut().find(|odd| {
            odd.times > 0 && odd.method == method.as_str() && path.ends_with(&odd.path)
        }) else {
            return Turn::Serve;
        };
        odd.times -= 1;
        let error = |status: StatusCode, message: &str| {
            Turn::Answer(respond(status, &json!({ "message": message })))
        };
        match odd.how {
            How::Hang => Turn::Hang,
            How::Lose => Turn::Lose,
            How::Page => Turn::Answer(response(
                StatusCode::OK,
                "text/html; charset=utf-8",
                "<!doctype html><title>Sign in</title>",
            )),
            How::BadGateway => Turn::Answer(response(
                StatusCode::BAD_GATEWAY,
                "text/html",
                "<html><body>502 Bad Gateway</body></html>",
            )),
            How::TooMany => {
                let mut answer = respond(
                    StatusCode::TOO_MANY_REQUESTS,
                    &json!({"message": "rate limit exceeded"}),
                );
                if let Some(seconds) = odd.retry_after {
                    answer
                        .headers_mut()
                        .insert(RETRY_AFTER, HeaderValue::from(seconds));
                }
                Turn::Answer(answer)
            }
            How::Unauthorized => error(StatusCode::UNAUTHORIZED, "API token invalid"),
            How::Changed => error(
                StatusCode::PRECONDITION_FAILED,
                "precondition failed, invalid old hash",
            ),
            How::Broken => error(StatusCode::INTERNAL_SERVER_ERROR, "internal server error"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ConsoleKey {
    tags: Vec<String>,
    reusable: bool,
    ephemeral: bool,
    preauthorized: bool,
    lifetime_s: i64,
    description: String,
}

impl Default for ConsoleKey {
    fn default() -> Self {
        Self {
            tags: Vec::new(),
            reusable: true,
            ephemeral: true,
            preauthorized: true,
            lifetime_s: super::KEY_LIFETIME.as_secs(),
            description: String::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsoleClient {
    scopes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    node_key: String,
}

impl Tailnet {
    pub(super) fn record(&self, method: &Method, path: &str, status: Option<StatusCode>) {
        let status = status.map(|s| s.as_u16());
        let at = Timestamp::now();
        let call = json!({"at": at, "method": method.as_str(), "path": path, "status": status});
        self.state().calls.push(call);
    }

    /// What stands in for the admin console and the outside world:
    ///
    /// - `GET /_sandbox/calls`: every call so far;
    /// - `PUT /_sandbox/conduct`: how the API conducts itself from here on;
    /// - `POST /_sandbox/clients`: an OAuth client with just these scopes;
    /// - `POST /_sandbox/keys`: a key as an administrator makes it in the admin console;
    /// - `POST /_sandbox/sign`: what `tailscale lock sign nodekey:…` does on a signing node.
    pub(super) fn control(&self, request: &Request) -> Option<Response> {
        let path = request.uri().path().strip_prefix("/_sandbox/")?;
        let done = || respond(StatusCode::OK, &json!({}));
        let wrong = |error: serde_json::Error| {
            respond(
                StatusCode::BAD_REQUEST,
                &json!({"message": error.to_string()}),
            )
        };
        Some(match (request.method(), path) {
            (&Method::GET, "calls") => {
                respond(StatusCode::OK, &json!({"calls": self.state().calls}))
            }
            (&Method::PUT, "conduct") => match serde_json::from_slice(request.body()) {
                Ok(conduct) => {
                    self.state().conduct = conduct;
                    done()
                }
                Err(error) => wrong(error),
            },
            (&Method::POST, "clients") => match serde_json::from_slice(request.body()) {
                Ok(ConsoleClient { scopes }) => {
                    let client = Client::new(Some(scopes));
                    let made = json!({"id": client.id, "secret": client.secret.expose_secret()});
                    self.state().clients.push(client);
                    respond(StatusCode::OK, &made)
                }
                Err(error) => wrong(error),
            },
            (&Method::POST, "keys") => match serde_json::from_slice::<ConsoleKey>(request.body()) {
                Ok(asked) => {
                    let spec = AuthKeySpec {
                        tags: asked.tags.into_iter().collect(),
                        reusable: asked.reusable,
                        ephemeral: asked.ephemeral,
                        preauthorized: asked.preauthorized,
                        lifetime: SignedDuration::from_secs(asked.lifetime_s),
                    };
                    let (id, key) = self.state().mint(spec, asked.description);
                    respond(
                        StatusCode::OK,
                        &json!({"id": id, "key": key.expose_secret()}),
                    )
                }
                Err(error) => wrong(error),
            },
            (&Method::POST, "sign") => match serde_json::from_slice::<Signed>(request.body()) {
                Ok(Signed { node_key }) => {
                    let mut state = self.state();
                    let device = state.devices.values_mut().find(|d| d.node_key == node_key);
                    match device {
                        Some(device) => {
                            device.lock_error.clear();
                            done()
                        }
                        None => respond(StatusCode::NOT_FOUND, &json!({"message": "no such node"})),
                    }
                }
                Err(error) => wrong(error),
            },
            _ => respond(StatusCode::NOT_FOUND, &Value::Null),
        })
    }
}
