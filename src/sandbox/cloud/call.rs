//! One call being handled: the state, the caller, and what the caller may do.

use http::StatusCode;
use jiff::Timestamp;

use super::error::{ApiError, Service};
use super::identity::{ACCOUNT, Caller};
use super::policy::{self, Context, Verdict};
use super::{MachineCommand, Region, Settings, State};
use crate::fault::Fault;
use crate::random;

/// What a handler works with.
pub(crate) struct Call<'a> {
    pub state: &'a mut State,
    pub settings: &'a Settings,
    pub service: Service,
    pub region: String,
    pub caller: Caller,
    pub now: Timestamp,
}

impl Call<'_> {
    /// The state of the region that is called.
    pub fn region(&mut self) -> &mut Region {
        self.state.region(&self.region)
    }

    /// Whether the sandbox was started with this fault.
    pub fn has_fault(&self, fault: Fault) -> bool {
        self.settings.faults.contains(&fault)
    }

    /// Tells the machines what to do. Without machines (they were stopped) nothing happens.
    pub fn command(&self, command: MachineCommand) {
        let _ = self.settings.machines.send(command);
    }

    /// An ARN of the called service in this region and account.
    pub fn arn(&self, resource: &str) -> String {
        let (service, region) = (self.service.name(), &self.region);
        format!("arn:aws:{service}:{region}:{ACCOUNT}:{resource}")
    }

    /// Whether the caller's policies allow an action (`ssm:GetParameter`) on a resource.
    pub fn authorize(
        &mut self,
        action: &str,
        resource: &str,
        about: &Context,
    ) -> Result<(), ApiError> {
        let mut context = self.caller.context(self.state);
        context.set("aws:RequestedRegion", &self.region);
        context.extend(about);
        let blocked = self.caller.is_host()
            && action == "ssm:GetParameter"
            && self.has_fault(Fault::IamDenied);
        let policies = if blocked {
            Vec::new()
        } else {
            self.caller.policies(self.state)
        };
        let reason = match policy::evaluate(policies, action, resource, &context) {
            Verdict::Allowed => return Ok(()),
            Verdict::Silent => {
                format!("because no identity-based policy allows the {action} action")
            }
            Verdict::Denied => "with an explicit deny in an identity-based policy".to_owned(),
        };
        let message = format!(
            "User: {} is not authorized to perform: {action} on resource: {resource} {reason}",
            self.caller.arn()
        );
        Err(match self.service {
            Service::Ssm => ApiError::new("AccessDeniedException", message),
            Service::Iam | Service::Sts => {
                ApiError::with_status(StatusCode::FORBIDDEN, "AccessDenied", message)
            }
            Service::Ec2 => {
                let encoded = self.encode_denial(action, resource, reason.contains("explicit"));
                ApiError::with_status(
                    StatusCode::FORBIDDEN,
                    "UnauthorizedOperation",
                    format!(
                        "You are not authorized to perform this operation. {message}. Encoded authorization failure \
                         message: {encoded}"
                    ),
                )
            }
        })
    }

    /// [`Self::authorize`] without anything known about the resource.
    pub fn authorize_plain(&mut self, action: &str, resource: &str) -> Result<(), ApiError> {
        self.authorize(action, resource, &Context::default())
    }

    fn encode_denial(&mut self, action: &str, resource: &str, explicit: bool) -> String {
        let message = serde_json::json!({
            "allowed": false,
            "explicitDeny": explicit,
            "matchedStatements": {"items": []},
            "context": {
                "principal": {"id": self.caller.user_id(), "arn": self.caller.arn()},
                "action": action,
                "resource": resource,
                "conditions": {"items": []},
            },
        });
        let encoded = random::mixed(160);
        self.state
            .encoded_messages
            .insert(encoded.clone(), message.to_string());
        encoded
    }
}
