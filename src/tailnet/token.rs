//! The token of the OAuth client: asked for when it is needed, kept while it is good, and asked for anew when it is refused.

use std::time::{Duration, Instant};

use reqwest::{StatusCode, header};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::client::{Role, Tailnet, decode, wait};
use super::error::{Refusal, TailnetError};
use crate::secret::{ExposeSecret as _, SecretString, SecretText};

/// A token this close to its end is not used any more.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);

pub(super) struct Token {
    secret: SecretString,
    good_until: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: SecretText,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Tailnet {
    /// Gets a token for each OAuth client, which proves id and secret.
    pub async fn sign_in(&self) -> Result<(), TailnetError> {
        self.token(Role::Keys).await?;
        if self.0.settings.policy_client.is_some() {
            self.token(Role::Policy).await?;
        }
        Ok(())
    }

    /// Where the token of a role is kept: one client has one token.
    fn held(&self, role: Role) -> &Mutex<Option<Token>> {
        let own = self.0.settings.policy_client.is_some();
        &self.0.tokens[if own { role as usize } else { 0 }]
    }

    pub(super) async fn token(&self, role: Role) -> Result<SecretString, TailnetError> {
        const OPERATION: &str = "give a token";
        let mut held = self.held(role).lock().await;
        if let Some(token) = held
            .as_ref()
            .filter(|token| Instant::now() < token.good_until)
        {
            return Ok(token.secret.clone());
        }
        let client = self.client(role);
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", &client.id)
            .append_pair("client_secret", client.secret.expose_secret())
            .finish();
        let asked = Instant::now();
        let mut waited = Duration::ZERO;
        let raw = loop {
            let request = self
                .0
                .http
                .post(self.url(&["oauth", "token"]))
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(header::ACCEPT, "application/json")
                .body(form.clone());
            let raw = self.exchange(OPERATION, request).await?;
            if raw.status != StatusCode::TOO_MANY_REQUESTS {
                break raw;
            }
            wait(OPERATION, raw.retry_after, &mut waited).await?;
        };
        if raw.is_page && !raw.status.is_server_error() {
            return Err(self.not_the_api(OPERATION, raw.status));
        }
        if raw.status.is_client_error() {
            return Err(TailnetError::Client {
                client_id: client.id.clone(),
                status: raw.status.as_u16(),
                message: Refusal::parse(&raw.answer.body).message,
            });
        }
        if !raw.status.is_success() {
            return Err(TailnetError::Status {
                status: raw.status.as_u16(),
                operation: OPERATION,
                refusal: raw.refusal(),
            });
        }
        let answer: TokenAnswer = decode(OPERATION, &raw.answer.body)?;
        let life = Duration::from_secs(answer.expires_in.unwrap_or(3600));
        let token = Token {
            secret: answer.access_token.0,
            good_until: asked + life.saturating_sub(TOKEN_MARGIN),
        };
        let secret = token.secret.clone();
        *held = Some(token);
        Ok(secret)
    }

    /// Lets go of a token that was refused, unless another call has renewed it already.
    pub(super) async fn forget(&self, role: Role, refused: &SecretString) {
        let mut held = self.held(role).lock().await;
        if held
            .as_ref()
            .is_some_and(|token| token.secret.expose_secret() == refused.expose_secret())
        {
            *held = None;
        }
    }
}
