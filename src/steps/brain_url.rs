//! The fleet-wide parameter with the brain's URL.

use std::sync::Arc;

use async_trait::async_trait;

use super::Context;
use crate::aws::ssm::{Kind, Put};
use crate::brain::BrainUrl;
use crate::customer::BRAIN_URL_PARAMETER;
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::resource::Resource;
use crate::secret::ExposeSecret as _;

/// `/m8trx/brain-url`.
pub struct BrainUrlParameter(pub Arc<Context>);

impl BrainUrlParameter {
    async fn stored(&self) -> Result<Option<(String, i64)>, StepError> {
        Ok(self
            .0
            .aws
            .parameter(BRAIN_URL_PARAMETER)
            .await?
            .map(|p| (p.value.expose_secret().to_owned(), p.version)))
    }

    /// The URL is the whole fleet's: onboarding one customer never changes it.
    fn contradiction(&self, stored: &str) -> StepError {
        StepError::Precondition {
            problem: format!(
                "{BRAIN_URL_PARAMETER} holds `{}`, which is not the brain this run uses, {}",
                stored.escape_debug(),
                self.0.brain.url()
            ),
            hint: format!(
                "leave --brain-url out to use the stored one; to move the whole fleet: m8trx brain-url set {}",
                self.0.brain.url()
            ),
        }
    }

    fn agrees(&self, stored: &str) -> bool {
        stored
            .parse::<BrainUrl>()
            .is_ok_and(|url| &url == self.0.brain.url())
    }
}

#[async_trait]
impl Step for BrainUrlParameter {
    fn name(&self) -> &'static str {
        Resource::BrainUrl.name()
    }

    fn describe(&self) -> String {
        format!("parameter {BRAIN_URL_PARAMETER}")
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        match self.stored().await? {
            None => Ok(Observation::missing(format!(
                "create {BRAIN_URL_PARAMETER} (String) = {}",
                self.0.brain.url()
            ))),
            Some((value, version)) if self.agrees(&value) => Ok(Observation::satisfied(format!(
                "{value}, version {version}"
            ))),
            Some((value, _)) => Err(self.contradiction(&value)),
        }
    }

    async fn apply(&self, _run: &StepRun) -> Result<Outcome, StepError> {
        let url = self.0.brain.url().as_str();
        let tags: Vec<_> = self.0.mark_tag().into_iter().collect();
        let put = self
            .0
            .aws
            .create_parameter(BRAIN_URL_PARAMETER, url, Kind::Plain, &tags)
            .await?;
        match put {
            Put::Created(version) => Ok(Outcome::Created(format!("{url}, version {version}"))),
            Put::Existed => match self.stored().await? {
                Some((value, version)) if self.agrees(&value) => {
                    Ok(Outcome::Adopted(format!("{value}, version {version}")))
                }
                Some((value, _)) => Err(self.contradiction(&value)),
                None => Err(self.contradiction("")),
            },
        }
    }

    /// Removed only where it carries this run's mark and nobody else relies on it: other customers' hosts read it too.
    async fn undo(&self, run: &StepRun) -> Result<Vec<String>, StepError> {
        let aws = &self.0.aws;
        if self.0.mark.is_none() || !self.0.may_remove_parameter(BRAIN_URL_PARAMETER).await? {
            return Ok(Vec::new());
        }
        let mine = [
            self.0.customer.brain_key_parameter(),
            self.0.customer.tailscale_auth_key_parameter(),
        ];
        let names = aws.parameter_names("/m8trx").await?;
        let other = names
            .iter()
            .find(|name| *name != BRAIN_URL_PARAMETER && !mine.contains(name));
        if let Some(other) = other {
            run.progress(format!(
                "{BRAIN_URL_PARAMETER} is kept: others use it by now ({other})"
            ));
            let mark = self.0.mark_tag().map(|(key, _)| key).unwrap_or_default();
            aws.untag_parameter(BRAIN_URL_PARAMETER, mark).await?;
            return Ok(Vec::new());
        }
        let removed = aws.delete_parameter(BRAIN_URL_PARAMETER).await?;
        Ok(removed
            .then(|| format!("parameter {BRAIN_URL_PARAMETER}"))
            .into_iter()
            .collect())
    }
}
