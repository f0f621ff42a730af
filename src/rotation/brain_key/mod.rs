//! A customer's brain key: minted anew, tried, stored, taken by the host, and only then is the old one revoked.
//!
//! What a rotation needs to be finished by another run stands in tags of the parameter, written before the new value:
//! which key is to come, which version holds the old one, and what the brain calls both. The stored value tells whether
//! it has come.

mod follow;
mod new_key;
mod old_key;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;

pub use follow::HostsFollow;
pub use new_key::NewBrainKey;
pub use old_key::OldBrainKey;

use crate::aws::{Aws, AwsError};
use crate::customer::CustomerId;
use crate::plan::{InvalidPlan, Plan, Step, StepError, StepRun};
use crate::secret::{BrainKey, ExposeSecret as _};
use crate::steps::Context;
use crate::steps::brain_key::{BRAIN_KEY_ID_TAG, MINTED_TAG, minted_id};
use crate::steps::minted_key::revoke_key;

/// The tag that says which key is to come, by its fingerprint, and which version holds the one before.
const ROTATION_TAG: &str = "BrainKeyRotation";
/// The tag with the brain's id of the key that is to come.
const NEW_ID_TAG: &str = "BrainKeyIdNew";
/// The tag with the brain's id of the key that is to go.
const OLD_ID_TAG: &str = "BrainKeyIdOld";

/// One rotation of one customer's brain key.
pub struct Rotation {
    /// The customer.
    pub context: Arc<Context>,
    /// Revoke the old key as soon as the new one is stored: it is known to others, or the host takes a new key only when
    /// its own is refused.
    pub revoke_at_once: bool,
    before: OnceLock<Before>,
    after: OnceLock<After>,
    /// The brain's ids of keys that an earlier rotation minted or did not come to revoke.
    earlier: Mutex<Vec<String>>,
    followed: Mutex<Vec<Followed>>,
    revoked: OnceLock<Revoked>,
}

/// The key that is replaced.
#[derive(Debug, Clone)]
pub struct Before {
    /// The version of the parameter that holds it.
    pub version: i64,
    /// What the brain calls it, where that is known.
    pub id: Option<String>,
    /// The key, unless that version held none or is gone.
    pub key: Option<BrainKey>,
    /// When it was stored.
    pub stored: Option<Timestamp>,
}

/// The key that replaces it.
#[derive(Debug, Clone)]
pub struct After {
    /// The version of the parameter that holds it.
    pub version: i64,
    /// What the brain calls it, where that is known.
    pub id: Option<String>,
    /// The key.
    pub key: BrainKey,
}

/// A host that beat with the new key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Followed {
    /// `i-…`
    pub instance_id: String,
    /// When.
    pub ts: Timestamp,
}

/// What became of the old key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// The brain refuses it from here on.
    Yes,
    /// It is still valid, and only where the brain runs it can be revoked.
    ByHand,
}

/// A rotation that was begun, by the parameter's tags.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pending {
    fingerprint: String,
    old_version: i64,
    new_id: Option<String>,
    old_id: Option<String>,
}

impl Pending {
    fn among(tags: &[(String, String)]) -> Option<Self> {
        let tag = |key: &str| {
            tags.iter()
                .find_map(|(found, value)| (found == key).then(|| value.clone()))
        };
        let rotation = tag(ROTATION_TAG)?;
        let (fingerprint, old_version) = rotation.split_once(" after version ")?;
        Some(Self {
            fingerprint: fingerprint.to_owned(),
            old_version: old_version.parse().ok()?,
            new_id: tag(NEW_ID_TAG),
            old_id: tag(OLD_ID_TAG),
        })
    }

    fn text(&self) -> String {
        format!("{} after version {}", self.fingerprint, self.old_version)
    }
}

/// The brain's ids of every key that the parameter's tags name: the stored one's, and those of a rotation that was not
/// finished.
pub async fn key_ids(context: &Context) -> Result<Vec<String>, AwsError> {
    let name = context.customer.brain_key_parameter();
    let tags = context.aws.parameter_tags(&name).await?.unwrap_or_default();
    let mut ids: Vec<String> = tags
        .into_iter()
        .filter_map(|(key, value)| match key.as_str() {
            BRAIN_KEY_ID_TAG | NEW_ID_TAG | OLD_ID_TAG => Some(value),
            MINTED_TAG => minted_id(&value).map(|(id, _)| id.to_owned()),
            _ => None,
        })
        .collect();
    ids.sort();
    ids.dedup();
    Ok(ids)
}

/// Whether a rotation of a customer's brain key was begun and not finished.
pub async fn is_under_way(aws: &Aws, customer: &CustomerId) -> Result<bool, AwsError> {
    let name = customer.brain_key_parameter();
    let tags = aws.parameter_tags(&name).await?.unwrap_or_default();
    let Some(pending) = Pending::among(&tags) else {
        return Ok(false);
    };
    let stored = aws.parameter(&name).await?;
    let key = stored.and_then(|stored| BrainKey::parse(stored.value.expose_secret()).ok());
    Ok(key.is_some_and(|key| key.fingerprint() == pending.fingerprint))
}

impl Rotation {
    /// A rotation of which nothing is known yet.
    pub fn new(context: Arc<Context>, revoke_at_once: bool) -> Arc<Self> {
        Arc::new(Self {
            context,
            revoke_at_once,
            before: OnceLock::new(),
            after: OnceLock::new(),
            earlier: Mutex::default(),
            followed: Mutex::default(),
            revoked: OnceLock::new(),
        })
    }

