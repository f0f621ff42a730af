//! A customer's Tailscale auth key: replaced in Parameter Store, read back, and only then is the old one revoked.
//!
//! A host that runs has joined already; the key matters when one joins, or joins again. So nothing is waited for, and at
//! any moment a key that works is stored.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use super::age;
use crate::aws::ssm::{Kind, Parameter};
use crate::plan::{InvalidPlan, Observation, Outcome, Plan, Step, StepError, StepRun};
use crate::resource::Resource;
use crate::secret::{ExposeSecret as _, TailscaleAuthKey};
use crate::status::expiry::{Stage, expiry};
use crate::steps::Context;
use crate::steps::tailscale_auth_key::{MAX_KEY_AGE_DAYS, TailscaleAuthKeyParameter};
use crate::tailnet::Tailnet;

/// How many earlier versions are looked through for keys that an interrupted rotation left valid.
const EARLIER_VERSIONS: i64 = 10;
/// Says that a key which was stored at a time is about to expire, or has, where that is so.
pub fn expiry_warning(stored: Timestamp, now: Timestamp) -> Option<String> {
    let expiry = expiry(Some(stored), None)?;
    let days = expiry.left(now).as_hours() / 24;
    let stored = age(stored);
    match expiry.stage(now) {
        Stage::Good => None,
        Stage::Soon => Some(format!(
            "it was stored {stored} and expires in {days} days at the latest"
        )),
        Stage::Ended => Some(format!(
            "it was stored {stored} and has expired: a Tailscale auth key lives {MAX_KEY_AGE_DAYS} days at most"
        )),
    }
}

/// One rotation of one customer's auth key.
pub struct Rotation {
    /// The customer.
    pub context: Arc<Context>,
    before: OnceLock<Before>,
    after: OnceLock<After>,
    revoked: Mutex<Vec<String>>,
}

/// The key that is replaced.
#[derive(Debug, Clone)]
pub struct Before {
    /// The version of the parameter that holds it.
    pub version: i64,
    /// Its id, where the value is an auth key at all.
    pub id: Option<String>,
    /// When it was stored.
    pub stored: Option<Timestamp>,
}

/// The key that replaces it.
#[derive(Debug, Clone)]
pub struct After {
    /// The version of the parameter that holds it.
    pub version: i64,
    /// Its id.
    pub id: String,
}

fn id_in(parameter: &Parameter) -> Option<String> {
    let key = TailscaleAuthKey::parse(parameter.value.expose_secret()).ok()?;
    Some(key.id().to_owned())
}

impl Rotation {
    /// A rotation of which nothing is known yet.
    pub fn new(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            context,
            before: OnceLock::new(),
            after: OnceLock::new(),
            revoked: Mutex::default(),
        })
    }

    /// Its steps: without Tailscale's API, revoking the old key is left to a person.
    pub fn plan(self: &Arc<Self>) -> Result<Plan, InvalidPlan> {
        let mut steps: Vec<Arc<dyn Step>> = vec![Arc::new(NewTailscaleKey(Arc::clone(self)))];
        if self.context.tailnet.is_some() {
            steps.push(Arc::new(OldTailscaleKey(Arc::clone(self))));
        }
        Plan::new(steps)
    }

    /// The key that is replaced, once it was looked at.
    pub fn before(&self) -> Option<&Before> {
        self.before.get()
    }

    /// The key that replaces it, once it is stored and read back.
    pub fn after(&self) -> Option<&After> {
        self.after.get()
    }

    /// The ids of the keys that were revoked.
    pub fn revoked(&self) -> Vec<String> {
        self.revoked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn name(&self) -> String {
        self.context.customer.tailscale_auth_key_parameter()
    }

    /// The parameter, which must be there.
    async fn stored(&self) -> Result<Parameter, StepError> {
        let (name, customer) = (self.name(), &self.context.customer);
        let found = self.context.aws.parameter(&name).await?;
        found.ok_or_else(|| StepError::Precondition {
            problem: format!(
                "{customer} has no Tailscale auth key that could be rotated: there is no {name}"
            ),
            hint: format!("m8trx onboard {customer} stores the first one"),
        })
    }

    /// The good keys of this customer alone that stood in the newest versions of the parameter before the one to keep,
    /// newest first: the one that was replaced, and any that an interrupted rotation left.
    ///
    /// A key that other customers share, or that lets in more than this customer's hosts, is a person's to revoke.
    async fn doomed(
        &self,
        tailnet: &Tailnet,
        newest: i64,
        keep: &str,
    ) -> Result<Vec<String>, StepError> {
        let (aws, customer, now) = (&self.context.aws, &self.context.customer, Timestamp::now());
        let mut doomed: Vec<String> = Vec::new();
        for version in (1..=newest).rev().take(EARLIER_VERSIONS as usize) {
            let parameter = aws.parameter(&format!("{}:{version}", self.name())).await?;
            let Some(id) = parameter.as_ref().and_then(id_in) else {
                continue;
            };
            if keep == id || doomed.contains(&id) {
                continue;
            }
            match tailnet.auth_key(&id).await? {
                Some(known) if !known.is_dead(now) => {
                    if known.is_of(customer) {
                        doomed.push(id);
                    }
                }
                // Keys before a dead one were revoked by the rotation that replaced them.
                _ => break,
            }
        }
        Ok(doomed)
    }
}

