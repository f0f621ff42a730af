//! What an offboarding takes away otherwise than undoing the step that makes it.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{ByHand, brain_key_ids, other_parameters, stored_auth_key_id, tell};
use crate::aws::ssm::Parameter;
use crate::brain::client::KeyCheck;
use crate::inventory::Item;
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::resource::Resource;
use crate::secret::{BrainKey, ExposeSecret as _};
use crate::steps::Context;
use crate::steps::minted_key::revoke_key;
use crate::steps::tailscale_auth_key::TailscaleAuthKeyParameter;

/// What an offboarding takes away otherwise than undoing the step that makes it.
pub(super) enum Gone {
    BrainKey(BrainKeyGone),
    AuthKey(AuthKeyGone),
    OtherParameters(OtherParametersGone),
}

#[async_trait]
impl Step for Gone {
    fn name(&self) -> &'static str {
        match self {
            Self::BrainKey(_) => Resource::BrainKey.name(),
            Self::AuthKey(_) => Resource::TailscaleAuthKey.name(),
            Self::OtherParameters(_) => "other-parameters",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::BrainKey(gone) => format!("no brain key of {}", gone.context.customer),
            Self::AuthKey(gone) => {
                format!("no auth key and no device of {}", gone.context.customer)
            }
            Self::OtherParameters(gone) => {
                format!("no parameter beneath /m8trx/{}", gone.context.customer)
            }
        }
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        Ok(Observation::missing("to be removed"))
    }

    /// Only taken away.
    async fn apply(&self, _run: &StepRun) -> Result<Outcome, StepError> {
        Ok(Outcome::Unchanged("nothing is made".to_owned()))
    }

    async fn undo(&self, run: &StepRun) -> Result<Vec<String>, StepError> {
        match self {
            Self::BrainKey(gone) => gone.undo(run).await,
            Self::AuthKey(gone) => gone.undo(run).await,
            Self::OtherParameters(gone) => gone.undo().await,
        }
    }
}

/// The brain key revoked, and then its parameter deleted. A key that still works is not forgotten.
pub(super) struct BrainKeyGone {
    pub(super) context: Arc<Context>,
    pub(super) leave: bool,
    pub(super) by_hand: ByHand,
}

/// How many earlier versions of the parameter are looked through for keys that still work.
const EARLIER_VERSIONS: i64 = 10;

impl BrainKeyGone {
    /// Revokes every key the parameter's tags name, also those of a rotation that was not finished, and every one that
    /// carries a label of this program.
    async fn revoke(&self, run: &StepRun) -> Result<Vec<String>, StepError> {
        let mut removed = Vec::new();
        if self.context.admin_token.is_none() {
            return Ok(removed);
        }
        for id in brain_key_ids(&self.context).await? {
            run.progress(format!("revoking {id}"));
            if revoke_key(&self.context, &id, None).await? {
                removed.push(format!("brain key {id}, revoked"));
            }
        }
        Ok(removed)
    }

    /// What the parameter holds, and what it held before, each key once.
    async fn known_keys(&self, stored: &Parameter) -> Result<Vec<(i64, BrainKey)>, StepError> {
        let name = self.context.customer.brain_key_parameter();
        let mut keys: Vec<(i64, BrainKey)> = Vec::new();
        let oldest = (stored.version - EARLIER_VERSIONS).max(1);
        for version in (oldest..=stored.version).rev() {
            let value = if version == stored.version {
                Some(stored.clone())
            } else {
                let version = format!("{name}:{version}");
                self.context.aws.parameter(&version).await?
            };
            let key = value.and_then(|value| BrainKey::parse(value.value.expose_secret()).ok());
            if let Some(key) = key
                && !keys.iter().any(|(_, known)| known.expose() == key.expose())
            {
                keys.push((version, key));
            }
        }
        Ok(keys)
    }

