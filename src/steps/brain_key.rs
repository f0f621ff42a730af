//! The customer's brain key: minted, tried, and stored.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Context, Mint};
use crate::aws::ssm::{Kind, Parameter, Put};
use crate::brain::BrainError;
use crate::brain::client::{KeyCheck, MintedKey};
use crate::brain::mint;
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::resource::Resource;
use crate::secret::{BrainKey, ExposeSecret as _};

/// The tag of the parameter that keeps the brain's own id of the key, to revoke it by.
pub const BRAIN_KEY_ID_TAG: &str = "BrainKeyId";

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

    fn keep(&self, key: BrainKey) {
        // Only one step sets it, once a run; a second observation finds the same key.
        let _ = self.0.found.brain_key.set(key);
    }
}

/// Mints a key for the customer, as configured, and has the brain accept it.
pub async fn mint_key(context: &Context, progress: impl Fn(&str)) -> Result<MintedKey, StepError> {
    let customer = &context.customer;
    let label = &context.key_label;
    let minted = match &context.mint {
        None => {
            return Err(StepError::Precondition {
                problem: format!("{customer} needs a brain key, and nothing says how to mint one"),
                hint: "pass --mint-command 'node bin/mint-key.js', or --brain-key-file FILE, or set M8TRX_BRAIN_ADMIN_TOKEN_FILE".to_owned(),
            });
        }
        Some(Mint::Given(key)) => MintedKey {
            key: key.clone(),
            id: None,
        },
        Some(Mint::Api(token)) => {
            progress("minting at the brain");
            context.brain.mint_key(customer, label, token).await?
        }
        Some(Mint::Command(words)) => {
            progress("minting with the mint command");
            MintedKey {
                key: mint::run(words, customer, label).await?,
                id: None,
            }
        }
    };
    if context.brain.check_key(&minted.key).await? == KeyCheck::Refused {
        return Err(BrainError::Refused {
            url: context.brain.url().to_string(),
            what: format!("brain key just minted for {customer}"),
        }
        .into());
    }
    Ok(minted)
}

/// A minted key that was not needed in the end must not stay valid, where the brain lets it be revoked.
pub async fn discard_key(context: &Context, minted: &MintedKey) -> Result<(), StepError> {
    if let (Some(id), Some(token)) = (&minted.id, &context.admin_token) {
        context.brain.revoke_key(id, token).await?;
    }
    Ok(())
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
        Ok(match self.judge(self.0.stored_brain_key().await?).await? {
            Stored::None => Observation::Missing {
                changes: vec![
                    format!("mint a brain key, {how}"),
                    format!("create {name} (SecureString)"),
                ],
            },
            Stored::Good(key, detail) => {
                self.keep(key);
                Observation::satisfied(detail)
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
        if let Stored::Good(key, detail) = self.judge(now.as_ref()).await? {
            self.keep(key);
            return Ok(Outcome::Adopted(detail));
        }
        let minted = mint_key(&self.0, |what| run.progress(what)).await?;
        let mut tags = self.0.tags();
        if let Some(id) = &minted.id {
            tags.push((BRAIN_KEY_ID_TAG, id.as_str()));
        }
        run.progress("storing the key");
        let value = minted.key.expose();
        let aws = &self.0.aws;
        let outcome = if now.is_some() {
            let version = aws
                .overwrite_parameter(&name, value, Kind::Secure, &tags)
                .await?;
            if minted.id.is_none() {
                // It would name the key that was there before.
                aws.untag_parameter(&name, BRAIN_KEY_ID_TAG).await?;
            }
            Outcome::Updated(format!("{name}, version {version}"))
        } else {
            let put = aws
                .create_parameter(&name, value, Kind::Secure, &tags)
                .await;
            if put.is_err() {
                // The failure to store it is what must be told; nobody can use a key that is stored nowhere.
                let _ = discard_key(&self.0, &minted).await;
            }
            match put? {
                Put::Created(version) => Outcome::Created(format!("{name}, version {version}")),
                Put::Existed => {
                    discard_key(&self.0, &minted).await?;
                    let other = aws.parameter(&name).await?;
                    return match self.judge(other.as_ref()).await? {
                        Stored::Good(key, detail) => {
                            self.keep(key);
                            Ok(Outcome::Adopted(detail))
                        }
                        Stored::None | Stored::Bad(_) => Err(StepError::Precondition {
                            problem: format!(
                                "{name} was changed by somebody else while this run was going on"
                            ),
                            hint: "run the same command again".to_owned(),
                        }),
                    };
                }
            }
        };
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
        if let Some(token) = &self.0.admin_token
            && let Some(id) = aws.parameter_tag(&name, BRAIN_KEY_ID_TAG).await?
            && self.0.brain.revoke_key(&id, token).await?
        {
            removed.push(format!("brain key {id}, revoked"));
        }
        if aws.delete_parameter(&name).await? {
            removed.push(format!("parameter {name}"));
        }
        Ok(removed)
    }
}
