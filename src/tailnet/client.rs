//! Tailscale's API: settings, and what every call shares.
//!
//! Sources: the published description of the API (`https://api.tailscale.com/api/v2`) and Tailscale's own Go client.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use url::Url;

use super::backoff;
use super::error::{Refusal, TailnetError, clean};
use super::keys::AuthKey;
use super::token::Token;
use crate::http_client;
use crate::secret::{ExposeSecret as _, SecretString};

/// Where the API is unless told otherwise.
pub const DEFAULT_API_URL: &str = "https://api.tailscale.com";
/// The tailnet of the OAuth client itself.
pub const DEFAULT_TAILNET: &str = "-";
/// How long one answer may take.
pub const DEFAULT_ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a call waits altogether where the API asks for patience.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a question is asked where the API fails on its own side.
const GET_TRIES: u32 = 3;
/// Larger than any policy file or list of devices.
const MAX_ANSWER_LENGTH: usize = 64 * 1024 * 1024;

/// Everything but RFC 3986's unreserved characters.
const RESERVED: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// An OAuth client of Tailscale.
#[derive(Debug, Clone)]
pub struct OAuthClient {
    /// Its id.
    pub id: String,
    /// Its secret, `tskey-client-…`.
    pub secret: SecretString,
}

/// How Tailscale's API is reached, and as whom.
#[derive(Debug, Clone)]
pub struct TailnetSettings {
    /// `https://api.tailscale.com`.
    pub api_url: Url,
    /// The OAuth client for keys and devices, and for the policy file where that has none of its own.
    pub client: OAuthClient,
    /// The OAuth client for the policy file alone.
    pub policy_client: Option<OAuthClient>,
    /// The tailnet's name, `-` for the client's own.
    pub tailnet: String,
    /// How long one answer may take.
    pub answer_timeout: Duration,
}

/// A client of Tailscale's API for one tailnet; clones share their tokens.
#[derive(Clone)]
pub struct Tailnet(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) http: reqwest::Client,
    pub(super) settings: TailnetSettings,
    /// By the OAuth client: see [`Role`].
    pub(super) tokens: [Mutex<Option<Token>>; 2],
    /// What was looked up of keys: a list that gives ids only is not looked through again and again.
    pub(super) known_keys: std::sync::Mutex<HashMap<String, AuthKey>>,
}

impl std::fmt::Debug for Tailnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tailnet")
            .field("api_url", &self.0.settings.api_url.as_str())
            .field("client_id", &self.0.settings.client.id)
            .finish_non_exhaustive()
    }
}

/// What an OAuth client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Auth keys and devices.
    Keys = 0,
    /// The policy file.
    Policy = 1,
}

/// One call: what it is for, which scope it needs, and the request.
pub(super) struct Call<'a> {
    /// Completes `when asked to …`.
    pub(super) operation: &'static str,
    /// The OAuth scope that allows it.
    pub(super) scope: &'static str,
    pub(super) method: Method,
    /// Path segments after `/api/v2`; each is percent-encoded.
    pub(super) path: &'a [&'a str],
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) accept: &'static str,
    /// `If-Match`, quoted as it is sent.
    pub(super) if_match: Option<String>,
    /// Content type and body.
    pub(super) body: Option<(&'static str, String)>,
}

impl<'a> Call<'a> {
    /// Who makes it.
    fn role(&self) -> Role {
        if self.scope.starts_with("policy_file") {
            Role::Policy
        } else {
            Role::Keys
        }
    }

    pub(super) fn new(
        operation: &'static str,
        scope: &'static str,
        method: Method,
        path: &'a [&'a str],
    ) -> Self {
        Self {
            operation,
            scope,
            method,
            path,
            query: &[],
            accept: "application/json",
            if_match: None,
            body: None,
        }
    }
}

/// A successful answer.
pub(super) struct Answer {
    pub(super) etag: Option<String>,
    pub(super) body: Vec<u8>,
}

