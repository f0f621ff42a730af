//! The brain's HTTP interface.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;

use super::{BrainError, BrainUrl, Heartbeat, ToolCall};
use crate::customer::CustomerId;
use crate::http_client;
use crate::secret::{BrainKey, ExposeSecret, SecretString, mask};

/// Longest part of a brain's error text that is shown.
const MAX_MESSAGE_LENGTH: usize = 300;

/// Everything but RFC 3986's unreserved characters: a server need not take `%5F` for `_`.
const RESERVED: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A client of one brain.
#[derive(Debug, Clone)]
pub struct Brain {
    http: reqwest::Client,
    url: BrainUrl,
}

/// What the brain says to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyCheck {
    /// It accepts it.
    Accepted,
    /// It refuses it.
    Refused,
    /// This brain has no route on which a key could be tried without sending an event.
    CannotBeAsked,
}

/// A key the brain minted.
#[derive(Debug, Clone)]
pub struct MintedKey {
    /// The key itself.
    pub key: BrainKey,
    /// What the brain calls it, where it says; to revoke it by.
    pub id: Option<String>,
}

#[derive(Deserialize)]
struct Events {
    events: Vec<EventRecord>,
}

#[derive(Deserialize)]
struct EventRecord {
    customer_id: String,
    ts: Timestamp,
    #[serde(default)]
    payload: serde_json::Value,
}

impl EventRecord {
    fn text(&self, field: &str) -> String {
        let value = self.payload.get(field).and_then(|value| value.as_str());
        value.unwrap_or_default().to_owned()
    }
}

/// How long the brain is given to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
struct MintAnswer {
    key: String,
    id: Option<String>,
}

impl Brain {
    /// A client for the brain at `url`. Nothing is sent yet.
    pub fn new(url: BrainUrl) -> Self {
        Self {
            http: http_client::client_for(url.url(), ANSWER_TIMEOUT),
            url,
        }
    }

    /// The brain's URL.
    pub fn url(&self) -> &BrainUrl {
        &self.url
    }

    fn unreachable(&self, error: reqwest::Error) -> BrainError {
        BrainError::Unreachable {
            url: self.url.to_string(),
            reason: http_client::reason(error),
        }
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        bearer: Option<&str>,
        query: &[(&str, String)],
        body: Option<serde_json::Value>,
    ) -> Result<Response, BrainError> {
        let mut request = self.http.request(method, self.url.join(path)).query(query);
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.map_err(|e| self.unreachable(e))
    }