    /// No key that the parameter holds, or held before, may work any more, whoever revoked it.
    async fn check_dead(&self, stored: &Parameter) -> Result<(), StepError> {
        let customer = &self.context.customer;
        for (version, key) in self.known_keys(stored).await? {
            let which = if version == stored.version {
                format!("the brain key of {customer}")
            } else {
                format!("an earlier brain key of {customer}, that of version {version},")
            };
            let what = match self.context.brain.check_key(&key).await {
                Ok(KeyCheck::Refused) => continue,
                Ok(KeyCheck::Accepted) => format!("{which} still works"),
                // One that was replaced is not spoken of without a reason.
                Ok(KeyCheck::CannotBeAsked) if version != stored.version => continue,
                Ok(KeyCheck::CannotBeAsked) => format!(
                    "{which} may still work: this brain cannot be asked about keys over HTTP"
                ),
                Err(e) if self.leave => format!("{which} may still work: {e}"),
                Err(e) => return Err(e.into()),
            };
            if self.leave {
                tell(
                    &self.by_hand,
                    format!("{what}: revoke it where the brain runs"),
                );
                continue;
            }
            let why = match &self.context.admin_token {
                None => "there is no admin token to revoke it with",
                Some(_) => "the brain gave no id to revoke it by, or does not know that id",
            };
            return Err(StepError::Precondition {
                problem: format!("{what}, and {why}"),
                hint: "revoke it where the brain runs, then run the same command again, which finds that it is refused; or pass --leave-brain-key to forget a key that works".to_owned(),
            });
        }
        Ok(())
    }

    /// Keys that somebody else minted for the customer stay theirs.
    async fn name_others(&self) -> Result<(), StepError> {
        let Some(token) = &self.context.admin_token else {
            return Ok(());
        };
        let (brain, customer) = (&self.context.brain, &self.context.customer);
        for key in brain.keys(customer, token).await?.unwrap_or_default() {
            tell(
                &self.by_hand,
                format!(
                    "the brain key {} of {customer}, labelled `{}`, is not of m8trx's making and still works: revoke it where the brain runs",
                    key.id.escape_debug(),
                    key.label.escape_debug()
                ),
            );
        }
        Ok(())
    }

    async fn undo(&self, run: &StepRun) -> Result<Vec<String>, StepError> {
        let name = self.context.customer.brain_key_parameter();
        let mut removed = self.revoke(run).await?;
        if let Some(stored) = self.context.aws.parameter(&name).await? {
            self.check_dead(&stored).await?;
            if self.context.aws.delete_parameter(&name).await? {
                removed.push(format!("parameter {name}"));
            }
        }
        self.name_others().await?;
        Ok(removed)
    }
}

/// The auth keys revoked, the devices removed, the parameter deleted.
pub(super) struct AuthKeyGone {
    pub(super) context: Arc<Context>,
    pub(super) by_hand: ByHand,
}

impl AuthKeyGone {
    async fn undo(&self, run: &StepRun) -> Result<Vec<String>, StepError> {
        let context = &self.context;
        let mut removed = Vec::new();
        if let Some(id) = stored_auth_key_id(context).await? {
            let by_hand = |why: &str| {
                tell(
                    &self.by_hand,
                    format!(
                        "the Tailscale auth key {id} {why}: revoke it at https://login.tailscale.com/admin/settings/keys"
                    ),
                );
            };
            match &context.tailnet {
                None => by_hand("lets devices in until it expires"),
                Some(tailnet) => match tailnet.auth_key(&id).await? {
                    Some(known) if known.is_dead(Timestamp::now()) => {}
                    Some(known) if known.is_of(&context.customer) => {
                        let revoked = tailnet.revoke_key(&id).await?;
                        removed.extend(revoked.then(|| format!("auth key {id}, revoked")));
                    }
                    Some(_) => by_hand("is not this customer's alone, and was left"),
                    None => {}
                },
            }
        }
        // The rest is what an onboarding undoes too.
        let parameter = TailscaleAuthKeyParameter(Arc::clone(context));
        removed.extend(parameter.undo(run).await?);
        Ok(removed)
    }
}

/// What else lies beneath the customer's path.
pub(super) struct OtherParametersGone {
    pub(super) context: Arc<Context>,
    pub(super) foreign: Vec<Item>,
}

impl OtherParametersGone {
    async fn undo(&self) -> Result<Vec<String>, StepError> {
        let mut removed = Vec::new();
        for name in other_parameters(&self.context).await? {
            let foreign = self.foreign.iter().any(|item| item.id == name);
            if !foreign && self.context.aws.delete_parameter(&name).await? {
                removed.push(format!("parameter {name}"));
            }
        }
        Ok(removed)
    }
}