    /// Its steps in their order.
    pub fn plan(self: &Arc<Self>) -> Result<Plan, InvalidPlan> {
        Plan::new(vec![
            Arc::new(NewBrainKey(Arc::clone(self))),
            Arc::new(HostsFollow(Arc::clone(self))),
            Arc::new(OldBrainKey(Arc::clone(self))),
        ])
    }

    /// The key that is replaced, once it is known.
    pub fn before(&self) -> Option<&Before> {
        self.before.get()
    }

    /// The key that replaces it, once it is stored.
    pub fn after(&self) -> Option<&After> {
        self.after.get()
    }

    /// The hosts that beat with the new key, as far as they were waited for.
    pub fn followed(&self) -> Vec<Followed> {
        self.followed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What became of the old key, once that is settled.
    pub fn revoked(&self) -> Option<Revoked> {
        self.revoked.get().copied()
    }

    /// Puts the old key back where the brain refuses the new one; says what was done.
    pub async fn roll_back(self: &Arc<Self>, run: &StepRun) -> Result<Vec<String>, StepError> {
        NewBrainKey(Arc::clone(self)).undo(run).await
    }

    fn note_earlier(&self, ids: impl Iterator<Item = String>) {
        let mut earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        earlier.extend(ids);
    }

    /// The brain's ids of the keys that go: the replaced one's, those an earlier rotation left, and that of another run
    /// which stored its key in between. Never that of a key which is still to be stored.
    async fn replaced_ids(&self) -> Result<Vec<String>, StepError> {
        let (before, after) = self.both()?;
        let name = self.context.customer.brain_key_parameter();
        let tags = self.context.aws.parameter_tags(&name).await?;
        let tagged = tags
            .into_iter()
            .flatten()
            .filter(|(key, _)| [BRAIN_KEY_ID_TAG, OLD_ID_TAG].contains(&key.as_str()))
            .map(|(_, id)| id);
        let earlier = self
            .earlier
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut ids = Vec::new();
        for id in before.id.iter().cloned().chain(earlier).chain(tagged) {
            if Some(&id) != after.id.as_ref() && !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// Both keys, where the new one is stored by now; an error tells of a mistake in the order of the steps.
    fn both(&self) -> Result<(&Before, &After), StepError> {
        match (self.before.get(), self.after.get()) {
            (Some(before), Some(after)) => Ok((before, after)),
            _ => Err(StepError::Precondition {
                problem: format!("no new brain key of {} is stored", self.context.customer),
                hint: "run the same command again".to_owned(),
            }),
        }
    }

    /// Nobody else may have stored another key since: what is stored is what hosts read.
    async fn check_stored(&self) -> Result<(), StepError> {
        let (_, after) = self.both()?;
        let name = self.context.customer.brain_key_parameter();
        let now = self.context.aws.parameter(&name).await?;
        if now.is_some_and(|now| now.value.expose_secret() == after.key.expose()) {
            return Ok(());
        }
        // Nobody reads this run's key any more.
        if let Some(id) = &after.id {
            revoke_key(&self.context, id, Some(&after.key)).await?;
        }
        Err(StepError::Precondition {
            problem: format!("{name} was changed by somebody else while this rotation was going on; the old key was not revoked"),
            hint: "the key that is stored now is kept, and the one minted here is not; if that was no other rotation, find out who did it; then run the same command again, which rotates the key that is stored now".to_owned(),
        })
    }

    /// Ends a rotation whose steps are all done: what the brain calls the stored key is noted before what else names it
    /// is taken off.
    pub async fn finish(&self) -> Result<(), StepError> {
        let (_, after) = self.both()?;
        self.check_stored().await?;
        self.note_id(after.id.as_deref()).await?;
        Ok(self.forget().await?)
    }

    /// Has the parameter say what the brain calls the stored key, or nothing where that is not known.
    async fn note_id(&self, id: Option<&str>) -> Result<(), AwsError> {
        let name = self.context.customer.brain_key_parameter();
        let aws = &self.context.aws;
        match id {
            Some(id) => aws.tag_parameter(&name, &[(BRAIN_KEY_ID_TAG, id)]).await,
            None => aws.untag_parameter(&name, &[BRAIN_KEY_ID_TAG]).await,
        }
    }

    /// Takes the tags of the rotation off again, all at once: with some of them, nobody could finish it.
    async fn forget(&self) -> Result<(), AwsError> {
        let name = self.context.customer.brain_key_parameter();
        self.context
            .aws
            .untag_parameter(&name, &[NEW_ID_TAG, OLD_ID_TAG, ROTATION_TAG])
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rotation_leaves_in_tags_reads_back() {
        let pending = Pending {
            fingerprint: "1f2e3d4c".to_owned(),
            old_version: 3,
            new_id: Some("key_new".to_owned()),
            old_id: None,
        };
        let tags = vec![
            (ROTATION_TAG.to_owned(), pending.text()),
            (NEW_ID_TAG.to_owned(), "key_new".to_owned()),
            ("Customer".to_owned(), "cust_a".to_owned()),
        ];
        assert_eq!(Pending::among(&tags), Some(pending));
        assert_eq!(Pending::among(&tags[1..]), None);
        for tampered in ["", "1f2e3d4c", "1f2e3d4c after version x"] {
            let tags = [(ROTATION_TAG.to_owned(), tampered.to_owned())];
            assert_eq!(Pending::among(&tags), None, "{tampered}");
        }
    }
}
