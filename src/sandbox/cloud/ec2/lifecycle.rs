//! Ending and stopping instances.

use jiff::Timestamp;

use super::instance::{PowerState, StateReason};
use super::{ApiError, Call, Params, Xml, authorize, dry_run, instances};
use crate::cloud::MachineCommand;

fn ids(call: &mut Call, params: &Params, action: &str) -> Result<Vec<String>, ApiError> {
    let ids = params.list("InstanceId");
    if ids.is_empty() {
        params.required("InstanceId")?;
    }
    for id in &ids {
        authorize(call, action, "instance", id)?;
    }
    // All are found before any is touched.
    let now = call.now;
    for id in &ids {
        call.region().ec2.require_instance(id, now)?;
    }
    Ok(ids)
}

fn user_initiated(now: Timestamp) -> (String, StateReason) {
    let transition = now.strftime("User initiated (%Y-%m-%d %H:%M:%S GMT)");
    let reason = StateReason {
        code: "Client.UserInitiatedShutdown",
        message: "Client.UserInitiatedShutdown: User initiated shutdown".to_owned(),
    };
    (transition.to_string(), reason)
}

pub(super) fn terminate(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let ids = ids(call, params, "TerminateInstances")?;
    let now = call.now;
    for id in &ids {
        if call
            .region()
            .ec2
            .require_instance(id, now)?
            .termination_protected
        {
            return Err(ApiError::new(
                "OperationNotPermitted",
                format!(
                    "The instance '{id}' may not be terminated. Modify its 'disableApiTermination' instance attribute and try \
                     again."
                ),
            ));
        }
    }
    dry_run(params)?;
    change(call, &ids, |state| match state {
        PowerState::Terminated => PowerState::Terminated,
        PowerState::Stopped => PowerState::Terminated,
        _ => PowerState::ShuttingDown,
    })
}

pub(super) fn stop(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let ids = ids(call, params, "StopInstances")?;
    let now = call.now;
    for id in &ids {
        let state = call.region().ec2.require_instance(id, now)?.state;
        if matches!(state, PowerState::ShuttingDown | PowerState::Terminated) {
            return Err(ApiError::new(
                "IncorrectInstanceState",
                format!("This instance '{id}' is not in a state from which it can be stopped."),
            ));
        }
    }
    dry_run(params)?;
    change(call, &ids, |state| match state {
        PowerState::Stopped => PowerState::Stopped,
        _ => PowerState::Stopping,
    })
}

fn change(
    call: &mut Call,
    ids: &[String],
    next: impl Fn(PowerState) -> PowerState,
) -> Result<Xml, ApiError> {
    let now = call.now;
    let region = call.region.clone();
    let mut changes = Vec::new();
    for id in ids {
        let instance = call.region().ec2.require_instance(id, now)?;
        let previous = instance.state;
        instance.state = next(previous);
        if instance.state != previous {
            let (transition, reason) = user_initiated(now);
            instance.transition = transition;
            instance.reason = Some(reason);
            call.command(MachineCommand::ShutDown {
                region: region.clone(),
                instance: id.clone(),
            });
        }
        changes.push((id, previous, next(previous)));
    }
    let mut xml = Xml::default();
    xml.list(
        "instancesSet",
        "item",
        changes,
        |xml, (id, previous, current)| {
            xml.text("instanceId", id);
            instances::write_state(xml, "currentState", current);
            instances::write_state(xml, "previousState", previous);
        },
    );
    Ok(xml)
}

/// A host of the sandbox keeps nothing on disk beyond its own life, so there is nothing it could boot again from.
pub(super) fn cannot_boot_again(
    call: &mut Call,
    action: &str,
    params: &Params,
) -> Result<Xml, ApiError> {
    ids(call, params, action)?;
    Err(ApiError::new(
        "UnsupportedOperation",
        "the sandbox's hosts boot once: terminate the instance and launch another",
    ))
}
