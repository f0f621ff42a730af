//! The customer's brain key: minted, tried, and stored.

use std::sync::Arc;

use async_trait::async_trait;

use super::minted_key::{clear_leftovers, discard_key, mint_key, not_stored, revoke_key};
use super::{Context, Mint};
use crate::aws::ssm::{Kind, Parameter, Put, PutError};
use crate::brain::client::KeyCheck;
use crate::brain::keys::MintedKey;
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::resource::Resource;
use crate::secret::{BrainKey, ExposeSecret as _};

/// The tag of the parameter that keeps the brain's own id of the key, to revoke it by.
pub const BRAIN_KEY_ID_TAG: &str = "BrainKeyId";

/// The tag that says, before a key is overwritten, what the brain calls the new one and what its fingerprint is:
/// `key_1 as 1f2e3d4c`. Whoever finds that key stored knows its id, whatever became of the run.
pub const MINTED_TAG: &str = "BrainKeyMinted";

/// What the brain calls a key, by a [`MINTED_TAG`].
pub fn minted_id(tag: &str) -> Option<(&str, &str)> {
    tag.rsplit_once(" as ")
}

/// `/m8trx/<id>/brain-key`.
pub struct BrainKeyParameter(pub Arc<Context>);

/// How the stored key stands.
enum Stored {
    None,
    Good(BrainKey, String),
    Bad(String),
}

impl BrainKeyParameter {
    async fn judge(&self, parameter: Option<&Parameter>) -> Result<Stored, StepError> {
        let Some(parameter) = parameter else {
            return Ok(Stored::None);
        };
        let version = parameter.version;
        if parameter.kind != Kind::Secure.name() {
            return Ok(Stored::Bad(format!(
                "it is stored as {}, readable without decryption",
                parameter.kind
            )));
        }
        let key = match BrainKey::parse(parameter.value.expose_secret()) {
            Ok(key) if key.expose() == parameter.value.expose_secret() => key,
            Ok(_) => {
                return Ok(Stored::Bad(
                    "the stored value has white space around the key".to_owned(),
                ));
            }
            Err(e) => return Ok(Stored::Bad(format!("the stored value is no key: {e}"))),
        };
        Ok(match self.0.brain.check_key(&key).await? {
            KeyCheck::Accepted => {
                Stored::Good(key, format!("version {version}, accepted by the brain"))
            }
            KeyCheck::CannotBeAsked => Stored::Good(
                key,
                format!("version {version}; this brain cannot be asked about keys over HTTP"),
            ),
            KeyCheck::Refused => Stored::Bad(format!("the brain refuses version {version}")),
        })
    }

    /// The parameter with a key of this run; `None` where somebody else has created it meanwhile.
    async fn create(&self, minted: &MintedKey) -> Result<Option<Outcome>, StepError> {
        let name = self.0.customer.brain_key_parameter();
        let mut tags = self.0.tags();
        tags.extend(minted.id.as_deref().map(|id| (BRAIN_KEY_ID_TAG, id)));
        let put = self
            .0
            .aws
            .create_parameter(&name, minted.key.expose(), Kind::Secure, &tags)
            .await;
        match put {
            Ok(Put::Created(version)) => {
                Ok(Some(Outcome::Created(format!("{name}, version {version}"))))
            }
            Ok(Put::Existed) => {
                discard_key(&self.0, minted).await?;
                Ok(None)
            }
            Err(error) => Err(not_stored(&self.0, minted, error).await),
        }
    }

    /// A key that does not serve is replaced; what the brain calls the new one is noted before.
    /// `None` where somebody else has replaced it meanwhile.
    async fn overwrite(
        &self,
        now: &Parameter,
        minted: &MintedKey,
    ) -> Result<Option<Outcome>, StepError> {
        let (aws, name) = (&self.0.aws, self.0.customer.brain_key_parameter());
        let before = aws.parameter_tag(&name, BRAIN_KEY_ID_TAG).await?;
        let mut tags = self.0.tags();
        let noted = match &minted.id {
            Some(id) => {
                tags.push((BRAIN_KEY_ID_TAG, id.as_str()));
                let minted = format!("{id} as {}", minted.key.fingerprint());
                aws.tag_parameter(&name, &[(MINTED_TAG, &minted)]).await
            }
            // It would name the key that was there before.
            None => aws.untag_parameter(&name, &[BRAIN_KEY_ID_TAG]).await,
        };
        if let Err(error) = noted {
            return Err(not_stored(&self.0, minted, PutError::NotStored(error)).await);
        }
        // Two at once: whoever comes later finds that out before it stores anything, and gives up its key.
        match aws.parameter(&name).await {
            Ok(Some(found)) if found.version == now.version => {}
            Ok(_) => {
                discard_key(&self.0, minted).await?;
                aws.untag_parameter(&name, &[MINTED_TAG]).await?;
                return Ok(None);
            }
            Err(e) => return Err(not_stored(&self.0, minted, PutError::NotStored(e)).await),
        }
        let put = aws
            .overwrite_parameter(&name, minted.key.expose(), Kind::Secure, &tags)
            .await;
        let stored = match put {
            Ok(stored) => stored,
            Err(error) => return Err(not_stored(&self.0, minted, error).await),
        };
        if minted.id.is_some() {
            aws.untag_parameter(&name, &[MINTED_TAG]).await?;
        }
        // One that was only stored wrongly may still work.
        let old = BrainKey::parse(now.value.expose_secret()).ok();
        if let (Some(id), Some(old)) = (before, old)
            && minted.id.as_ref() != Some(&id)
            && self.0.brain.check_key(&old).await? == KeyCheck::Accepted
        {
            revoke_key(&self.0, &id, Some(&old)).await?;
        }
        Ok(Some(Outcome::Updated(format!(
            "{name}, version {}",
            stored.version
        ))))
    }

