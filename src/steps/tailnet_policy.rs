//! The customer in the tailnet's policy file: tag owner, rules and tests, which isolate it from all others.

use std::sync::Arc;

use async_trait::async_trait;

use super::Context;
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::resource::Resource;
use crate::tailnet::Tailnet;
use crate::tailnet::policy::change::{ChangeError, Proposal, Wish, check_place};
use crate::tailnet::policy::hujson::Document;
use crate::tailnet::policy::merge::{is_marked, owned_customers};

/// The customer's entries in the policy file. Only where Tailscale's API is configured.
pub struct TailnetPolicy {
    /// The customer.
    pub context: Arc<Context>,
    /// Tailscale's API.
    pub tailnet: Tailnet,
}

impl TailnetPolicy {
    fn wish(&self) -> Wish {
        Wish {
            add: [self.context.customer.clone()].into(),
            mark: self.mark(),
            brain_port: Some(self.context.brain.url().port()),
            ..Wish::default()
        }
    }

    /// What a run that marks what it makes writes beside the customer's tag.
    fn mark(&self) -> Option<String> {
        let mark = self.context.mark.as_ref()?;
        Some(format!("{}={}", mark.key, mark.value))
    }

    fn describe_isolation(&self, proposal: &Proposal) -> String {
        let tag = self.context.customer.tailscale_tag();
        match proposal.report.customers {
            0 | 1 => format!("{tag} is in the policy file"),
            count => {
                format!("{tag} is in the policy file; none of {count} customers reaches another")
            }
        }
    }
}

#[async_trait]
impl Step for TailnetPolicy {
    fn name(&self) -> &'static str {
        Resource::TailnetPolicy.name()
    }

    fn describe(&self) -> String {
        format!(
            "{} in the tailnet's policy file, isolated from all others",
            self.context.customer.tailscale_tag()
        )
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        let proposal = self.tailnet.propose(&self.wish()).await?;
        // A host must not join a tailnet in which customers reach each other, whether the file is changed for it or not.
        proposal.isolates()?;
        if !proposal.changes() {
            return Ok(Observation::satisfied(self.describe_isolation(&proposal)));
        }
        check_place(self.context.state_directory.as_deref())?;
        let tag = self.context.customer.tailscale_tag();
        let (more, less) = proposal.counts();
        let lines = format!("+{more} and -{less} lines; nothing else in the file changes");
        let before = Document::parse(proposal.before.text.as_str())
            .map_err(|e| ChangeError::from(crate::tailnet::policy::merge::MergeError::from(e)))?;
        Ok(if owned_customers(&before).contains(&tag) {
            Observation::Drifted {
                differences: vec![
                    format!("{tag} is in the policy file, but not all that belongs to it"),
                    format!("mend its rules and tests: {lines}"),
                ],
            }
        } else {
            Observation::Missing {
                changes: vec![
                    format!("put {tag} into the policy file: owner, rules and tests"),
                    lines,
                ],
            }
        })
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        run.progress("reading the policy file");
        let keep_in = self.context.state_directory.as_deref();
        let (proposal, kept) = self.tailnet.bring_about(&self.wish(), keep_in).await?;
        Ok(match kept {
            Some(path) => {
                let done = format!(
                    "{}; before: {}",
                    self.describe_isolation(&proposal),
                    path.display()
                );
                let tag = self.context.customer.tailscale_tag();
                let before = Document::parse(proposal.before.text.as_str());
                if before.is_ok_and(|before| owned_customers(&before).contains(&tag)) {
                    Outcome::Updated(done)
                } else {
                    Outcome::Created(done)
                }
            }
            None => Outcome::Adopted(self.describe_isolation(&proposal)),
        })
    }

    /// Takes the customer out; of a run that marks what it makes, only what that run put in.
    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        let customer = &self.context.customer;
        if let Some(mark) = self.mark() {
            let text = self.tailnet.policy_file().await?.text;
            if !is_marked(&text, customer, &mark).map_err(ChangeError::from)? {
                return Ok(Vec::new());
            }
        }
        let wish = Wish {
            remove: [customer.clone()].into(),
            brain_port: Some(self.context.brain.url().port()),
            ..Wish::default()
        };
        let keep_in = self.context.state_directory.as_deref();
        let (_, kept) = self.tailnet.bring_about(&wish, keep_in).await?;
        Ok(kept
            .map(|path| {
                format!(
                    "{} in the policy file (before: {})",
                    customer.tailscale_tag(),
                    path.display()
                )
            })
            .into_iter()
            .collect())
    }
}

impl From<ChangeError> for StepError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Tailnet(error) => Self::Tailnet(error),
            other => {
                let hint = other.hint().unwrap_or_default();
                Self::Precondition {
                    problem: other.to_string(),
                    hint,
                }
            }
        }
    }
}
