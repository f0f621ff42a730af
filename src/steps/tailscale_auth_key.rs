//! The key with which the customer's hosts join the tailnet: given, or minted by Tailscale's API, and stored.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Context, tailnet_membership as membership};
use crate::aws::ssm::{Kind, Parameter, Put};
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::resource::Resource;
use crate::secret::{ExposeSecret as _, TailscaleAuthKey};
use crate::tailnet::TailnetError;
use crate::tailnet::keys::{self, NewKey, how_to_make_a_key};
use crate::tailnet::lock::{self, LockState};

/// Tailscale lets an auth key live for 90 days at most.
pub(crate) const MAX_KEY_AGE_DAYS: i64 = 90;

/// `/m8trx/<id>/tailscale-auth-key`.
pub struct TailscaleAuthKeyParameter(pub Arc<Context>);

/// A key to store, and whether this run minted it.
pub(crate) struct NextKey {
    pub(crate) key: TailscaleAuthKey,
    pub(crate) minted: bool,
}

impl TailscaleAuthKeyParameter {
    /// What is stored, or why it cannot be used. Tailscale is asked about the key where its API is configured.
    async fn judge(&self, parameter: &Parameter) -> Result<Result<String, String>, TailnetError> {
        let (key, mut detail) = match judge_form(parameter) {
            Ok(good) => good,
            Err(why) => return Ok(Err(why)),
        };
        if let Some(tailnet) = &self.0.tailnet {
            let now = Timestamp::now();
            let Some(known) = tailnet.auth_key(key.id()).await? else {
                return Ok(Err(format!(
                    "Tailscale does not know the key {} any more",
                    key.id()
                )));
            };
            let problems = known.problems(&self.0.customer, now);
            if !problems.is_empty() {
                return Ok(Err(format!("key {}: {}", key.id(), problems.join("; "))));
            }
            // Only where it can be mended: a machine that cannot sign must still be able to look.
            if !lock::is_wrapped(&key) && membership::lock_state(tailnet).await? == LockState::On {
                return Ok(Err(format!(
                    "Tailnet Lock is on, and the key {} is not signed for it",
                    key.id()
                )));
            }
            if let Some(days) = known.days_left(now) {
                detail.push_str(&format!(", good for {days} more days"));
            }
        }
        Ok(Ok(detail))
    }

    pub(crate) fn how(&self) -> &'static str {
        if self.0.tailnet.is_some() && self.0.tailscale_auth_key.get().is_none() {
            "a new key, minted by Tailscale's API"
        } else {
            "a new key"
        }
    }

    /// The key that was given, or a minted one; wrapped where Tailnet Lock is on.
    pub(crate) async fn next_key(&self, run: &StepRun) -> Result<NextKey, StepError> {
        let customer = &self.0.customer;
        let given = self.0.tailscale_auth_key.get();
        let Some(tailnet) = &self.0.tailnet else {
            let key = given.ok_or_else(|| StepError::Precondition {
                problem: format!("{customer} needs a Tailscale auth key, and none was given"),
                hint: how_to_make_a_key(customer),
            })?;
            return Ok(NextKey {
                key: key.clone(),
                minted: false,
            });
        };
        // Known before anything is made: an unsigned key would let hosts in that reach nothing.
        let lock = membership::lock_state(tailnet).await?;
        if lock == LockState::OnElsewhere && given.is_none_or(|key| !lock::is_wrapped(key)) {
            return Err(StepError::Precondition {
                problem: "Tailnet Lock is on, and this machine cannot sign keys for it".to_owned(),
                hint: "run the same command on a signing node of the tailnet, where `tailscale lock sign` works, or pass a key that was signed there with --tailscale-key-file".to_owned(),
            });
        }
        let mut next = match given {
            Some(key) => NextKey {
                key: key.clone(),
                minted: false,
            },
            None => {
                run.progress("minting by Tailscale's API");
                let new = NewKey::for_customer(customer, &self.0.key_mark());
                let key = tailnet.mint_key(&new).await?.key;
                NextKey { key, minted: true }
            }
        };
        if lock == LockState::On && !lock::is_wrapped(&next.key) {
            run.progress("signing the key for Tailnet Lock");
            next.key = match lock::wrap(&next.key).await {
                Ok(wrapped) => wrapped,
                Err(error) => return Err(self.not_stored(&next, error.into()).await),
            };
        }
        // Remembered also so that it is known what to mask.
        let _ = self.0.tailscale_auth_key.set(next.key.clone());
        Ok(next)
    }

    /// A minted key that is stored nowhere must not stay good.
    async fn discard(&self, next: &NextKey) -> Result<(), TailnetError> {
        match &self.0.tailnet {
            Some(tailnet) if next.minted => tailnet.revoke_key(next.key.id()).await.map(drop),
            _ => Ok(()),
        }
    }

    /// The failure to store a key, once that key is out of the world, or with word of it where it is not.
    pub(crate) async fn not_stored(&self, next: &NextKey, error: StepError) -> StepError {
        match self.discard(next).await {
            Ok(()) => error,
            Err(left) => StepError::Precondition {
                problem: format!(
                    "{error}; and the auth key {}, which was just minted for it, could not be revoked: {left}",
                    next.key.id()
                ),
                hint: format!(
                    "revoke the key {} in the admin console under Settings > Keys, then run the same command again",
                    next.key.id()
                ),
            },
        }
    }

    /// A key of this program's own making that is replaced has no more use. The new one is stored, so a failure is only
    /// told.
    async fn revoke_replaced(&self, old: Option<&Parameter>, next: &NextKey, run: &StepRun) {
        let old = old.and_then(|old| TailscaleAuthKey::parse(old.value.expose_secret()).ok());
        let (Some(tailnet), Some(old)) = (&self.0.tailnet, old) else {
            return;
        };
        if old.id() == next.key.id() {
            return;
        }
        let revoked = async {
            match tailnet.auth_key(old.id()).await? {
                Some(known)
                    if known.is_of(&self.0.customer)
                        && known.is_minted()
                        && !known.is_dead(Timestamp::now()) =>
                {
                    tailnet.revoke_key(old.id()).await
                }
                _ => Ok(false),
            }
        };
        if let Err(error) = revoked.await {
            run.progress(format!(
                "the replaced key {} is still good, since it could not be revoked: {error}",
                old.id()
            ));
        }
    }

    async fn store(&self, next: &NextKey, there: bool) -> Result<Option<Outcome>, StepError> {
        let name = self.0.customer.tailscale_auth_key_parameter();
        let (aws, tags) = (&self.0.aws, self.0.tags());
        let (id, value) = (next.key.id(), next.key.expose());
        let verb = if next.minted { "minted, " } else { "" };
        if there {
            let version = aws
                .overwrite_parameter(&name, value, Kind::Secure, &tags)
                .await?;
            let detail = format!("key {id}, {verb}version {version}");
            return Ok(Some(Outcome::Updated(detail)));
        }
        Ok(
            match aws
                .create_parameter(&name, value, Kind::Secure, &tags)
                .await?
            {
                Put::Created(version) => Some(Outcome::Created(format!(
                    "key {id}, {verb}version {version}"
                ))),
                Put::Existed => None,
            },
        )
    }
}