/// The parameter holds a new key.
struct NewTailscaleKey(Arc<Rotation>);

impl NewTailscaleKey {
    fn parameter(&self) -> TailscaleAuthKeyParameter {
        TailscaleAuthKeyParameter(Arc::clone(&self.0.context))
    }

    /// A key that is stored already is no new one. An interrupted run may have stored it.
    async fn check_new(&self, key: &TailscaleAuthKey, stored: &Parameter) -> Result<(), StepError> {
        let same = stored.value.expose_secret() == key.expose();
        if !same && id_in(stored).as_deref() != Some(key.id()) {
            return Ok(());
        }
        let name = self.0.name();
        let earlier = match stored.version - 1 {
            0 => None,
            before => {
                self.0
                    .context
                    .aws
                    .parameter(&format!("{name}:{before}"))
                    .await?
            }
        };
        let earlier = match earlier.as_ref().and_then(id_in) {
            Some(id) if id != key.id() => format!(
                "; if an interrupted run stored this one, the key before it, {id}, is left to revoke at https://login.tailscale.com/admin/settings/keys"
            ),
            _ => String::new(),
        };
        Err(StepError::Precondition {
            problem: format!(
                "the key {} is stored already, as version {} of {name}; nothing was changed",
                key.id(),
                stored.version
            ),
            hint: format!("give a new key{earlier}"),
        })
    }

    fn changed_meanwhile(&self) -> StepError {
        StepError::Precondition {
            problem: format!("{} was changed by somebody else meanwhile", self.0.name()),
            hint: "look who did and why; then run the same command again".to_owned(),
        }
    }
}

