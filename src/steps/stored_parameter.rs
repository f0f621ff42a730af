//! A parameter that holds exactly the value somebody gave, whatever it held before; and one that is no more.
//!
//! Onboarding keeps a stored value that works. These two are for an operator who says what to store, or to delete.

use std::sync::OnceLock;

use async_trait::async_trait;

use super::brain_key::BRAIN_KEY_ID_TAG;
use crate::aws::Aws;
use crate::aws::ssm::{Parameter, Put};
use crate::customer::CUSTOMER_TAG_KEY;
use crate::parameter::{ParameterId, Value};
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::secret::ExposeSecret as _;

/// A parameter with a given value.
pub struct StoredParameter {
    /// Where it is stored.
    pub aws: Aws,
    /// Which it is.
    pub id: ParameterId,
    /// What it shall hold.
    pub value: Value,
    /// What storing it found and did.
    pub stored: OnceLock<Stored>,
}

/// What became of storing a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The version before; `None` where there was no such parameter.
    pub before: Option<i64>,
    /// The version that was read back.
    pub version: i64,
    /// The brain's id of the key that was overwritten, where it was known: that key is still valid.
    pub replaced_key: Option<String>,
}

impl StoredParameter {
    /// A step that will store `value`.
    pub fn new(aws: Aws, id: ParameterId, value: Value) -> Self {
        Self {
            aws,
            id,
            value,
            stored: OnceLock::new(),
        }
    }

    async fn now(&self) -> Result<Option<(Parameter, Vec<(String, String)>)>, StepError> {
        let name = self.id.to_string();
        let (parameter, tags) =
            futures::try_join!(self.aws.parameter(&name), self.aws.parameter_tags(&name))?;
        let tags = tags.unwrap_or_default();
        if let Some(customer) = self.id.customer()
            && let Some(owner) = tag(&tags, CUSTOMER_TAG_KEY)
            && owner != customer.as_str()
        {
            return Err(StepError::Precondition {
                problem: format!(
                    "{name} is tagged for another customer, {}",
                    owner.escape_debug()
                ),
                hint: format!(
                    "settle whose it is; if it is this customer's: aws ssm add-tags-to-resource --resource-type Parameter --resource-id {name} --tags Key=Customer,Value={customer}"
                ),
            });
        }
        Ok(parameter.map(|parameter| (parameter, tags)))
    }

    fn tags(&self) -> Vec<(&str, &str)> {
        let customer = self.id.customer();
        customer
            .map(|customer| (CUSTOMER_TAG_KEY, customer.as_str()))
            .into_iter()
            .collect()
    }

    fn differences(&self, now: &Parameter, tags: &[(String, String)]) -> Vec<String> {
        let name = self.id.to_string();
        let mut differences = Vec::new();
        if now.value.expose_secret() != self.value.expose() {
            let old = self
                .id
                .stored_value(now.value.expose_secret())
                .map_or("a value that cannot be used".to_owned(), |old| old.masked());
            let new = self.value.masked();
            let what = if old == new {
                format!(" with another {}", self.id.what())
            } else {
                format!(": {old} → {new}")
            };
            differences.push(format!("overwrite {name}, version {}{what}", now.version));
        }
        if now.kind != self.id.kind().name() {
            differences.push(format!(
                "store it as {} instead of {}",
                self.id.kind().name(),
                now.kind
            ));
        }
        for (key, value) in self.tags() {
            if tag(tags, key).is_none() {
                differences.push(format!("tag it {key}={value}"));
            }
        }
        differences
    }

    /// What SSM holds now must be what was sent.
    async fn read_back(&self, version: i64) -> Result<i64, StepError> {
        let name = self.id.to_string();
        let back = self.aws.parameter(&name).await?;
        let same = back.as_ref().is_some_and(|back| {
            back.value.expose_secret() == self.value.expose()
                && back.kind == self.id.kind().name()
                && back.version == version
        });
        if same {
            return Ok(version);
        }
        if let Some(back) = &back
            && back.kind != self.id.kind().name()
        {
            return Err(StepError::Precondition {
                problem: format!(
                    "{name} was stored, and AWS kept its type, {}: it should be {}",
                    back.kind,
                    self.id.kind().name()
                ),
                hint: format!(
                    "delete it with `m8trx params delete {name}`, then run the same command again"
                ),
            });
        }
        Err(StepError::Precondition {
            problem: match back {
                Some(back) => format!(
                    "{name} was stored as version {version}, and reads back as version {} with something else",
                    back.version
                ),
                None => format!("{name} was stored as version {version}, and is gone again"),
            },
            hint: "somebody else writes it at the same time: settle who, then run the same command again".to_owned(),
        })
    }
}

fn tag<'t>(tags: &'t [(String, String)], key: &str) -> Option<&'t str> {
    tags.iter()
        .find_map(|(found, value)| (found == key).then_some(value.as_str()))
}

