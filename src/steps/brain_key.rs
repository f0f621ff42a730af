//! The customer's brain key: minted, tried, and stored.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;

use super::{Context, Mint};
use crate::aws::ssm::{Kind, Parameter, Put, PutError};
use crate::brain::BrainError;
use crate::brain::client::{KeyCheck, ListedKey, MintedKey};
use crate::brain::mint;
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
        let tags = self.0.aws.parameter_tags(&name).await?.unwrap_or_default();
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

/// How often a key that is said to be revoked is tried, and how long in between.
const TRIES: u32 = 3;
const TRY_PAUSE: Duration = Duration::from_millis(500);

/// Has the brain revoke a key, which is believed when it refuses the key, where that is known; `false` where it cannot
/// be done from here: there is no admin token, or the brain does not know the id, or has no route for it.
pub async fn revoke_key(
    context: &Context,
    id: &str,
    key: Option<&BrainKey>,
) -> Result<bool, BrainError> {
    let Some(token) = &context.admin_token else {
        return Ok(false);
    };
    let brain = &context.brain;
    if !brain.revoke_key(id, token).await? {
        return Ok(false);
    }
    let Some(key) = key else {
        return Ok(true);
    };
    for attempt in 1..=TRIES {
        if brain.check_key(key).await? != KeyCheck::Accepted {
            return Ok(true);
        }
        if attempt < TRIES {
            tokio::time::sleep(TRY_PAUSE).await;
        }
    }
    Err(BrainError::NotRevoked {
        url: brain.url().to_string(),
        id: id.to_owned(),
    })
}

/// A minted key that was not needed in the end must not stay valid, where the brain lets it be revoked.
pub async fn discard_key(context: &Context, minted: &MintedKey) -> Result<(), BrainError> {
    match &minted.id {
        Some(id) => revoke_key(context, id, Some(&minted.key)).await.map(drop),
        None => Ok(()),
    }
}

/// The failure to store a minted key, once that key is out of the world, or with word of it where it is not. A key that
/// may be stored is left alone.
pub async fn not_stored(context: &Context, minted: &MintedKey, error: PutError) -> StepError {
    if !error.is_not_there() {
        return error.into();
    }
    let Err(left) = discard_key(context, minted).await else {
        return error.into();
    };
    StepError::Precondition {
        problem: format!("{error}; and the key just minted for it could not be revoked: {left}"),
        hint: format!(
            "run the same command again: once its key is stored, it revokes {}, where the brain lists its keys",
            minted.id.as_deref().unwrap_or("that one")
        ),
    }
}

/// Whether this program labelled a key that it stores for a customer. A key that was printed for a person is not among
/// them.
fn is_label_of(label: &str, context: &Context) -> bool {
    let customer = &context.customer;
    let exact = [
        format!("m8trx onboard {customer}"),
        format!("m8trx mint-key --store {customer}"),
    ];
    label == context.key_label
        || exact.iter().any(|known| known == label)
        || label.starts_with(&format!("m8trx rotate {customer} "))
}

/// The customer's keys with a label of this program, where the brain lists its keys and there is a token to ask with.
pub async fn labelled_keys(context: &Context) -> Result<Vec<ListedKey>, BrainError> {
    let Some(token) = &context.admin_token else {
        return Ok(Vec::new());
    };
    let listed = context.brain.keys(&context.customer, token).await?;
    let mut keys = listed.unwrap_or_default();
    keys.retain(|key| is_label_of(&key.label, context));
    Ok(keys)
}

/// A key that is younger may be about to be stored by a run that is still going on: longer than any run takes from
/// minting a key to storing it.
pub(crate) const MINTING_TAKES_AT_MOST: SignedDuration = SignedDuration::from_mins(5);

/// What interrupted runs left at the brain: labelled keys that no parameter holds.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// The ids of those that were revoked.
    pub revoked: Vec<String>,
    /// Those that may belong to a run that is going on, and were left.
    pub left: Vec<ListedKey>,
}

/// Revokes what interrupted runs minted and never stored: labelled keys that were minted long before the stored one.
pub async fn revoke_leftovers(context: &Context, stored_id: &str) -> Result<Leftovers, BrainError> {
    let mut leftovers = Leftovers::default();
    let keys = labelled_keys(context).await?;
    let stored = keys.iter().find(|key| key.id == stored_id);
    let Some(stored_at) = stored.and_then(|key| key.created_at) else {
        return Ok(leftovers);
    };
    for key in keys {
        if key.id == stored_id {
            continue;
        }
        let is_old = key
            .created_at
            .is_some_and(|at| stored_at.duration_since(at) > MINTING_TAKES_AT_MOST);
        if is_old && revoke_key(context, &key.id, None).await? {
            leftovers.revoked.push(key.id);
        } else {
            leftovers.left.push(key);
        }
    }
    Ok(leftovers)
}

/// Does so once a key was stored, and says what was found: the stored key is what matters, so a failure is only said.
/// Gives the ids of those that were revoked.
pub async fn clear_leftovers(
    context: &Context,
    stored_id: Option<&str>,
    run: &StepRun,
) -> Vec<String> {
    let Some(id) = stored_id else {
        return Vec::new();
    };
    let found = match revoke_leftovers(context, id).await {
        Ok(found) => found,
        Err(error) => {
            run.progress(format!(
                "keys that interrupted runs minted and did not store could not be looked for: {error}"
            ));
            return Vec::new();
        }
    };
    if !found.revoked.is_empty() {
        run.progress(format!(
            "revoked {}, which interrupted runs minted and did not store",
            found.revoked.join(", ")
        ));
    }
    for key in &found.left {
        run.progress(format!(
            "the brain also takes {} (`{}`), which no parameter holds: left by an interrupted run, or of one that is going on; the next `m8trx rotate-brain-key {customer}` revokes it once it is five minutes old, `m8trx offboard {customer}` at once",
            key.id.escape_debug(),
            key.label.escape_debug(),
            customer = context.customer,
        ));
    }
    found.revoked
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