    async fn status_error(&self, request: &'static str, answer: Response) -> BrainError {
        let status = answer.status().as_u16();
        let message = answer.text().await.unwrap_or_default();
        let message = serde_json::from_str::<serde_json::Value>(&message)
            .ok()
            .and_then(|json| Some(json.get("error")?.as_str()?.to_owned()))
            .unwrap_or_else(|| "no message this program understands".to_owned());
        let message: String = mask(&message, &[])
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_MESSAGE_LENGTH)
            .collect();
        BrainError::Status {
            url: self.url.to_string(),
            request,
            status,
            message,
        }
    }

    /// Whether something answers at the URL, without a key. A gateway's 5xx is no answer of the brain.
    pub async fn probe(&self) -> Result<(), BrainError> {
        let answer = self
            .send(
                Method::GET,
                "/v1/events",
                None,
                &[("limit", "1".into())],
                None,
            )
            .await?;
        if answer.status().is_server_error() || answer.status().is_redirection() {
            return Err(self.status_error("GET /v1/events", answer).await);
        }
        Ok(())
    }

    /// Whether what answers is a brain: it refuses an event under a key that is none. Nothing is stored.
    pub async fn identify(&self) -> Result<(), BrainError> {
        const NO_KEY: &str = "m8trx-asks-whether-this-is-a-brain";
        let event = serde_json::json!({
            "event_type": "heartbeat",
            "ts": Timestamp::now().to_string(),
            "payload": { "hostname": "m8trx" },
        });
        let answer = self
            .send(Method::POST, "/v1/events", Some(NO_KEY), &[], Some(event))
            .await?;
        match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(()),
            status if status.is_server_error() => {
                Err(self.status_error("POST /v1/events", answer).await)
            }
            status => Err(BrainError::NoBrain {
                url: self.url.to_string(),
                status: status.as_u16(),
            }),
        }
    }

    /// Whether the brain accepts a key.
    pub async fn check_key(&self, key: &BrainKey) -> Result<KeyCheck, BrainError> {
        let query = [("event_type", "heartbeat".into()), ("limit", "1".into())];
        let answer = self
            .send(Method::GET, "/v1/events", Some(key.expose()), &query, None)
            .await?;
        match answer.status() {
            status if status.is_success() => Ok(KeyCheck::Accepted),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(KeyCheck::Refused),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(KeyCheck::CannotBeAsked),
            _ => Err(self.status_error("GET /v1/events", answer).await),
        }
    }

    /// Whether the brain takes an admin token, asked on a route that only reads.
    pub async fn check_admin_token(&self, token: &SecretString) -> Result<KeyCheck, BrainError> {
        let bearer = Some(token.expose_secret());
        // A customer that nobody has: the answer is not looked at.
        let query = [("customer_id", "cust_m8trx_doctor".to_owned())];
        let answer = self
            .send(Method::GET, "/v1/keys", bearer, &query, None)
            .await?;
        match answer.status() {
            status if status.is_success() => Ok(KeyCheck::Accepted),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(KeyCheck::Refused),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(KeyCheck::CannotBeAsked),
            _ => Err(self.status_error("GET /v1/keys", answer).await),
        }
    }

    /// What time it is where the brain runs, to the second, where its answers say so.
    pub async fn clock(&self) -> Result<Option<Timestamp>, BrainError> {
        let query = [("limit", "1".to_owned())];
        let answer = self
            .send(Method::GET, "/v1/events", None, &query, None)
            .await?;
        let date = answer.headers().get(reqwest::header::DATE);
        let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date.to_str().ok()?).ok());
        Ok(date.map(|date| date.timestamp()))
    }

    /// Whose events a key sees: the customer of any of them. `None` where there are none yet.
    pub async fn customer_of(&self, key: &BrainKey) -> Result<Option<String>, BrainError> {
        let query = [
            ("event_type", "heartbeat".to_owned()),
            ("limit", "1".to_owned()),
        ];
        let answer = self
            .send(Method::GET, "/v1/events", Some(key.expose()), &query, None)
            .await?;
        let body = answer.bytes().await.map_err(|e| self.unreachable(e))?;
        let events: Option<Events> = serde_json::from_slice(&body).ok();
        let first = events.and_then(|events| events.events.into_iter().next());
        Ok(first.map(|event| event.customer_id.escape_debug().to_string()))
    }

    /// The customer's newest heartbeat at or after `since`, asked with the customer's own key.
    pub async fn latest_heartbeat(
        &self,
        customer: &CustomerId,
        key: &BrainKey,
        since: Timestamp,
    ) -> Result<Option<Heartbeat>, BrainError> {
        let event = self.latest("heartbeat", customer, key, since).await?;
        Ok(event.map(|event| Heartbeat {
            hostname: event.text("hostname"),
            ts: event.ts,
        }))
    }

    /// The customer's newest call of a tool at or after `since`, asked with the customer's own key.
    pub async fn latest_tool_call(
        &self,
        customer: &CustomerId,
        key: &BrainKey,
        since: Timestamp,
    ) -> Result<Option<ToolCall>, BrainError> {
        let event = self.latest("tool_call", customer, key, since).await?;
        Ok(event.map(|event| ToolCall {
            tool_name: event.text("tool_name"),
            ts: event.ts,
        }))
    }

    async fn latest(
        &self,
        event_type: &'static str,
        customer: &CustomerId,
        key: &BrainKey,
        since: Timestamp,
    ) -> Result<Option<EventRecord>, BrainError> {
        const REQUEST: &str = "GET /v1/events";
        let query = [
            ("event_type", event_type.to_owned()),
            ("since", since.to_string()),
            ("limit", "1".to_owned()),
        ];
        let answer = self
            .send(Method::GET, "/v1/events", Some(key.expose()), &query, None)
            .await?;
        let body = self.events_body(customer, answer).await?;
        let events: Events = serde_json::from_slice(&body).map_err(|e| BrainError::Unexpected {
            url: self.url.to_string(),
            request: REQUEST,
            reason: format!("{} at line {}", category(&e), e.line()),
        })?;
        let Some(event) = events.events.into_iter().next() else {
            return Ok(None);
        };
        if event.customer_id != customer.as_str() {
            return Err(BrainError::OtherCustomer {
                asked: customer.clone(),
                answered: event.customer_id.escape_debug().to_string(),
            });
        }
        // A brain that ignores `since` must not make an old heartbeat look like the first one.
        if event.ts < since {
            return Ok(None);
        }
        Ok(Some(event))
    }

    /// The body of an answer to `GET /v1/events`, or what it says instead.
    pub(super) async fn events_body(
        &self,
        customer: &CustomerId,
        answer: Response,
    ) -> Result<Vec<u8>, BrainError> {
        match answer.status() {
            status if status.is_success() => {
                let body = answer.bytes().await.map_err(|e| self.unreachable(e))?;
                Ok(body.to_vec())
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(BrainError::Refused {
                url: self.url.to_string(),
                what: format!("brain key of {customer}"),
            }),
            status @ (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) => {
                Err(BrainError::NoEventsRoute {
                    url: self.url.to_string(),
                    status: status.as_u16(),
                })
            }
            _ => Err(self.status_error("GET /v1/events", answer).await),
        }
    }

    /// Mints a key for a customer with the admin token. Not repeated on failure: a lost answer leaves a key behind.
    pub async fn mint_key(
        &self,
        customer: &CustomerId,
        label: &str,
        admin_token: &SecretString,
    ) -> Result<MintedKey, BrainError> {
        const REQUEST: &str = "POST /v1/keys";
        let body = serde_json::json!({ "customer_id": customer.as_str(), "label": label });
        let bearer = Some(admin_token.expose_secret());
        let answer = self
            .send(Method::POST, "/v1/keys", bearer, &[], Some(body))
            .await?;
        match answer.status() {
            status if status.is_success() => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(BrainError::Refused {
                    url: self.url.to_string(),
                    what: "admin token".to_owned(),
                });
            }
            status @ (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) => {
                return Err(BrainError::NoKeysRoute {
                    url: self.url.to_string(),
                    status: status.as_u16(),
                });
            }
            _ => return Err(self.status_error(REQUEST, answer).await),
        }
        let unexpected = |reason: String| BrainError::Unexpected {
            url: self.url.to_string(),
            request: REQUEST,
            reason,
        };
        let body = answer.bytes().await.map_err(|e| self.unreachable(e))?;
        let minted: MintAnswer = serde_json::from_slice(&body)
            .map_err(|e| unexpected(format!("{} at line {}", category(&e), e.line())))?;
        Ok(MintedKey {
            key: BrainKey::parse(&minted.key).map_err(|e| unexpected(e.to_string()))?,
            id: minted.id,
        })
    }

    /// Revokes a key by its id; `false` when the brain does not know it or has no route to revoke.
    pub async fn revoke_key(
        &self,
        id: &str,
        admin_token: &SecretString,
    ) -> Result<bool, BrainError> {
        let path = format!(
            "/v1/keys/{}",
            percent_encoding::utf8_percent_encode(id, RESERVED)
        );
        let bearer = Some(admin_token.expose_secret());
        let answer = self.send(Method::DELETE, &path, bearer, &[], None).await?;
        match answer.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(false),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(BrainError::Refused {
                url: self.url.to_string(),
                what: "admin token".to_owned(),
            }),
            _ => Err(self.status_error("DELETE /v1/keys/{id}", answer).await),
        }
    }
}

/// What kind of thing is wrong with a JSON text, without any of the text.
pub(super) fn category(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Syntax => "not JSON",
        serde_json::error::Category::Eof => "cut off",
        serde_json::error::Category::Data => "a field is missing or of another type",
        serde_json::error::Category::Io => "unreadable",
    }
}
