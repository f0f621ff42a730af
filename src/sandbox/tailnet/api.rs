//! Tailscale's API for the operator's OAuth client, strict where the real one is.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, ETAG, HeaderValue};
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::conduct::Turn;
use super::policy::{OPERATOR_TAG, Policy};
use super::{AuthKeySpec, Client, KEY_LIFETIME, State, Tailnet, Token, check_tag};
use crate::cloud::same;
use crate::http::{Handler, Request, Response, header, json as respond, plain, response};
use crate::random;

/// Names that stand for this tailnet in a path.
const NAMES: [&str; 2] = ["-", "m8trx.example"];
/// How long a token is good.
const TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(1);
/// A longer description is cut in silence.
const MAX_DESCRIPTION_LENGTH: usize = 50;

/// Answered or refused; a refusal is a status and a body.
type Answer = Result<Response, (StatusCode, Value)>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NewKey {
    capabilities: NewCapabilities,
    #[serde(default)]
    expiry_seconds: Option<i64>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    key_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCapabilities {
    devices: NewDevices,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewDevices {
    create: NewCreate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct NewCreate {
    reusable: bool,
    ephemeral: bool,
    preauthorized: bool,
    tags: Vec<String>,
}

fn refuse(status: StatusCode, message: impl Into<String>) -> (StatusCode, Value) {
    (status, json!({ "message": message.into() }))
}

fn bad_request(message: impl Into<String>) -> (StatusCode, Value) {
    refuse(StatusCode::BAD_REQUEST, message)
}

fn not_found(message: &str) -> (StatusCode, Value) {
    refuse(StatusCode::NOT_FOUND, message)
}

impl Tailnet {
    /// What answers the operator's requests.
    pub fn api_handler(&self) -> Handler {
        let tailnet = self.clone();
        Arc::new(move |request| {
            let tailnet = tailnet.clone();
            Box::pin(async move { tailnet.answer_operator(request).await })
        })
    }

    async fn answer_operator(&self, request: Request) -> Response {
        if let Some(answer) = self.control(&request) {
            return answer;
        }
        let Some(path) = request.uri().path().strip_prefix("/api/v2") else {
            return plain(StatusCode::NOT_FOUND, "404 page not found\n");
        };
        let path = path.to_owned();
        let method = request.method().clone();
        let turn = self.state().conduct.turn(&method, &path);
        let answer = match turn {
            Turn::Hang => {
                self.record(&method, &path, None);
                return std::future::pending().await;
            }
            Turn::Answer(answer) => answer,
            Turn::Serve => self.serve(&request, &path),
            Turn::Lose => {
                // Carried out; what comes back is a gateway's page instead of the answer.
                let status = self.serve(&request, &path).status();
                self.record(&method, &path, Some(status));
                return response(
                    StatusCode::BAD_GATEWAY,
                    "text/html",
                    "<html><body>502 Bad Gateway</body></html>",
                );
            }
        };
        self.record(&method, &path, Some(answer.status()));
        answer
    }

    fn serve(&self, request: &Request, path: &str) -> Response {
        let answered = if path == "/oauth/token" {
            self.sign_in(request)
        } else {
            self.route(request, path)
        };
        answered.unwrap_or_else(|(status, body)| respond(status, &body))
    }

    fn sign_in(&self, request: &Request) -> Answer {
        if request.method() != Method::POST {
            return Err(refuse(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"));
        }
        let form: Vec<(String, String)> = form_urlencoded::parse(request.body())
            .into_owned()
            .collect();
        let field = |name: &str| {
            form.iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        if field("grant_type").is_some_and(|kind| kind != "client_credentials") {
            return Err(bad_request("unsupported grant type"));
        }
        let clients = self.state().clients.clone();
        let is = |client: &&Client| {
            field("client_id") == Some(client.id.as_str())
                && field("client_secret")
                    .is_some_and(|given| same(given, client.secret.expose_secret()))
        };
        let Some(client) = std::iter::once(self.client()).chain(&clients).find(is) else {
            return Err(refuse(StatusCode::UNAUTHORIZED, "API token invalid"));
        };
        let token = format!(
            "tskey-api-k{}CNTRL-{}",
            random::mixed(10),
            random::mixed(32)
        );
        let mut state = self.state();
        let held = Token {
            until: Timestamp::now() + TOKEN_LIFE,
            client: client.clone(),
        };
        state.tokens.insert(token.clone(), held);
        let scope = state.conduct.scopes(client).join(" ");
        Ok(respond(
            StatusCode::OK,
            &json!({"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_LIFE.as_secs(), "scope": scope}),
        ))
    }

    fn route(&self, request: &Request, path: &str) -> Answer {
        let bearer = header(request, "authorization").and_then(|text| text.strip_prefix("Bearer "));
        let now = Timestamp::now();
        let mut state = self.state();
        let token = bearer.and_then(|token| state.tokens.get(token));
        let Some(token) = token.filter(|token| token.until > now) else {
            return Err(refuse(StatusCode::UNAUTHORIZED, "API token invalid"));
        };
        let scopes = state.conduct.scopes(&token.client);
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let parts: Vec<String> = parts
            .iter()
            .map(|part| {
                percent_encoding::percent_decode_str(part)
                    .decode_utf8_lossy()
                    .into_owned()
            })
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (method, rest): (&Method, &[&str]) = match parts.as_slice() {
            ["tailnet", name, rest @ ..] if NAMES.contains(name) => (request.method(), rest),
            ["tailnet", ..] => return Err(not_found("tailnet not found")),
            rest => (request.method(), rest),
        };
        let may = |scope: &str| {
            // A scope to write is one to read as well.
            let wide = scope.trim_end_matches(":read");
            if scopes.iter().any(|own| own == scope || own == wide) {
                return Ok(());
            }
            let words = "calling actor does not have enough permissions to perform this function";
            Err(refuse(StatusCode::FORBIDDEN, words))
        };
        match (method, rest) {
            (&Method::POST, ["keys"]) => {
                may("auth_keys")?;
                create_key(&mut state, request)
            }
            (&Method::GET, ["keys"]) => {
                may("auth_keys:read")?;
                Ok(list_keys(&state, request))
            }
            (&Method::GET, ["keys", id]) => {
                may("auth_keys:read")?;
                state.show_key(id).map_or_else(
                    || Err(not_found("key not found")),
                    |key| Ok(respond(StatusCode::OK, &key)),
                )
            }
            (&Method::DELETE, ["keys", id]) => {
                may("auth_keys")?;
                if state.revoke(id) {
                    Ok(respond(StatusCode::OK, &json!({})))
                } else {
                    Err(not_found("key not found"))
                }
            }
            (&Method::GET, ["acl"]) => {
                may("policy_file:read")?;
                Ok(show_policy(&state, request))
            }
            (&Method::POST, ["acl"]) => {
                may("policy_file")?;
                set_policy(&mut state, request)
            }
            (&Method::POST, ["acl", "validate"]) => {
                may("policy_file:read")?;
                let verdict = match Policy::parse(&body_text(request)?) {
                    Ok(_) => state.conduct.warnings(),
                    Err(refused) => refused,
                };
                Ok(respond(StatusCode::OK, &verdict))
            }
            (&Method::GET, ["devices"]) => {
                may("devices:core:read")?;
                let devices = state.show_devices();
                Ok(respond(StatusCode::OK, &json!({ "devices": devices })))
            }
            (&Method::DELETE, ["device", id]) => {
                may("devices:core")?;
                if state.remove_device(id) {
                    Ok(respond(StatusCode::OK, &json!({})))
                } else {
                    Err(not_found("no device found"))
                }
            }
            _ => Err(not_found("404 page not found")),
        }
    }
}

fn create_key(state: &mut State, request: &Request) -> Answer {
    let new: NewKey = serde_json::from_slice(request.body())
        .map_err(|error| bad_request(format!("json: {error}")))?;
    if new.key_type.as_deref().is_some_and(|kind| kind != "auth") {
        return Err(bad_request("this client creates auth keys only"));
    }
    let longest = KEY_LIFETIME.as_secs();
    let seconds = new.expiry_seconds.unwrap_or(longest);
    if !(1..=longest).contains(&seconds) {
        return Err(bad_request(format!(
            "expirySeconds must be between 1 and {longest}"
        )));
    }
    let charset = |c: char| c.is_ascii_alphanumeric() || "-_ ".contains(c);
    if !new.description.chars().all(charset) {
        return Err(bad_request(
            "description may hold letters, digits, hyphens and spaces only",
        ));
    }
    let create = new.capabilities.devices.create;
    if create.tags.is_empty() {
        return Err(bad_request("tailnet-owned auth key must have tags set"));
    }
    for tag in &create.tags {
        check_tag(tag).map_err(bad_request)?;
    }
    let refused: Vec<&str> = create
        .tags
        .iter()
        .map(String::as_str)
        .filter(|tag| *tag != OPERATOR_TAG && !state.may_assign(tag, &[OPERATOR_TAG]))
        .collect();
    if !refused.is_empty() {
        return Err(bad_request(format!(
            "requested tags [{}] are invalid or not permitted",
            refused.join(" ")
        )));
    }
    let mut description = new.description;
    description.truncate(MAX_DESCRIPTION_LENGTH);
    let spec = AuthKeySpec {
        tags: create.tags.into_iter().collect(),
        reusable: create.reusable,
        ephemeral: create.ephemeral,
        preauthorized: create.preauthorized,
        lifetime: SignedDuration::from_secs(seconds),
    };
    let (id, key) = state.mint(spec, description);
    let mut shown = state.show_key(&id).unwrap_or_default();
    shown["key"] = json!(key.expose_secret());
    Ok(respond(StatusCode::OK, &shown))
}

/// Ids only, and without `all` nothing of what a client's token may see of keys.
fn list_keys(state: &State, request: &Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let all =
        form_urlencoded::parse(query.as_bytes()).any(|(name, on)| name == "all" && on == "true");
    let keys: Vec<Value> = state
        .keys
        .iter()
        .filter(|(_, key)| all && !key.is_dead())
        .map(|(id, _)| json!({ "id": id }))
        .collect();
    respond(StatusCode::OK, &json!({ "keys": keys }))
}

fn body_text(request: &Request) -> Result<String, (StatusCode, Value)> {
    String::from_utf8(request.body().to_vec()).map_err(|_| bad_request("the body is not UTF-8"))
}

fn show_policy(state: &State, request: &Request) -> Response {
    let raw = header(request, "accept").is_some_and(|kind| kind.contains("application/hujson"));
    let mut answer = if raw {
        response(
            StatusCode::OK,
            "application/hujson",
            state.policy.text().to_owned(),
        )
    } else {
        response(StatusCode::OK, "application/json", state.policy.json())
    };
    let weak = if state.conduct.weak_etags { "W/" } else { "" };
    if let Ok(value) = HeaderValue::from_str(&format!("{weak}\"{}\"", state.policy.etag())) {
        answer.headers_mut().insert(ETAG, value);
    }
    answer
}

fn set_policy(state: &mut State, request: &Request) -> Answer {
    let kind = header(request, CONTENT_TYPE.as_str()).unwrap_or_default();
    if !["application/hujson", "application/json"].contains(&kind) {
        return Err(refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the policy file is application/hujson or application/json",
        ));
    }
    if let Some(wanted) = header(request, "if-match")
        && wanted != format!("\"{}\"", state.policy.etag())
    {
        return Err(refuse(
            StatusCode::PRECONDITION_FAILED,
            "precondition failed, invalid old hash",
        ));
    }
    let policy =
        Policy::parse(&body_text(request)?).map_err(|body| (StatusCode::BAD_REQUEST, body))?;
    state.policy = policy;
    Ok(show_policy(state, request))
}

#[cfg(test)]
mod tests;
