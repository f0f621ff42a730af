//! Keys at the brain: minted, listed and revoked with the admin token, where the brain has routes for it.

use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::BrainError;
use super::client::Brain;
use crate::customer::CustomerId;
use crate::secret::{BrainKey, ExposeSecret as _, SecretString};

/// Everything but RFC 3986's unreserved characters: a server need not take `%5F` for `_`.
const RESERVED: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A key as a brain lists it, that lists keys at all.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ListedKey {
    /// What the brain calls it; to revoke it by.
    pub id: String,
    /// What it was minted for.
    #[serde(default)]
    pub label: String,
    /// Whose it is.
    pub customer_id: String,
    /// When it was minted, by the brain's clock.
    #[serde(default)]
    pub created_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct ListedKeys {
    keys: Vec<ListedKey>,
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
struct MintAnswer {
    key: String,
    id: Option<String>,
}

impl Brain {
    /// Mints a key for a customer with the admin token. Sent once: where its answer is lost, a key may have been minted
    /// that nobody knows, and only its label tells of it.
    pub async fn mint_key(
        &self,
        customer: &CustomerId,
        label: &str,
        admin_token: &SecretString,
    ) -> Result<MintedKey, BrainError> {
        match self.post_key(customer, label, admin_token).await {
            Err(cause) if may_have_been_minted(&cause) => Err(BrainError::KeyLost {
                label: label.to_owned(),
                cause: Box::new(cause),
            }),
            other => other,
        }
    }

    async fn post_key(
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
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(self.no_admin()),
            status @ (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) => {
                return Err(BrainError::NoKeysRoute {
                    url: self.url.to_string(),
                    status: status.as_u16(),
                });
            }
            _ => return Err(self.status_error(REQUEST, answer).await),
        }
        let body = self.body(answer).await?;
        let minted: MintAnswer =
            serde_json::from_slice(&body).map_err(|e| self.unexpected(REQUEST, &e))?;
        Ok(MintedKey {
            key: BrainKey::parse(&minted.key).map_err(|e| BrainError::Unexpected {
                url: self.url.to_string(),
                request: REQUEST,
                reason: e.to_string(),
            })?,
            id: minted.id,
        })
    }

    fn no_admin(&self) -> BrainError {
        BrainError::Refused {
            url: self.url.to_string(),
            what: "admin token".to_owned(),
        }
    }

    /// A customer's valid keys; `None` where the brain has no route to list them.
    pub async fn keys(
        &self,
        customer: &CustomerId,
        admin_token: &SecretString,
    ) -> Result<Option<Vec<ListedKey>>, BrainError> {
        const REQUEST: &str = "GET /v1/keys";
        let query = [("customer_id", customer.to_string())];
        let bearer = Some(admin_token.expose_secret());
        let answer = self
            .send(Method::GET, "/v1/keys", bearer, &query, None)
            .await?;
        match answer.status() {
            status if status.is_success() => {}
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => return Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(self.no_admin()),
            _ => return Err(self.status_error(REQUEST, answer).await),
        }
        let body = self.body(answer).await?;
        let listed: ListedKeys =
            serde_json::from_slice(&body).map_err(|e| self.unexpected(REQUEST, &e))?;
        let mut keys = listed.keys;
        // Whatever the brain makes of the question.
        keys.retain(|key| key.customer_id == customer.as_str());
        Ok(Some(keys))
    }

    /// Asks the brain to revoke a key by its id; `false` when it does not know it or has no route to revoke. What it
    /// answers is its word only: whether the key is refused shows when it is tried.
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
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.no_admin()),
            _ => Err(self.status_error("DELETE /v1/keys/{id}", answer).await),
        }
    }
}

/// Whether an error leaves it open that the key was minted.
fn may_have_been_minted(error: &BrainError) -> bool {
    match error {
        BrainError::Unreachable { sent, .. } => *sent,
        BrainError::Status { status, .. } => *status >= 500,
        BrainError::Unexpected { .. } | BrainError::Page { .. } | BrainError::TooLong { .. } => {
            true
        }
        _ => false,
    }
}