    /// Somebody else has stored a key meanwhile.
    async fn adopt(&self) -> Result<Outcome, StepError> {
        let name = self.0.customer.brain_key_parameter();
        let other = self.0.aws.parameter(&name).await?;
        match self.judge(other.as_ref()).await? {
            Stored::Good(key, detail) => {
                self.keep(key);
                Ok(Outcome::Adopted(detail))
            }
            Stored::None | Stored::Bad(_) => Err(StepError::Precondition {
                problem: format!("{name} was changed by somebody else while this run was going on"),
                hint: "run the same command again".to_owned(),
            }),
        }
    }

    /// What the brain calls the stored key, where an interrupted run did not come to note it.
    async fn unnoted_id(
        &self,
        parameter: &Parameter,
        key: &BrainKey,
    ) -> Result<Option<String>, StepError> {
        // A first version carries its tags from the start.
        if parameter.version == 1 {
            return Ok(None);
        }
        let name = self.0.customer.brain_key_parameter();
        let tags = match self.0.aws.parameter_tags(&name).await {
            Ok(tags) => tags.unwrap_or_default(),
            // Whoever only looks needs no tags, and may not see them.
            Err(e) if e.code() == Some("AccessDeniedException") => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let tag = |wanted: &str| {
            let found = tags.iter().find(|(key, _)| key == wanted);
            found.map(|(_, value)| value.as_str())
        };
        let Some((id, fingerprint)) = tag(MINTED_TAG).and_then(minted_id) else {
            return Ok(None);
        };
        let is_unnoted = fingerprint == key.fingerprint() && tag(BRAIN_KEY_ID_TAG) != Some(id);
        Ok(is_unnoted.then(|| id.to_owned()))
    }

    fn keep(&self, key: BrainKey) {
        // Only one step sets it, once a run; a second observation finds the same key.
        let _ = self.0.found.brain_key.set(key);
    }
}

#[async_trait]
impl Step for BrainKeyParameter {
    fn name(&self) -> &'static str {
        Resource::BrainKey.name()
    }

    fn describe(&self) -> String {
        format!("parameter {}", self.0.customer.brain_key_parameter())
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        let how = self
            .0
            .mint
            .as_ref()
            .map_or("as asked".to_owned(), Mint::describe);
        let name = self.0.customer.brain_key_parameter();
        let parameter = self.0.stored_brain_key().await?;
        Ok(match self.judge(parameter).await? {
            Stored::None => Observation::Missing {
                changes: vec![
                    format!("mint a brain key, {how}"),
                    format!("create {name} (SecureString)"),
                ],
            },
            Stored::Good(key, detail) => {
                let id = match parameter {
                    Some(parameter) => self.unnoted_id(parameter, &key).await?,
                    None => None,
                };
                self.keep(key);
                match id {
                    None => Observation::satisfied(detail),
                    Some(id) => Observation::Drifted {
                        differences: vec![format!("note that the brain calls it {id}")],
                    },
                }
            }
            Stored::Bad(why) => Observation::Drifted {
                differences: vec![why, format!("mint a new key, {how}, and overwrite {name}")],
            },
        })
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        let name = self.0.customer.brain_key_parameter();
        // Another run may have stored one since it was looked at: a second key would be one too many.
        let now = self.0.aws.parameter(&name).await?;
        if let (Stored::Good(key, detail), Some(parameter)) =
            (self.judge(now.as_ref()).await?, &now)
        {
            let id = self.unnoted_id(parameter, &key).await?;
            self.keep(key);
            let Some(id) = id else {
                return Ok(Outcome::Adopted(detail));
            };
            let aws = &self.0.aws;
            aws.tag_parameter(&name, &[(BRAIN_KEY_ID_TAG, &id)]).await?;
            aws.untag_parameter(&name, &[MINTED_TAG]).await?;
            return Ok(Outcome::Updated(format!(
                "{detail}; the brain calls it {id}"
            )));
        }
        let minted = mint_key(&self.0, |what| run.progress(what)).await?;
        run.progress("storing the key");
        let stored = match &now {
            Some(now) => self.overwrite(now, &minted).await?,
            None => self.create(&minted).await?,
        };
        let Some(outcome) = stored else {
            return self.adopt().await;
        };
        clear_leftovers(&self.0, minted.id.as_deref(), run).await;
        self.keep(minted.key);
        Ok(outcome)
    }

    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        let name = self.0.customer.brain_key_parameter();
        let aws = &self.0.aws;
        let mut removed = Vec::new();
        if !self.0.may_remove_parameter(&name).await? {
            return Ok(removed);
        }
        if let Some(id) = aws.parameter_tag(&name, BRAIN_KEY_ID_TAG).await?
            && revoke_key(&self.0, &id, None).await?
        {
            removed.push(format!("brain key {id}, revoked"));
        }
        if aws.delete_parameter(&name).await? {
            removed.push(format!("parameter {name}"));
        }
        Ok(removed)
    }
}
