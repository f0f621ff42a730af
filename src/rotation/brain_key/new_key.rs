//! Minting the new key, trying it, and storing it over the old one.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{After, Before, NEW_ID_TAG, OLD_ID_TAG, Pending, ROTATION_TAG, Rotation};
use crate::aws::ssm::{Kind, Parameter};
use crate::brain::BrainError;
use crate::brain::client::{KeyCheck, MintedKey};
use crate::brain::events::HEARTBEAT;
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::resource::Resource;
use crate::secret::{BrainKey, ExposeSecret as _};
use crate::steps::Mint;
use crate::steps::brain_key::{BRAIN_KEY_ID_TAG, discard_key, mint_key};

/// The parameter holds a new key that the brain takes; the one before is known.
pub struct NewBrainKey(pub Arc<Rotation>);

/// How the parameter was found.
enum Found {
    /// A rotation may begin, after an earlier one that stored nothing.
    Ready {
        parameter: Parameter,
        id: Option<String>,
        earlier: Option<Pending>,
    },
    /// An earlier rotation stored its key, and was not finished.
    Begun {
        parameter: Parameter,
        key: BrainKey,
        pending: Pending,
    },
}

fn key_in(parameter: &Parameter) -> Option<BrainKey> {
    BrainKey::parse(parameter.value.expose_secret()).ok()
}

impl NewBrainKey {
    fn name(&self) -> String {
        self.0.context.customer.brain_key_parameter()
    }

    async fn look(&self) -> Result<Found, StepError> {
        let (aws, name) = (&self.0.context.aws, self.name());
        let customer = &self.0.context.customer;
        let Some(parameter) = aws.parameter(&name).await? else {
            return Err(StepError::Precondition {
                problem: format!(
                    "{customer} has no brain key that could be rotated: there is no {name}"
                ),
                hint: format!("m8trx onboard {customer} mints and stores the first one"),
            });
        };
        let tags = aws.parameter_tags(&name).await?.unwrap_or_default();
        let pending = Pending::among(&tags);
        let key = key_in(&parameter);
        Ok(match (pending, key) {
            (Some(pending), Some(key)) if key.fingerprint() == pending.fingerprint => {
                Found::Begun {
                    parameter,
                    key,
                    pending,
                }
            }
            (earlier, _) => Found::Ready {
                parameter,
                id: tags
                    .into_iter()
                    .find_map(|(tag, value)| (tag == BRAIN_KEY_ID_TAG).then_some(value)),
                earlier,
            },
        })
    }

    /// Goes on where an earlier rotation stopped.
    async fn resume(
        &self,
        parameter: &Parameter,
        key: BrainKey,
        pending: Pending,
    ) -> Result<String, StepError> {
        let old_version = pending.old_version;
        let old = format!("{}:{old_version}", self.name());
        let old = self.0.context.aws.parameter(&old).await?;
        let detail = format!(
            "version {}, stored by a rotation that was not finished",
            parameter.version
        );
        let _ = self.0.before.set(Before {
            version: old_version,
            id: pending.old_id,
            key: old.as_ref().and_then(key_in),
            stored: old.and_then(|old| old.modified),
        });
        let _ = self.0.after.set(After {
            version: parameter.version,
            id: pending.new_id,
            key,
        });
        Ok(detail)
    }

