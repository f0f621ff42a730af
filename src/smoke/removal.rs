//! Removing what one run made, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::inventory::{Inventory, Item};
use crate::plan::StepError;
use crate::plan::event::{Event, Events, RunEnd};
use crate::plan::runner::millis;
pub use crate::removal::steps;
use crate::removal::undo_all;
use crate::resource::Resource;
use crate::steps::brain_key::BRAIN_KEY_ID_TAG;
use crate::steps::{Context, Mark};

/// How long AWS is given to stop listing what was removed.
const GONE_PATIENCE: Duration = Duration::from_secs(15);

/// What became of a removal.
#[derive(Debug, Default)]
pub struct Removed {
    /// What was removed, in words, in order.
    pub removed: Vec<String>,
    /// What the operator should know besides.
    pub notes: Vec<String>,
    /// The first step that could not be undone, and why.
    pub failure: Option<(&'static str, StepError)>,
    /// What AWS and the tailnet still have of the run.
    pub left: Vec<Item>,
}

/// Undoes the steps for the run that `context` is marked with, and looks whether anything is left.
pub async fn remove(context: &Arc<Context>, mark: &Mark, events: Events) -> Removed {
    let began = Instant::now();
    let mut done = Removed::default();
    let key_id = brain_key_id(context).await;
    // Removing is not stopped halfway: a second Ctrl-C ends the process instead.
    let never = CancellationToken::new();
    for undone in undo_all(&steps(context), "nothing of this run", &events, &never).await {
        match undone.result {
            Ok(removed) => {
                note_on_key(
                    context,
                    undone.step,
                    &removed,
                    key_id.as_deref(),
                    &mut done.notes,
                );
                done.removed.extend(removed);
            }
            Err(error) => {
                done.failure.get_or_insert((undone.step, error));
            }
        }
    }
    match still_there(context, mark, done.failure.is_some()).await {
        Ok(left) => done.left = left,
        Err(error) => {
            done.failure.get_or_insert(("inventory", error));
        }
    }
    let clean = done.failure.is_none() && done.left.is_empty();
    events.send(Event::RunFinished {
        end: if clean { RunEnd::Done } else { RunEnd::Failed },
        elapsed_ms: millis(began.elapsed()),
    });
    done
}

/// The brain's own id of the key, where it gave one. Only for a note, so a failure to read it is none.
async fn brain_key_id(context: &Context) -> Option<String> {
    let name = context.customer.brain_key_parameter();
    context
        .aws
        .parameter_tag(&name, BRAIN_KEY_ID_TAG)
        .await
        .ok()
        .flatten()
}

/// Says so where the parameter is gone and the key in it is still valid at the brain.
fn note_on_key(
    context: &Context,
    step: &str,
    removed: &[String],
    key_id: Option<&str>,
    notes: &mut Vec<String>,
) {
    let revoked = removed.iter().any(|text| text.starts_with("brain key"));
    if step != Resource::BrainKey.name() || removed.is_empty() || revoked {
        return;
    }
    let customer = &context.customer;
    let why = match (key_id, &context.admin_token) {
        (None, _) => "the brain gave no id to revoke it by".to_owned(),
        (Some(id), None) => {
            format!("it is {id}; with M8TRX_BRAIN_ADMIN_TOKEN_FILE set, it is revoked for you")
        }
        (Some(id), Some(_)) => {
            format!("it is {id}, which the brain does not know or cannot revoke")
        }
    };
    notes.push(format!(
        "the brain key of {customer} was not revoked: revoke it at the brain ({why})"
    ));
}

/// What AWS and the tailnet still list of the run. AWS may list what is gone for some seconds more.
async fn still_there(context: &Context, mark: &Mark, failed: bool) -> Result<Vec<Item>, StepError> {
    let began = Instant::now();
    loop {
        let tailnet = context.tailnet.as_ref();
        let found = Inventory::read_all(&context.aws, tailnet, &context.customer).await?;
        let left: Vec<Item> = found.made_by(mark).into_iter().cloned().collect();
        if left.is_empty() || failed || began.elapsed() > GONE_PATIENCE {
            return Ok(left);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
