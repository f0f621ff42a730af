//! The key with which the customer's hosts join the tailnet.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::Context;
use crate::aws::ssm::{Kind, Parameter, Put};
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::secret::{ExposeSecret as _, TailscaleAuthKey};

/// Tailscale lets an auth key live for 90 days at most.
pub(crate) const MAX_KEY_AGE_DAYS: i64 = 90;

/// `/m8trx/<id>/tailscale-auth-key`.
pub struct TailscaleAuthKeyParameter(pub Arc<Context>);

impl TailscaleAuthKeyParameter {
    /// What is stored, or why it cannot be used.
    fn judge(parameter: &Parameter) -> Result<String, String> {
        if parameter.kind != Kind::Secure.name() {
            return Err(format!(
                "it is stored as {}, readable without decryption",
                parameter.kind
            ));
        }
        let key = TailscaleAuthKey::parse(parameter.value.expose_secret())
            .map_err(|e| format!("the stored value cannot be used: {e}"))?;
        if key.expose() != parameter.value.expose_secret() {
            return Err("the stored value has white space around the key".to_owned());
        }
        let mut detail = format!("key {}, version {}", key.id(), parameter.version);
        if let Some(modified) = parameter.modified {
            let days = Timestamp::now().duration_since(modified).as_hours() / 24;
            if days >= MAX_KEY_AGE_DAYS {
                return Err(format!(
                    "it was stored {days} days ago, and a Tailscale auth key lives {MAX_KEY_AGE_DAYS} days at most"
                ));
            }
            if days > 0 {
                detail.push_str(&format!(", stored {days} days ago"));
            }
        }
        Ok(detail)
    }
}

#[async_trait]
impl Step for TailscaleAuthKeyParameter {
    fn name(&self) -> &'static str {
        "tailscale-auth-key"
    }

    fn describe(&self) -> String {
        format!(
            "parameter {}",
            self.0.customer.tailscale_auth_key_parameter()
        )
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        let name = self.0.customer.tailscale_auth_key_parameter();
        Ok(match self.0.aws.parameter(&name).await? {
            None => Observation::missing(format!("create {name} (SecureString)")),
            Some(parameter) => match Self::judge(&parameter) {
                Ok(detail) => Observation::satisfied(detail),
                // A host that runs has joined already; the key matters when it joins again.
                Err(why) => Observation::Drifted {
                    differences: vec![why, format!("overwrite {name} with a new key")],
                },
            },
        })
    }

    async fn apply(&self, _run: &StepRun) -> Result<Outcome, StepError> {
        let name = self.0.customer.tailscale_auth_key_parameter();
        let Some(key) = self.0.tailscale_auth_key.get() else {
            return Err(StepError::Precondition {
                problem: format!(
                    "{} needs a Tailscale auth key, and none was given",
                    self.0.customer
                ),
                hint: format!(
                    "mint one in the admin console (Settings > Keys: reusable, ephemeral, pre-approved, tag {}) and pass --tailscale-key-file FILE, or - for standard input",
                    self.0.customer.tailscale_tag()
                ),
            });
        };
        let aws = &self.0.aws;
        let tags = self.0.tags();
        if aws
            .parameter(&name)
            .await?
            .is_some_and(|p| Self::judge(&p).is_err())
        {
            let version = aws
                .overwrite_parameter(&name, key.expose(), Kind::Secure, &tags)
                .await?;
            return Ok(Outcome::Updated(format!(
                "key {}, version {version}",
                key.id()
            )));
        }
        let put = aws
            .create_parameter(&name, key.expose(), Kind::Secure, &tags)
            .await?;
        Ok(match put {
            Put::Created(version) => {
                Outcome::Created(format!("key {}, version {version}", key.id()))
            }
            Put::Existed => Outcome::Adopted(format!("{name}, stored by somebody else meanwhile")),
        })
    }

    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        let name = self.0.customer.tailscale_auth_key_parameter();
        let removed =
            self.0.may_remove_parameter(&name).await? && self.0.aws.delete_parameter(&name).await?;
        Ok(removed
            .then(|| format!("parameter {name}"))
            .into_iter()
            .collect())
    }
}