#[async_trait]
impl Step for NewTailscaleKey {
    fn name(&self) -> &'static str {
        Resource::TailscaleAuthKey.name()
    }

    fn describe(&self) -> String {
        format!("a new key in {}", self.0.name())
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        let stored = self.0.stored().await?;
        if let Some(key) = self.0.context.tailscale_auth_key.get() {
            self.check_new(key, &stored).await?;
        }
        let id = id_in(&stored);
        let mut found = id
            .as_ref()
            .map_or_else(|| "no auth key".to_owned(), |id| format!("key {id}"));
        found.push_str(&format!(", version {}", stored.version));
        if let Some(at) = stored.modified {
            match expiry_warning(at, Timestamp::now()) {
                Some(warning) => found.push_str(&format!("; {warning}")),
                None => found.push_str(&format!(", stored {}", age(at))),
            }
        }
        let _ = self.0.before.set(Before {
            version: stored.version,
            id,
            stored: stored.modified,
        });
        Ok(Observation::Drifted {
            differences: vec![
                found,
                format!("overwrite it with {}", self.parameter().how()),
            ],
        })
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        let (context, name) = (&self.0.context, self.0.name());
        let aws = &context.aws;
        let now = self.0.stored().await?;
        let before = self
            .0
            .before
            .get()
            .filter(|before| before.version == now.version);
        let before = before.ok_or_else(|| self.changed_meanwhile())?;
        if let Some(key) = context.tailscale_auth_key.get() {
            self.check_new(key, &now).await?;
        }
        let next = self.parameter().next_key(run).await?;
        run.progress("storing the key");
        let value = next.key.expose();
        let put = aws
            .overwrite_parameter(&name, value, Kind::Secure, &context.tags())
            .await;
        let read = aws.parameter(&name).await;
        let is_there = |now: &Parameter| now.value.expose_secret() == value;
        let version = match (put, read) {
            (Ok(_), Ok(Some(read))) if is_there(&read) && read.kind == Kind::Secure.name() => {
                read.version
            }
            // Not ours: ours, if it was minted, must not stay good beside it.
            (Ok(_), Ok(_)) => {
                return Err(self
                    .parameter()
                    .not_stored(&next, self.changed_meanwhile())
                    .await);
            }
            (Err(e), Ok(Some(read))) if !is_there(&read) => {
                return Err(self.parameter().not_stored(&next, e.into()).await);
            }
            // It may be stored, and then it is the one that works.
            (Err(e), _) | (Ok(_), Err(e)) => return Err(e.into()),
        };
        let old = before.id.as_deref().unwrap_or("no auth key");
        let id = next.key.id().to_owned();
        let outcome = Outcome::Updated(format!(
            "key {old} → {id}, version {} → {version}, read back",
            before.version
        ));
        let _ = self.0.after.set(After { version, id });
        Ok(outcome)
    }

    /// The old key may be revoked by now: nothing is put back.
    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        Ok(Vec::new())
    }
}

/// The keys that were replaced are revoked.
struct OldTailscaleKey(Arc<Rotation>);

#[async_trait]
impl Step for OldTailscaleKey {
    fn name(&self) -> &'static str {
        "old-key"
    }

    fn after(&self) -> &'static [&'static str] {
        &["tailscale-auth-key"]
    }

    fn describe(&self) -> String {
        format!("the old auth key of {} revoked", self.0.context.customer)
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        Ok(Observation::missing(
            "then revoke the old one by Tailscale's API, if it is this customer's alone",
        ))
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        let (Some(tailnet), Some(after)) = (&self.0.context.tailnet, self.0.after.get()) else {
            return Ok(Outcome::Unchanged("nothing to revoke".to_owned()));
        };
        // What hosts read now must be the new key before any other goes.
        if id_in(&self.0.stored().await?).as_deref() != Some(after.id.as_str()) {
            return Err(StepError::Precondition {
                problem: format!(
                    "{} was changed by somebody else meanwhile; no key was revoked",
                    self.0.name()
                ),
                hint: "look who did and why; then run the same command again".to_owned(),
            });
        }
        for id in self.0.doomed(tailnet, after.version, &after.id).await? {
            run.progress(format!("revoking {id}"));
            tailnet.revoke_key(&id).await?;
            let mut revoked = self
                .0
                .revoked
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            revoked.push(id);
        }
        let revoked = self.0.revoked();
        Ok(if revoked.is_empty() {
            Outcome::Unchanged("nothing to revoke".to_owned())
        } else {
            Outcome::Removed(format!("key {}, revoked", revoked.join(", ")))
        })
    }

    /// A revoked key stays revoked.
    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn an_operator_is_warned_before_the_end_and_after_it() {
        let now = Timestamp::now();
        let after = |days: i64| expiry_warning(now - SignedDuration::from_hours(24 * days), now);
        assert_eq!(after(75), None);
        assert_eq!(
            after(80).unwrap(),
            "it was stored 80 days ago and expires in 10 days at the latest"
        );
        assert!(after(90).unwrap().contains("has expired"));
    }
}