/// The stored key and its description, or why it cannot be used, as far as its own form tells.
fn judge_form(parameter: &Parameter) -> Result<(TailscaleAuthKey, String), String> {
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
    Ok((key, detail))
}

impl Context {
    /// What tells the keys this run mints from all others: a run that marks what it makes marks them too.
    fn key_mark(&self) -> String {
        match &self.mark {
            Some(mark) => keys::run_of(&mark.value).to_owned(),
            None => keys::random_mark(),
        }
    }
}

#[async_trait]
impl Step for TailscaleAuthKeyParameter {
    fn name(&self) -> &'static str {
        Resource::TailscaleAuthKey.name()
    }

    /// Tailscale refuses a key with a tag that the policy file does not define.
    fn after(&self) -> &'static [&'static str] {
        if self.0.tailnet.is_some() {
            Resource::TailscaleAuthKey.after()
        } else {
            &[]
        }
    }

    fn describe(&self) -> String {
        format!(
            "parameter {}",
            self.0.customer.tailscale_auth_key_parameter()
        )
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        let name = self.0.customer.tailscale_auth_key_parameter();
        let how = self.how();
        let Some(parameter) = self.0.aws.parameter(&name).await? else {
            return Ok(Observation::missing(format!(
                "create {name} (SecureString) with {how}"
            )));
        };
        Ok(match self.judge(&parameter).await? {
            Ok(detail) => Observation::satisfied(detail),
            // A host that runs has joined already; the key matters when it joins again.
            Err(why) => Observation::Drifted {
                differences: vec![why, format!("overwrite {name} with {how}")],
            },
        })
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        let name = self.0.customer.tailscale_auth_key_parameter();
        // Another run may have stored one since it was looked at: a second key would be one too many.
        let now = self.0.aws.parameter(&name).await?;
        if let Some(parameter) = &now
            && let Ok(detail) = self.judge(parameter).await?
        {
            return Ok(Outcome::Adopted(detail));
        }
        let next = self.next_key(run).await?;
        run.progress("storing the key");
        match self.store(&next, now.is_some()).await {
            Ok(Some(outcome)) => {
                self.revoke_replaced(now.as_ref(), &next, run).await;
                Ok(outcome)
            }
            Ok(None) => {
                self.discard(&next).await?;
                Ok(Outcome::Adopted(format!(
                    "{name}, stored by somebody else meanwhile"
                )))
            }
            Err(error) => Err(self.not_stored(&next, error).await),
        }
    }

    /// Takes the customer out of the tailnet: first the keys that were minted, so that nothing joins any more, then
    /// the devices, then the parameter.
    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        let name = self.0.customer.tailscale_auth_key_parameter();
        let mut removed = Vec::new();
        if let Some(tailnet) = &self.0.tailnet {
            for key in membership::minted_keys(tailnet, &self.0).await? {
                if tailnet.revoke_key(&key.id).await? {
                    removed.push(format!("auth key {}, revoked", key.id));
                }
            }
            for device in membership::devices_to_remove(tailnet, &self.0).await? {
                if tailnet.remove_device(&device.node_id).await? {
                    removed.push(format!(
                        "tailnet device {} ({})",
                        device.node_id, device.hostname
                    ));
                }
            }
        }
        if self.0.may_remove_parameter(&name).await? && self.0.aws.delete_parameter(&name).await? {
            removed.push(format!("parameter {name}"));
        }
        Ok(removed)
    }
}
