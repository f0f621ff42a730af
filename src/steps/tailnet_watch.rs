//! While the first heartbeat is waited for, the host's device is watched: a node that Tailnet Lock shuts out, that waits
//! for approval or that carries a wrong tag never reaches the brain, and its console does not say why.

use std::time::Duration;

use super::Context;
use crate::aws::ec2::Instance;
use crate::plan::{StepError, StepRun};
use crate::tailnet::standing::{Trouble, device_of_host, trouble};
use crate::tailnet::{Tailnet, TailnetError};

/// How soon the tailnet is asked, and how the pauses grow.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Waits for `work`, unless the host's device turns out to be in trouble; also where the work failed, since that may be
/// why. Without Tailscale's API it is just the work.
pub async fn alongside<T>(
    context: &Context,
    host: &Instance,
    run: &StepRun,
    work: impl Future<Output = Result<T, StepError>>,
) -> Result<T, StepError> {
    let Some(tailnet) = &context.tailnet else {
        return work.await;
    };
    let done = tokio::select! {
        done = work => done,
        error = watch(context, tailnet, host, run) => return Err(error),
    };
    match done {
        // What the tailnet says explains what the host and the brain could only show.
        Err(error @ (StepError::HostFailed(_) | StepError::NoHeartbeat { .. })) => {
            match look(context, tailnet, host).await {
                Ok(Some(Seen::Trouble(trouble))) => Err(in_trouble(context, host, trouble)),
                _ => Err(error),
            }
        }
        other => other,
    }
}

enum Seen {
    Good(String),
    Trouble(Trouble),
}

/// Ends only with a reason to stop.
async fn watch(context: &Context, tailnet: &Tailnet, host: &Instance, run: &StepRun) -> StepError {
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        match look(context, tailnet, host).await {
            Ok(Some(Seen::Trouble(trouble))) => return in_trouble(context, host, trouble),
            Ok(Some(Seen::Good(detail))) if !told => {
                told = true;
                run.progress(format!("{} is in the tailnet: {detail}", host.id));
            }
            Ok(_) => {}
            Err(error) if error.may_pass() => {}
            // The heartbeat is what counts; it may come without anybody watching.
            Err(error) => {
                run.progress(format!("the tailnet is not watched: {error}"));
                return std::future::pending().await;
            }
        }
    }
}

async fn look(
    context: &Context,
    tailnet: &Tailnet,
    host: &Instance,
) -> Result<Option<Seen>, TailnetError> {
    let devices = tailnet.devices().await?;
    let device = device_of_host(&devices, &context.customer, host.into());
    Ok(
        device.map(|device| match trouble(device, &context.customer) {
            Some(trouble) => Seen::Trouble(trouble),
            None => Seen::Good(format!("{} ({})", device.name, device.addresses.join(", "))),
        }),
    )
}

fn in_trouble(context: &Context, host: &Instance, trouble: Trouble) -> StepError {
    StepError::Device {
        customer: context.customer.to_string(),
        instance_id: host.id.clone(),
        what: trouble.what,
        fix: trouble.fix,
    }
}