/// An answer before its status is judged.
pub(super) struct Raw {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    pub(super) is_page: bool,
    pub(super) answer: Answer,
}

impl Raw {
    /// The API's words, or that a page stands in their place.
    pub(super) fn refusal(&self) -> Refusal {
        if self.is_page {
            return Refusal::of_page();
        }
        Refusal::parse(&self.answer.body)
    }
}

impl Tailnet {
    /// A client. Nothing is sent yet.
    pub fn new(settings: TailnetSettings) -> Self {
        Self(Arc::new(Inner {
            http: http_client::client_for(&settings.api_url, settings.answer_timeout),
            settings,
            tokens: Default::default(),
            known_keys: std::sync::Mutex::default(),
        }))
    }

    /// The ids of its OAuth clients.
    pub fn client_ids(&self) -> Vec<&str> {
        let settings = &self.0.settings;
        std::iter::once(&settings.client)
            .chain(&settings.policy_client)
            .map(|client| client.id.as_str())
            .collect()
    }

    /// The OAuth client that plays a role.
    pub(super) fn client(&self, role: Role) -> &OAuthClient {
        match (&self.0.settings.policy_client, role) {
            (Some(client), Role::Policy) => client,
            _ => &self.0.settings.client,
        }
    }

    /// The tailnet's name, `-` for the client's own.
    pub(super) fn name(&self) -> &str {
        &self.0.settings.tailnet
    }

    fn api_url(&self) -> String {
        let url = self.0.settings.api_url.as_str();
        url.trim_end_matches('/').to_owned()
    }

    pub(super) fn url(&self, path: &[&str]) -> String {
        let mut url = format!("{}/api/v2", self.api_url());
        for part in path {
            url.push('/');
            url.extend(percent_encoding::utf8_percent_encode(part, RESERVED));
        }
        url
    }

