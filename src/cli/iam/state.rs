//! A customer's role and instance profile: what is, what should be, and what applying would change.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::plan;
use crate::cli::execution::step_failure;
use crate::plan::{Observation, StepError};
use crate::steps::Context;
use crate::steps::iam_role::{POLICY_NAME, permission_policy, trust_policy};
use crate::terminal::failure::Failure;

/// Both, in one of two states.
#[derive(Debug, Serialize)]
pub(super) struct State {
    /// `null` when there is none.
    pub(super) role: Option<RoleState>,
    /// `null` when there is none.
    pub(super) instance_profile: Option<ProfileState>,
}

#[derive(Debug, Serialize)]
pub(super) struct RoleState {
    pub(super) tags: BTreeMap<String, String>,
    pub(super) trust_policy: Value,
    /// By name.
    pub(super) inline_policies: BTreeMap<String, Value>,
    /// ARNs.
    pub(super) attached_policies: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct ProfileState {
    pub(super) tags: BTreeMap<String, String>,
    pub(super) roles: Vec<String>,
}

/// How the two steps of onboarding see it.
pub(super) struct Seen {
    pub(super) is: State,
    pub(super) should_be: State,
    /// What applying would change, one line each.
    pub(super) changes: Vec<String>,
    /// What a person must settle before anything can be applied.
    pub(super) problems: Vec<String>,
}

impl Seen {
    pub(super) async fn read(context: &Arc<Context>) -> Result<Self, Failure> {
        let plan = plan(context)?;
        let (is, observed) = tokio::join!(State::read(context), plan.observe());
        let mut seen = Self {
            is: is?,
            should_be: State::wanted(context),
            changes: Vec::new(),
            problems: Vec::new(),
        };
        let mut observed = observed;
        for step in plan.steps() {
            match observed.remove(step.name()) {
                Some(Ok(Observation::Satisfied { .. })) | None => {}
                Some(Ok(observation)) => {
                    let lines = observation.lines().into_iter().map(str::to_owned);
                    seen.changes.extend(lines);
                }
                Some(Err(StepError::Precondition { problem, hint })) => {
                    seen.problems.push(format!("{problem}: {hint}"));
                }
                Some(Err(error)) => return Err(step_failure(error)),
            }
        }
        Ok(seen)
    }
}

impl State {
    async fn read(context: &Context) -> Result<Self, Failure> {
        let aws = &context.aws;
        let name = context.customer.resource_name();
        let (role, profile) = futures::try_join!(aws.role(&name), aws.instance_profile(&name))?;
        let role = match role {
            None => None,
            Some(role) => {
                let mut inline_policies = BTreeMap::new();
                for policy in role.inline_policies {
                    let document = aws.role_policy(&name, &policy).await?;
                    inline_policies.insert(policy, document.unwrap_or(Value::Null));
                }
                Some(RoleState {
                    tags: role.tags.into_iter().collect(),
                    trust_policy: role.trust_policy,
                    inline_policies,
                    attached_policies: role.attached_policies,
                })
            }
        };
        Ok(Self {
            role,
            instance_profile: profile.map(|profile| ProfileState {
                tags: profile.tags.into_iter().collect(),
                roles: profile.roles,
            }),
        })
    }

    fn wanted(context: &Context) -> Self {
        let tags: BTreeMap<String, String> = context.global_tags().into_iter().collect();
        let policy = (POLICY_NAME.to_owned(), permission_policy(context));
        Self {
            role: Some(RoleState {
                tags: tags.clone(),
                trust_policy: trust_policy(&context.aws.partition),
                inline_policies: [policy].into(),
                attached_policies: Vec::new(),
            }),
            instance_profile: Some(ProfileState {
                tags,
                roles: vec![context.customer.resource_name()],
            }),
        }
    }

    /// As lines of JSON, to be read and compared.
    pub(super) fn text(&self) -> String {
        // Maps of strings and values are always representable.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}
