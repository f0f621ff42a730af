//! A brain key on its way: minted and tried, discarded where it is not needed, revoked, and what interrupted runs left.

use std::time::Duration;

use jiff::SignedDuration;

use super::{Context, Mint};
use crate::aws::ssm::PutError;
use crate::brain::BrainError;
use crate::brain::client::KeyCheck;
use crate::brain::keys::{ListedKey, MintedKey};
use crate::brain::mint;
use crate::plan::{StepError, StepRun};
use crate::secret::BrainKey;

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
