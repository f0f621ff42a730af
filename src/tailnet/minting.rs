//! Auth keys at the API: minted, looked up, listed, revoked.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::client::{Call, Tailnet, decode};
use super::devices::nullable;
use super::error::{LostKey, TailnetError};
use super::keys::{AuthKey, MintedAuthKey, NewKey};
use crate::secret::{ExposeSecret as _, SecretText, TailscaleAuthKey};

/// How many keys are looked up at the same time where the list gives ids only.
const LOOK_UPS: usize = 4;
/// How often a key whose creation was lost is looked for: it may appear a moment later.
const SEARCHES: u32 = 3;

const WRITE: &str = "auth_keys";
const READ: &str = "auth_keys:read";

#[derive(Deserialize)]
struct Created {
    #[serde(flatten)]
    info: AuthKey,
    key: SecretText,
}

#[derive(Deserialize)]
struct Keys {
    #[serde(deserialize_with = "nullable")]
    keys: Vec<AuthKey>,
}

impl Tailnet {
    /// Mints a key: reusable, ephemeral, pre-approved, with one tag.
    ///
    /// The request is sent once. Where its answer is lost, a key may have been made whose secret nobody knows: it is
    /// looked for by its description and revoked.
    ///
    /// # Errors
    /// [`TailnetError::KeyLost`] where the answer was lost, with what became of the key; otherwise nothing was made.
    pub async fn mint_key(&self, new: &NewKey) -> Result<MintedAuthKey, TailnetError> {
        // Without a token nothing is made, whatever became of the question for it.
        self.sign_in().await?;
        match self.create_key(new).await {
            Err(cause) if may_have_been_made(&cause) => Err(TailnetError::KeyLost {
                fate: self.revoke_lost(&new.description).await,
                cause: Box::new(cause),
            }),
            other => other,
        }
    }

    async fn create_key(&self, new: &NewKey) -> Result<MintedAuthKey, TailnetError> {
        const OPERATION: &str = "create an auth key";
        let body = json!({
            "capabilities": { "devices": { "create": {
                "reusable": true,
                "ephemeral": true,
                "preauthorized": true,
                "tags": [new.tag],
            }}},
            "expirySeconds": new.lifetime.as_secs(),
            "description": new.description,
        });
        let path = ["tailnet", self.name(), "keys"];
        let mut call = Call::new(OPERATION, WRITE, Method::POST, &path);
        call.body = Some(("application/json", body.to_string()));
        let answer = self.call(call).await?;
        let created: Created = decode(OPERATION, &answer.body)?;
        let unexpected = |reason: String| TailnetError::Unexpected {
            operation: OPERATION,
            reason,
        };
        if created.info.tags() != [new.tag.as_str()] {
            return Err(unexpected(
                "the key it made has other tags than were asked for".to_owned(),
            ));
        }
        Ok(MintedAuthKey {
            key: TailscaleAuthKey::parse(created.key.0.expose_secret())
                .map_err(|e| unexpected(e.to_string()))?,
            expires: created.info.expires,
        })
    }

    async fn revoke_lost(&self, description: &str) -> LostKey {
        let unknown = |error: TailnetError| LostKey::Unknown {
            description: description.to_owned(),
            reason: error.to_string(),
        };
        for search in 1..=SEARCHES {
            match self.keys_described(|text| text == description).await {
                Err(error) => return unknown(error),
                Ok(found) => {
                    if let Some(key) = found.first() {
                        return match self.revoke_key(&key.id).await {
                            Ok(_) => LostKey::Revoked { id: key.id.clone() },
                            Err(error) => unknown(error),
                        };
                    }
                }
            }
            if search < SEARCHES {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        LostKey::NotMade {
            description: description.to_owned(),
        }
    }

    /// What the API tells of a key; `None` when it knows none of this id.
    pub async fn auth_key(&self, id: &str) -> Result<Option<AuthKey>, TailnetError> {
        const OPERATION: &str = "look up the auth key";
        let path = ["tailnet", self.name(), "keys", id];
        match self
            .call(Call::new(OPERATION, READ, Method::GET, &path))
            .await
        {
            Ok(answer) => {
                let key: AuthKey = decode(OPERATION, &answer.body)?;
                self.known_keys().insert(key.id.clone(), key.clone());
                Ok(Some(key))
            }
            Err(TailnetError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn known_keys(&self) -> MutexGuard<'_, HashMap<String, AuthKey>> {
        self.0
            .known_keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Every auth key that is still good.
    pub async fn auth_keys(&self) -> Result<Vec<AuthKey>, TailnetError> {
        const OPERATION: &str = "list the auth keys";
        let path = ["tailnet", self.name(), "keys"];
        let mut call = Call::new(OPERATION, READ, Method::GET, &path);
        // Without it, a client's token is shown the OAuth clients only.
        call.query = &[("all", "true")];
        let answer = self.call(call).await?;
        let listed: Keys = decode(OPERATION, &answer.body)?;
        // The list may give ids only.
        let known: Vec<Option<AuthKey>> = stream::iter(listed.keys)
            .map(|key| async move {
                if key.capabilities.is_some() || key.key_type.is_some() {
                    return Ok(Some(key));
                }
                // The list is of good keys, and nothing else about a key ever changes.
                let known = self.known_keys().get(&key.id).cloned();
                match known {
                    Some(known) => Ok(Some(known)),
                    None => self.auth_key(&key.id).await,
                }
            })
            .buffered(LOOK_UPS)
            .try_collect()
            .await?;
        let now = Timestamp::now();
        let is_auth = |key: &AuthKey| key.key_type.as_deref().is_none_or(|kind| kind == "auth");
        Ok(known
            .into_iter()
            .flatten()
            .filter(|key| is_auth(key) && !key.is_dead(now))
            .collect())
    }

    /// The good auth keys whose description is accepted.
    pub async fn keys_described(
        &self,
        accept: impl Fn(&str) -> bool,
    ) -> Result<Vec<AuthKey>, TailnetError> {
        let mut keys = self.auth_keys().await?;
        keys.retain(|key| accept(&key.description));
        Ok(keys)
    }

    /// Revokes a key; `false` when there is none of this id, or none any more.
    pub async fn revoke_key(&self, id: &str) -> Result<bool, TailnetError> {
        let path = ["tailnet", self.name(), "keys", id];
        let call = Call::new("revoke the auth key", WRITE, Method::DELETE, &path);
        match self.call(call).await {
            Ok(_) => Ok(true),
            Err(TailnetError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether an error leaves it open that the request was carried out.
fn may_have_been_made(error: &TailnetError) -> bool {
    match error {
        TailnetError::Unreachable { sent, .. } => *sent,
        TailnetError::TimedOut { .. }
        | TailnetError::NotTheApi { .. }
        | TailnetError::Unexpected { .. } => true,
        TailnetError::Status { status, .. } => *status >= 500,
        _ => false,
    }
}