    /// A key of another customer would be accepted as well: it must see the heartbeats that the old key sees.
    async fn check_customer(&self, minted: &MintedKey, before: &Before) -> Result<(), StepError> {
        let (brain, customer) = (&self.0.context.brain, &self.0.context.customer);
        let all = Timestamp::UNIX_EPOCH;
        let seen = async |key: &BrainKey| match brain.events(customer, key, HEARTBEAT, all, 1).await
        {
            Ok(feed) => Ok(Some(!feed.events.is_empty())),
            Err(BrainError::NoEventsRoute { .. }) => Ok(None),
            Err(e) => Err(e),
        };
        let now = seen(&minted.key).await?;
        let Some(old) = before.key.as_ref().filter(|_| now == Some(false)) else {
            return Ok(());
        };
        match seen(old).await {
            Ok(Some(true)) => Err(StepError::Precondition {
                problem: format!(
                    "the new key does not see the heartbeats of {customer} that the old key sees: it is the key of another customer, or of nobody"
                ),
                hint: "nothing was changed; check what mints keys, or which key was given"
                    .to_owned(),
            }),
            // The old key may be refused by now, which is a reason to rotate it.
            Ok(_) | Err(BrainError::Refused { .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// An earlier rotation minted a key and stored it nowhere.
    async fn clear(
        &self,
        earlier: &Pending,
        id: Option<&str>,
        run: &StepRun,
    ) -> Result<(), StepError> {
        let context = &self.0.context;
        if let (Some(lost), Some(token)) = (&earlier.new_id, &context.admin_token)
            && Some(lost.as_str()) != id
        {
            run.progress(format!(
                "revoking {lost}, which an interrupted rotation minted and did not store"
            ));
            context.brain.revoke_key(lost, token).await?;
        }
        Ok(self.0.forget().await?)
    }

    /// Writes the tags first, so that whoever finds the new value knows what it replaced.
    async fn store(&self, minted: &MintedKey, before: &Before) -> Result<i64, StepError> {
        let (context, name) = (&self.0.context, self.name());
        let aws = &context.aws;
        let pending = Pending {
            fingerprint: minted.key.fingerprint(),
            old_version: before.version,
            new_id: minted.id.clone(),
            old_id: before.id.clone(),
        };
        let text = pending.text();
        let mut tags = vec![(ROTATION_TAG, text.as_str())];
        tags.extend(pending.new_id.as_deref().map(|id| (NEW_ID_TAG, id)));
        tags.extend(pending.old_id.as_deref().map(|id| (OLD_ID_TAG, id)));
        if let Err(e) = aws.tag_parameter(&name, &tags).await {
            // The failure to note it is what must be told; nobody can use a key that is stored nowhere.
            let _ = discard_key(context, minted).await;
            return Err(e.into());
        }
        let mut tags = context.tags();
        tags.extend(minted.id.as_deref().map(|id| (BRAIN_KEY_ID_TAG, id)));
        let put = aws
            .overwrite_parameter(&name, minted.key.expose(), Kind::Secure, &tags)
            .await;
        let now = aws.parameter(&name).await;
        let is_there = |now: &Parameter| now.value.expose_secret() == minted.key.expose();
        match (put, now) {
            (Ok(_), Ok(Some(now))) if is_there(&now) && now.kind == Kind::Secure.name() => {
                if minted.id.is_none() {
                    // It would name the key that was there before.
                    aws.untag_parameter(&name, BRAIN_KEY_ID_TAG).await?;
                }
                Ok(now.version)
            }
            (Ok(_), Ok(_)) => Err(StepError::Precondition {
                problem: format!("{name} was written, and does not read back as it was written"),
                hint: "somebody else changed it at the same time: run the same command again"
                    .to_owned(),
            }),
            (Ok(_), Err(e)) => Err(e.into()),
            (Err(e), Ok(Some(now))) if !is_there(&now) => {
                let _ = discard_key(context, minted).await;
                Err(e.into())
            }
            // It may be stored: whether it is shows when the command is run again.
            (Err(e), _) => Err(e.into()),
        }
    }
}

#[async_trait]
impl Step for NewBrainKey {
    fn name(&self) -> &'static str {
        Resource::BrainKey.name()
    }

    fn describe(&self) -> String {
        format!("a new key in {}", self.name())
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        let (parameter, id, earlier) = match self.look().await? {
            Found::Begun {
                parameter,
                key,
                pending,
            } => {
                return Ok(Observation::satisfied(
                    self.resume(&parameter, key, pending).await?,
                ));
            }
            Found::Ready {
                parameter,
                id,
                earlier,
            } => (parameter, id, earlier),
        };
        let context = &self.0.context;
        let how = context
            .mint
            .as_ref()
            .map_or("as asked".to_owned(), Mint::describe);
        let mut differences = vec![format!(
            "version {}{}{}: to be replaced",
            parameter.version,
            id.as_ref().map_or(String::new(), |id| format!(", {id}")),
            parameter.modified.map_or(String::new(), |at| format!(
                ", stored {}",
                crate::rotation::age(at)
            ))
        )];
        if let Some(lost) = earlier.and_then(|earlier| earlier.new_id) {
            differences.push(format!(
                "an interrupted rotation minted {lost} and did not store it: revoke it"
            ));
        }
        differences.push(format!(
            "mint a new key, {how}, and overwrite {}",
            self.name()
        ));
        let _ = self.0.before.set(Before {
            version: parameter.version,
            id,
            key: key_in(&parameter),
            stored: parameter.modified,
        });
        Ok(Observation::Drifted { differences })
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        let context = &self.0.context;
        let (parameter, id, earlier) = match self.look().await? {
            Found::Begun {
                parameter,
                key,
                pending,
            } => {
                return Ok(Outcome::Adopted(
                    self.resume(&parameter, key, pending).await?,
                ));
            }
            Found::Ready {
                parameter,
                id,
                earlier,
            } => (parameter, id, earlier),
        };
        let before = self
            .0
            .before
            .get()
            .filter(|before| before.version == parameter.version)
            .ok_or_else(|| StepError::Precondition {
                problem: format!("{} was changed by somebody else meanwhile", self.name()),
                hint: "nothing was changed; run the same command again".to_owned(),
            })?;
        if let Some(earlier) = &earlier {
            self.clear(earlier, id.as_deref(), run).await?;
        }
        let minted = mint_key(context, |what| run.progress(what)).await?;
        if minted.key.expose() == parameter.value.expose_secret() {
            return Err(StepError::Precondition {
                problem: format!("the new key is the one that {} holds already", self.name()),
                hint: "nothing was changed; mint another one at the brain".to_owned(),
            });
        }
        if let Err(e) = self.check_customer(&minted, before).await {
            let _ = discard_key(context, &minted).await;
            return Err(e);
        }
        run.progress("storing the key");
        let version = self.store(&minted, before).await?;
        let outcome = Outcome::Updated(format!(
            "{}, version {} → {version}, read back",
            self.name(),
            before.version
        ));
        let _ = self.0.after.set(After {
            version,
            id: minted.id,
            key: minted.key,
        });
        Ok(outcome)
    }

    /// Puts the old key back, unless the brain refuses that one too.
    async fn undo(&self, run: &StepRun) -> Result<Vec<String>, StepError> {
        let (context, name) = (&self.0.context, self.name());
        let (before, after) = self.0.both()?;
        self.0.check_stored().await?;
        let old = before.key.as_ref().ok_or_else(|| StepError::Precondition {
            problem: format!("version {} of {name} holds no key", before.version),
            hint: format!(
                "mint a new one: m8trx rotate-brain-key {}",
                context.customer
            ),
        })?;
        run.progress("putting the old key back");
        if context.brain.check_key(old).await? == KeyCheck::Refused {
            return Err(StepError::Precondition {
                problem: "the brain refuses the old key as well".to_owned(),
                hint: "check with whoever runs the brain whether keys work there at all".to_owned(),
            });
        }
        let mut tags = context.tags();
        tags.extend(before.id.as_deref().map(|id| (BRAIN_KEY_ID_TAG, id)));
        let version = context
            .aws
            .overwrite_parameter(&name, old.expose(), Kind::Secure, &tags)
            .await?;
        if before.id.is_none() {
            context.aws.untag_parameter(&name, BRAIN_KEY_ID_TAG).await?;
        }
        self.0.forget().await?;
        let mut done = vec![format!(
            "{name}, version {version}, holds the key of version {} again",
            before.version
        )];
        if let (Some(id), Some(token)) = (&after.id, &context.admin_token)
            && context.brain.revoke_key(id, token).await?
        {
            done.push(format!("brain key {id}, revoked"));
        }
        Ok(done)
    }
}
