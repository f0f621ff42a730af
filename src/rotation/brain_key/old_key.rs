//! Revoking the key that was replaced.

use std::sync::Arc;

use async_trait::async_trait;

use super::{OLD_ID_TAG, Revoked, Rotation, is_under_way};
use crate::brain::client::KeyCheck;
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::steps::brain_key::BRAIN_KEY_ID_TAG;
use crate::steps::minted_key::{clear_leftovers, revoke_key};

/// The old key is revoked, where that can be done from here.
pub struct OldBrainKey(pub Arc<Rotation>);

impl OldBrainKey {
    /// The brain's id of the key that is to go, by the parameter's tags: before anything else is known.
    async fn id(&self) -> Result<Option<String>, StepError> {
        let context = &self.0.context;
        let name = context.customer.brain_key_parameter();
        let tag = if is_under_way(&context.aws, &context.customer).await? {
            OLD_ID_TAG
        } else {
            BRAIN_KEY_ID_TAG
        };
        Ok(context.aws.parameter_tag(&name, tag).await?)
    }

    /// Whether the brain has no way to try a key.
    async fn cannot_be_tried(&self) -> Result<bool, StepError> {
        let key = self.0.before().and_then(|before| before.key.as_ref());
        Ok(match key {
            Some(key) => self.0.context.brain.check_key(key).await? == KeyCheck::CannotBeAsked,
            None => false,
        })
    }

    /// Whether the brain refuses the old key already, revoked by somebody.
    async fn is_refused(&self) -> Result<bool, StepError> {
        let key = self.0.before().and_then(|before| before.key.as_ref());
        Ok(match key {
            Some(key) => self.0.context.brain.check_key(key).await? == KeyCheck::Refused,
            None => false,
        })
    }
}

#[async_trait]
impl Step for OldBrainKey {
    fn name(&self) -> &'static str {
        "old-key"
    }

    fn after(&self) -> &'static [&'static str] {
        if self.0.revoke_at_once {
            &["brain-key"]
        } else {
            &["hosts"]
        }
    }

    fn describe(&self) -> String {
        format!("the old brain key of {} revoked", self.0.context.customer)
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        let when = if self.0.revoke_at_once {
            "at once"
        } else {
            "then"
        };
        let by_hand = match (&self.0.context.admin_token, self.id().await?) {
            (Some(_), Some(id)) => {
                return Ok(Observation::missing(format!(
                    "{when} revoke {id} at the brain"
                )));
            }
            _ if self.is_refused().await? => {
                return Ok(Observation::missing(
                    "the brain refuses the old one already: take note of it",
                ));
            }
            (Some(_), None) => "the brain gave no id for it",
            (None, _) => "there is no admin token",
        };
        if self.0.revoke_at_once {
            return Err(StepError::Precondition {
                problem: format!("the old key cannot be revoked from here: {by_hand}"),
                hint: "set M8TRX_BRAIN_ADMIN_TOKEN_FILE if that is missing; or leave --revoke-at-once out, and revoke the old key where the brain runs".to_owned(),
            });
        }
        Ok(Observation::missing(format!(
            "tell which key is to be revoked where the brain runs: {by_hand}"
        )))
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        let (before, after) = self.0.both()?;
        let context = &self.0.context;
        // Before it is looked at what is stored: a key that is named here is one that this run's key has replaced.
        let named = self.0.replaced_ids().await?;
        self.0.check_stored().await?;
        let mut revoked = Vec::new();
        for id in named {
            run.progress(format!("revoking {id}"));
            let key = before
                .key
                .as_ref()
                .filter(|_| before.id.as_ref() == Some(&id));
            if revoke_key(context, &id, key).await? {
                revoked.push(id);
            }
        }
        revoked.extend(clear_leftovers(context, after.id.as_deref(), run).await);
        let removed = format!("brain key {}, revoked", revoked.join(", "));
        if self.is_refused().await? || (before.key.is_none() && !revoked.is_empty()) {
            let _ = self.0.revoked.set(Revoked::Yes);
            return Ok(if revoked.is_empty() {
                Outcome::Adopted(format!(
                    "the key of version {} is refused by the brain already",
                    before.version
                ))
            } else {
                Outcome::Removed(removed)
            });
        }
        if self.cannot_be_tried().await? && !revoked.is_empty() {
            // A brain that cannot be asked about keys is believed.
            let _ = self.0.revoked.set(Revoked::Yes);
            return Ok(Outcome::Removed(removed));
        }
        if self.0.revoke_at_once {
            return Err(StepError::Precondition {
                problem: format!(
                    "the key of version {} cannot be revoked from here: the brain gave no id for it",
                    before.version
                ),
                hint: "the new key is stored and works: revoke the old one where the brain runs, then run the same command again".to_owned(),
            });
        }
        let _ = self.0.revoked.set(Revoked::ByHand);
        Ok(Outcome::Unchanged(format!(
            "the key of version {} is still valid, and cannot be revoked from here",
            before.version
        )))
    }

    /// A revoked key stays revoked.
    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        Ok(Vec::new())
    }
}
