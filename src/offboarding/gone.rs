//! What an offboarding takes away otherwise than undoing the step that makes it.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{ByHand, other_parameters, stored_auth_key_id, tell};
use crate::brain::client::KeyCheck;
use crate::inventory::Item;
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::resource::Resource;
use crate::rotation::brain_key::key_ids;
use crate::secret::{BrainKey, ExposeSecret as _};
use crate::steps::Context;
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

impl BrainKeyGone {
    /// Revokes every key the parameter's tags name: also those of a rotation that was not finished.
    async fn revoke(&self, run: &StepRun) -> Result<Vec<String>, StepError> {
        let mut removed = Vec::new();
        if let Some(token) = &self.context.admin_token {
            for id in key_ids(&self.context).await? {
                run.progress(format!("revoking {id}"));
                if self.context.brain.revoke_key(&id, token).await? {
                    removed.push(format!("brain key {id}, revoked"));
                }
            }
        }
        Ok(removed)
    }

    /// The key in the parameter must not work any more, whoever revoked it.
    async fn check_dead(&self, value: &str) -> Result<(), StepError> {
        let Ok(key) = BrainKey::parse(value) else {
            return Ok(());
        };
        let customer = &self.context.customer;
        let what = match self.context.brain.check_key(&key).await {
            Ok(KeyCheck::Refused) => return Ok(()),
            Ok(KeyCheck::Accepted) => format!("the brain key of {customer} still works"),
            Ok(KeyCheck::CannotBeAsked) => format!(
                "the brain key of {customer} may still work: this brain cannot be asked about keys over HTTP"
            ),
            Err(e) if self.leave => {
                format!("the brain key of {customer} may still work: {e}")
            }
            Err(e) => return Err(e.into()),
        };
        if self.leave {
            tell(
                &self.by_hand,
                format!("{what}: revoke it where the brain runs"),
            );
            return Ok(());
        }
        let why = match &self.context.admin_token {
            None => "there is no admin token to revoke it with",
            Some(_) => "the brain gave no id to revoke it by, or does not know that id",
        };
        Err(StepError::Precondition {
            problem: format!("{what}, and {why}"),
            hint: "revoke it where the brain runs, then run the same command again, which finds that it is refused; or pass --leave-brain-key to forget a key that works".to_owned(),
        })
    }
}

impl BrainKeyGone {
    async fn undo(&self, run: &StepRun) -> Result<Vec<String>, StepError> {
        let name = self.context.customer.brain_key_parameter();
        let Some(stored) = self.context.aws.parameter(&name).await? else {
            return Ok(Vec::new());
        };
        let mut removed = self.revoke(run).await?;
        self.check_dead(stored.value.expose_secret()).await?;
        if self.context.aws.delete_parameter(&name).await? {
            removed.push(format!("parameter {name}"));
        }
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