#[async_trait]
impl Step for StoredParameter {
    fn name(&self) -> &'static str {
        self.id.step()
    }

    fn describe(&self) -> String {
        format!("parameter {}", self.id)
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        let Some((now, tags)) = self.now().await? else {
            return Ok(Observation::missing(format!(
                "create {} ({}) = {}",
                self.id,
                self.id.kind().name(),
                self.value.masked()
            )));
        };
        let differences = self.differences(&now, &tags);
        if !differences.is_empty() {
            return Ok(Observation::Drifted { differences });
        }
        let _ = self.stored.set(Stored {
            before: Some(now.version),
            version: now.version,
            replaced_key: None,
        });
        Ok(Observation::satisfied(format!(
            "{} holds this value, version {}",
            self.id, now.version
        )))
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        let name = self.id.to_string();
        let (value, kind, tags) = (self.value.expose(), self.id.kind(), self.tags());
        let Some((now, had)) = self.now().await? else {
            let put = self.aws.create_parameter(&name, value, kind, &tags).await?;
            let Put::Created(version) = put else {
                return Err(StepError::Precondition {
                    problem: format!(
                        "{name} was created by somebody else meanwhile; it was left as it is"
                    ),
                    hint: "look at it with `m8trx params show`, then run the same command again"
                        .to_owned(),
                });
            };
            let version = self.read_back(version).await?;
            let _ = self.stored.set(Stored {
                before: None,
                version,
                replaced_key: None,
            });
            return Ok(Outcome::Created(format!("{name}, version {version}")));
        };
        if now.value.expose_secret() == value && now.kind == kind.name() {
            // What lacks are tags, or somebody else stored it meanwhile.
            if !tags.is_empty() {
                self.aws.tag_parameter(&name, &tags).await?;
            }
            let _ = self.stored.set(Stored {
                before: Some(now.version),
                version: now.version,
                replaced_key: None,
            });
            return Ok(Outcome::Updated(format!(
                "{name}: tagged, version {}",
                now.version
            )));
        }
        let stored = self
            .aws
            .overwrite_parameter(&name, value, kind, &tags)
            .await?;
        // The id names the key that was stored before: with it, somebody would believe the new one revoked.
        let replaced_key = match &self.id {
            ParameterId::BrainKey(_) => tag(&had, BRAIN_KEY_ID_TAG).map(str::to_owned),
            _ => None,
        };
        if replaced_key.is_some() {
            self.aws.untag_parameter(&name, &[BRAIN_KEY_ID_TAG]).await?;
        }
        run.progress("reading it back");
        let version = self.read_back(stored.version).await?;
        let _ = self.stored.set(Stored {
            before: Some(now.version),
            version,
            replaced_key,
        });
        Ok(Outcome::Updated(format!(
            "{name}, version {version}, before {}",
            now.version
        )))
    }

    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        let name = self.id.to_string();
        let removed = self.aws.delete_parameter(&name).await?;
        Ok(removed
            .then(|| format!("parameter {name}"))
            .into_iter()
            .collect())
    }
}

/// A parameter that shall not be there.
pub struct AbsentParameter {
    /// Where it is not stored.
    pub aws: Aws,
    /// Which it is.
    pub id: ParameterId,
    /// The brain's id of the key that was in it, where it is known: that key is still valid.
    pub key_id: OnceLock<String>,
}

impl AbsentParameter {
    /// A step that will delete a parameter.
    pub fn new(aws: Aws, id: ParameterId) -> Self {
        Self {
            aws,
            id,
            key_id: OnceLock::new(),
        }
    }

    fn consequence(&self) -> String {
        match &self.id {
            ParameterId::BrainUrl => {
                "every host of the fleet that boots, or whose beat fails, fails without it"
                    .to_owned()
            }
            ParameterId::BrainKey(customer) => format!(
                "a host of {customer} that boots fails without it; the key itself stays valid at the brain"
            ),
            ParameterId::TailscaleAuthKey(customer) => format!(
                "a host of {customer} that boots fails without it; the key itself stays valid at Tailscale"
            ),
        }
    }
}

#[async_trait]
impl Step for AbsentParameter {
    fn name(&self) -> &'static str {
        self.id.step()
    }

    fn describe(&self) -> String {
        format!("no parameter {}", self.id)
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        let name = self.id.to_string();
        let (found, tags) = futures::try_join!(
            self.aws.described_parameter(&name),
            self.aws.parameter_tags(&name)
        )?;
        let Some(found) = found else {
            return Ok(Observation::satisfied(format!("there is no {name}")));
        };
        if let Some(id) = tags.as_deref().and_then(|tags| tag(tags, BRAIN_KEY_ID_TAG)) {
            let _ = self.key_id.set(id.to_owned());
        }
        let changed = found
            .modified
            .map_or(String::new(), |at| format!(", stored at {at}"));
        Ok(Observation::Drifted {
            differences: vec![
                format!(
                    "delete {name} ({}, version {}{changed})",
                    found.kind, found.version
                ),
                self.consequence(),
            ],
        })
    }

    async fn apply(&self, _run: &StepRun) -> Result<Outcome, StepError> {
        let name = self.id.to_string();
        Ok(if self.aws.delete_parameter(&name).await? {
            Outcome::Removed(name)
        } else {
            Outcome::Unchanged(format!("{name} was gone already"))
        })
    }

    /// What was deleted is nowhere to be had.
    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        Ok(Vec::new())
    }
}
