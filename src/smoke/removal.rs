//! Removing what one run made, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::inventory::{Inventory, Item};
use crate::plan::event::{Event, Events, Outcome, RunEnd};
use crate::plan::runner::millis;
use crate::plan::{Step, StepError, StepRun};
use crate::steps::brain_key::{BRAIN_KEY_ID_TAG, BrainKeyParameter};
use crate::steps::brain_url::BrainUrlParameter;
use crate::steps::host::Host;
use crate::steps::iam_role::IamRole;
use crate::steps::instance_profile::InstanceProfile;
use crate::steps::security_group::SecurityGroup;
use crate::steps::tailscale_auth_key::TailscaleAuthKeyParameter;
use crate::steps::{Context, Mark, tailnet_policy};

/// How often a step is tried again where IAM has not yet learned of the step before it.
const CONFLICT_RETRIES: u32 = 5;
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

/// The steps that made something, in the order in which they are undone.
///
/// The host comes first, and the security group second: EC2 deletes it only when no instance uses it, which proves
/// that no host lives that it did not list. Only then does the brain key go. The role goes after the profile that
/// holds it.
pub fn steps(context: &Arc<Context>) -> Vec<Arc<dyn Step>> {
    let policy = tailnet_policy(context);
    let context = || Arc::clone(context);
    let mut steps: Vec<Arc<dyn Step>> = vec![
        Arc::new(Host(context())),
        Arc::new(SecurityGroup(context())),
        Arc::new(BrainKeyParameter(context())),
        Arc::new(TailscaleAuthKeyParameter(context())),
        Arc::new(InstanceProfile(context())),
        Arc::new(IamRole(context())),
        Arc::new(BrainUrlParameter(context())),
    ];
    // After the auth key, whose devices bear the tag.
    steps.extend(policy);
    steps
}

/// Undoes the steps for the run that `context` is marked with, and looks whether anything is left.
///
/// A step that fails does not keep the others from being undone, except that nothing a host needs is taken away
/// while the host or its security group could not be removed.
pub async fn remove(context: &Arc<Context>, mark: &Mark, events: Events) -> Removed {
    let began = Instant::now();
    let mut done = Removed::default();
    let key_id = brain_key_id(context).await;
    for (place, step) in steps(context).into_iter().enumerate() {
        let name = step.name();
        events.send(Event::StepStarted { step: name });
        let step_began = Instant::now();
        match undo(step.as_ref(), &events).await {
            Ok(removed) => {
                note_on_key(context, name, &removed, key_id.as_deref(), &mut done.notes);
                let outcome = if removed.is_empty() {
                    Outcome::Unchanged("nothing of this run".to_owned())
                } else {
                    Outcome::Removed(removed.join(", "))
                };
                done.removed.extend(removed);
                events.send(Event::StepFinished {
                    step: name,
                    outcome,
                    elapsed_ms: millis(step_began.elapsed()),
                });
            }
            Err(error) => {
                events.send(Event::StepFailed {
                    step: name,
                    error: error.to_string(),
                    elapsed_ms: millis(step_began.elapsed()),
                });
                done.failure.get_or_insert((name, error));
                // Places 0 and 1 are the host and its security group.
                if place < 2 {
                    break;
                }
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

async fn undo(step: &dyn Step, events: &Events) -> Result<Vec<String>, StepError> {
    let run = StepRun {
        step: step.name(),
        events: events.clone(),
        // Removing is not stopped halfway: a second Ctrl-C ends the process instead.
        interrupt: CancellationToken::new(),
    };
    let mut attempt = 0;
    loop {
        match step.undo(&run).await {
            Err(StepError::Aws(e))
                if e.code() == Some("DeleteConflict") && attempt < CONFLICT_RETRIES =>
            {
                attempt += 1;
                run.progress("waiting for IAM to learn of what was removed before");
                run.pause(Duration::from_secs(2)).await?;
            }
            other => return other,
        }
    }
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
    if step != "brain-key" || removed.is_empty() || revoked {
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
