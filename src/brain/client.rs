//! The brain's HTTP interface.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;

use super::{BrainError, BrainUrl};
use crate::customer::CustomerId;
use crate::http_client;
use crate::secret::{BrainKey, ExposeSecret as _, SecretString, mask};

/// Longest part of a brain's error text that is shown.
const MAX_MESSAGE_LENGTH: usize = 300;
/// Longer than any answer to a question that is asked here.
const MAX_ANSWER_LENGTH: usize = 8 * 1024 * 1024;

/// A client of one brain.
#[derive(Debug, Clone)]
pub struct Brain {
    http: reqwest::Client,
    pub(super) url: BrainUrl,
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

/// A list of events, whatever they are.
#[derive(Deserialize)]
struct AnyEvents {
    #[serde(rename = "events")]
    _events: Vec<serde::de::IgnoredAny>,
}

/// How long the brain is given to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

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

    pub(super) fn unexpected(
        &self,
        request: &'static str,
        error: &serde_json::Error,
    ) -> BrainError {
        BrainError::Unexpected {
            url: self.url.to_string(),
            request,
            reason: format!("{} at line {}", category(error), error.line()),
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> BrainError {
        BrainError::Unreachable {
            url: self.url.to_string(),
            sent: !error.is_connect() && !error.is_builder(),
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
        let answer = request.send().await.map_err(|e| self.unreachable(e))?;
        self.not_a_page(answer)
    }

    /// Reads an answer, as far as it may be.
    pub(super) async fn body(&self, mut answer: Response) -> Result<Vec<u8>, BrainError> {
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.unreachable(e))? {
            if body.len() + chunk.len() > MAX_ANSWER_LENGTH {
                return Err(BrainError::TooLong {
                    url: self.url.to_string(),
                    most: MAX_ANSWER_LENGTH,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// A success that is a web page is no answer of the brain: something stands between.
    fn not_a_page(&self, answer: Response) -> Result<Response, BrainError> {
        let kind = answer.headers().get(reqwest::header::CONTENT_TYPE);
        let is_page = kind
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.to_ascii_lowercase().contains("text/html"));
        if is_page && !answer.status().is_server_error() {
            return Err(BrainError::Page {
                url: self.url.to_string(),
                status: answer.status().as_u16(),
            });
        }
        Ok(answer)
    }

    pub(super) async fn status_error(&self, request: &'static str, answer: Response) -> BrainError {
        let status = answer.status().as_u16();
        let message = self.body(answer).await.unwrap_or_default();
        let message = serde_json::from_slice::<serde_json::Value>(&message)
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
            // Only a list of events shows that the key was looked at.
            status if status.is_success() => {
                let body = self.body(answer).await?;
                serde_json::from_slice::<AnyEvents>(&body)
                    .map(|_| KeyCheck::Accepted)
                    .map_err(|e| self.unexpected("GET /v1/events", &e))
            }
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
        let body: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        let first =
            body.and_then(|body| Some(body["events"][0]["customer_id"].as_str()?.to_owned()));
        Ok(first.map(|id| id.escape_debug().to_string()))
    }

    /// The body of an answer to `GET /v1/events`, or what it says instead.
    pub(super) async fn events_body(
        &self,
        customer: &CustomerId,
        answer: Response,
    ) -> Result<Vec<u8>, BrainError> {
        match answer.status() {
            status if status.is_success() => self.body(answer).await,
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