    /// Asks once; waits and asks again only where the API said no without doing anything: 429, 401 to a token that was used
    /// before, and its own failure where nothing but an answer was asked for.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Answer, TailnetError> {
        let operation = call.operation;
        let mut waited = Duration::ZERO;
        let mut renewed = false;
        let mut tries = 1;
        loop {
            let token = self.token(call.role()).await?;
            let mut request = self
                .0
                .http
                .request(call.method.clone(), self.url(call.path))
                .query(call.query)
                .bearer_auth(token.expose_secret())
                .header(header::ACCEPT, call.accept);
            if let Some(etag) = &call.if_match {
                request = request.header(header::IF_MATCH, etag);
            }
            if let Some((content_type, body)) = &call.body {
                request = request
                    .header(header::CONTENT_TYPE, *content_type)
                    .body(body.clone());
            }
            tracing::debug!("Tailscale: {operation}");
            let raw = self.exchange(operation, request).await?;
            let status = raw.status;
            if status == StatusCode::TOO_MANY_REQUESTS {
                wait(operation, raw.retry_after, &mut waited).await?;
                continue;
            }
            // A load balancer in front of the API answers with a page as well: its status tells.
            if status.is_server_error() {
                if call.method == Method::GET && tries < GET_TRIES {
                    tracing::debug!("Tailscale: {operation} again ({status})");
                    tokio::time::sleep(backoff::pause(tries)).await;
                    tries += 1;
                    continue;
                }
                return Err(self.refused(&call, status, raw.refusal()));
            }
            if raw.is_page {
                return Err(self.not_the_api(operation, status));
            }
            if status.is_success() {
                return Ok(raw.answer);
            }
            if status == StatusCode::UNAUTHORIZED && !renewed {
                renewed = true;
                self.forget(call.role(), &token).await;
                continue;
            }
            return Err(self.refused(&call, status, raw.refusal()));
        }
    }

    fn refused(&self, call: &Call<'_>, status: StatusCode, refusal: Refusal) -> TailnetError {
        let operation = call.operation;
        let message = refusal.message.clone();
        match status {
            StatusCode::UNAUTHORIZED => TailnetError::Unauthorized { operation, message },
            StatusCode::FORBIDDEN => TailnetError::Forbidden {
                client_id: self.client(call.role()).id.clone(),
                operation,
                scope: call.scope,
                message,
            },
            StatusCode::NOT_FOUND => TailnetError::NotFound { operation, message },
            StatusCode::PRECONDITION_FAILED => TailnetError::Changed,
            _ => TailnetError::Status {
                status: status.as_u16(),
                operation,
                refusal,
            },
        }
    }

    pub(super) fn not_the_api(&self, operation: &'static str, status: StatusCode) -> TailnetError {
        TailnetError::NotTheApi {
            url: self.api_url(),
            status: status.as_u16(),
            operation,
        }
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn exchange(
        &self,
        operation: &'static str,
        request: reqwest::RequestBuilder,
    ) -> Result<Raw, TailnetError> {
        let broken = |error: reqwest::Error| self.broken(operation, error);
        let mut response = request.send().await.map_err(broken)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > MAX_ANSWER_LENGTH {
                return Err(TailnetError::Unexpected {
                    operation,
                    reason: format!("it is longer than {MAX_ANSWER_LENGTH} bytes"),
                });
            }
            body.extend_from_slice(&chunk);
        }
        let text = |name| text_of(&response, name);
        let is_page = text(header::CONTENT_TYPE).is_some_and(|kind| kind.contains("text/html"))
            || body.trim_ascii_start().starts_with(b"<");
        Ok(Raw {
            status: response.status(),
            retry_after: text(header::RETRY_AFTER)
                .and_then(|text| text.trim().parse().ok())
                .map(Duration::from_secs),
            is_page,
            answer: Answer {
                etag: text(header::ETAG).map(str::to_owned),
                body,
            },
        })
    }

    fn broken(&self, operation: &'static str, error: reqwest::Error) -> TailnetError {
        if error.is_timeout() && !error.is_connect() {
            return TailnetError::TimedOut {
                url: self.api_url(),
                operation,
                seconds: self.0.settings.answer_timeout.as_secs(),
            };
        }
        let sent = !error.is_connect() && !error.is_builder();
        TailnetError::Unreachable {
            url: self.api_url(),
            reason: clean(&http_client::reason(error)),
            sent,
        }
    }
}

fn text_of(response: &Response, name: header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// Waits as long as the API asks, as far as the patience for one call goes.
pub(super) async fn wait(
    operation: &'static str,
    retry_after: Option<Duration>,
    waited: &mut Duration,
) -> Result<(), TailnetError> {
    // Without a number, twice as long each time.
    let pause = retry_after.unwrap_or((*waited).max(Duration::from_secs(1)));
    if *waited + pause > PATIENCE {
        return Err(TailnetError::RateLimited {
            operation,
            retry_after_s: pause.as_secs(),
        });
    }
    tracing::debug!(
        "Tailscale: {operation} again in {} s (429)",
        pause.as_secs()
    );
    // A number of 0 must not become a busy loop.
    let pause = pause.max(Duration::from_millis(100));
    tokio::time::sleep(pause).await;
    *waited += pause;
    Ok(())
}

/// Reads an answer; what is wrong with it is told without any of its text.
pub(super) fn decode<T: DeserializeOwned>(
    operation: &'static str,
    body: &[u8],
) -> Result<T, TailnetError> {
    serde_json::from_slice(body).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Syntax => "not JSON",
            serde_json::error::Category::Eof => "cut off",
            serde_json::error::Category::Data => "a field is missing or of another type",
            serde_json::error::Category::Io => "unreadable",
        };
        TailnetError::Unexpected {
            operation,
            reason: format!("{what} at line {}, column {}", error.line(), error.column()),
        }
    })
}
