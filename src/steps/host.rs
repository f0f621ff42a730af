//! The customer's EC2 host: adopted when there is one, launched once when there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use super::Context;
use crate::artifacts;
use crate::aws::ec2::Instance;
use crate::aws::ec2_launch::{
    Launch, METADATA_HOP_LIMIT, MIN_ROOT_VOLUME_GIB, is_profile_not_ready,
};
use crate::customer::{CUSTOMER_TAG_KEY, hex};
use crate::diagnosis;
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::resource::Resource;

/// How long EC2 is given to learn of a new instance profile. It mostly takes ten seconds.
const PROFILE_PATIENCE: Duration = Duration::from_secs(180);
/// How long a terminated host is waited for.
const TERMINATE_PATIENCE: Duration = Duration::from_secs(600);
/// EC2 may take this long to show an instance it has just launched.
pub(super) const VISIBLE_PATIENCE: Duration = Duration::from_secs(60);
/// Hosts this customer may have had before; more mean that something goes round in circles.
const MAX_GENERATIONS: u32 = 50;

/// The host.
pub struct Host(pub Arc<Context>);

/// The client token of the customer's nth host.
///
/// It depends on nothing that can change between an interrupted run and the next one, so that the second
/// `RunInstances` cannot make a second host even while `DescribeInstances` does not show the first one yet. After a
/// host has ended, EC2 answers its token with `IdempotentInstanceTerminated`, and the next generation's is used.
/// A run that marks what it makes is never gone on with by another, so its mark is part of the token.
pub fn client_token(context: &Context, generation: u32) -> String {
    let aws = &context.aws;
    let run = match &context.mark {
        Some(mark) => format!("{}={}/", mark.key, mark.value),
        None => String::new(),
    };
    let text = format!(
        "{}/{}/{}/{run}{generation}",
        aws.account, aws.region, context.customer
    );
    format!("m8trx-{}", &hex(&Sha256::digest(text.as_bytes()))[..40])
}

/// What is otherwise on a live host than a launch would have made it, and can be changed while it runs.
pub(crate) fn metadata_differences(host: &Instance) -> Vec<String> {
    let mut differences = Vec::new();
    if !host.metadata_tags_enabled {
        differences.push("enable instance tags in its metadata".to_owned());
    }
    if !host.metadata_token_required {
        differences.push("require IMDSv2 tokens".to_owned());
    }
    if host
        .metadata_hop_limit
        .is_some_and(|limit| limit != METADATA_HOP_LIMIT)
    {
        differences.push(format!(
            "set the metadata hop limit to {METADATA_HOP_LIMIT}"
        ));
    }
    differences
}

impl Host {
    fn only<'h>(&self, live: &[&'h Instance]) -> Result<Option<&'h Instance>, StepError> {
        if live.len() > 1 {
            let ids: Vec<&str> = live.iter().map(|host| host.id.as_str()).collect();
            return Err(StepError::Precondition {
                problem: format!("{} has {} live hosts: {}", self.0.customer, ids.len(), ids.join(", ")),
                hint: "a customer has one host: end the others with `aws ec2 terminate-instances --instance-ids …`".to_owned(),
            });
        }
        Ok(live.first().copied())
    }

    fn check_profile(&self, host: &Instance) -> Result<(), StepError> {
        let name = self.0.customer.resource_name();
        let suffix = format!("/{name}");
        match &host.instance_profile {
            Some(arn) if arn.ends_with(&suffix) => Ok(()),
            other => Err(StepError::Precondition {
                problem: format!(
                    "the live host {} runs with {} instead of the instance profile {name}",
                    host.id,
                    other.as_deref().unwrap_or("no instance profile")
                ),
                hint: format!(
                    "end it with `aws ec2 terminate-instances --instance-ids {}` and run the same command again, or give it the profile in the EC2 console",
                    host.id
                ),
            }),
        }
    }

    async fn bring_back(&self, host: &Instance, run: &StepRun) -> Result<Outcome, StepError> {
        self.check_profile(host)?;
        let aws = &self.0.aws;
        let mut done = Vec::new();
        let differences = metadata_differences(host);
        if !differences.is_empty() {
            aws.set_metadata_options(&host.id).await?;
            done.extend(differences);
        }
        let mut host = host.clone();
        if matches!(host.state.as_str(), "stopped" | "stopping") {
            run.progress("starting the stopped host");
            while aws
                .instance(&host.id)
                .await?
                .is_some_and(|now| now.state == "stopping")
            {
                run.pause(Duration::from_secs(2)).await?;
            }
            aws.start(&host.id).await?;
            done.push("started".to_owned());
            if let Some(now) = aws.instance(&host.id).await? {
                host = now;
            }
        }
        let id = host.id.clone();
        let _ = self.0.found.host.set(host);
        Ok(if done.is_empty() {
            Outcome::Adopted(id)
        } else {
            Outcome::Updated(format!("{id}: {}", done.join("; ")))
        })
    }

    /// Launches with the first token whose host has not ended.
    async fn launch(&self, run: &StepRun) -> Result<Outcome, StepError> {
        let context = &self.0;
        let image = context.image().await?;
        let name = context.customer.resource_name();
        let group = match context.found.security_group.get() {
            Some(group) => group.clone(),
            // The group's step had nothing to do when it was observed beside a host that has ended since.
            None => context
                .aws
                .security_group(context.vpc().await?, &name)
                .await?
                .map(|group| group.id)
                .ok_or_else(|| StepError::Precondition {
                    problem: format!("the security group {name} does not exist"),
                    hint: "run the same command again".to_owned(),
                })?,
        };
        let mut tags = context.tags();
        tags.push(("Name", name.as_str()));
        let began = Instant::now();
        let mut pause = Duration::from_millis(250);
        let mut generation = 0;
        loop {
            if run.interrupt.is_cancelled() {
                return Err(StepError::Interrupted);
            }
            let token = client_token(context, generation);
            let launch = Launch {
                client_token: &token,
                image,
                instance_type: &context.instance_type,
                subnet: context.subnet.as_deref(),
                security_group: &group,
                instance_profile: &name,
                user_data: artifacts::BOOTSTRAP_SH,
                tags: &tags,
            };
            let error = match context.aws.run_instance(&launch).await {
                // EC2 answers a repeated token with the instance as it is now.
                Ok(host) if host.is_live() => return Ok(self.launched(host)),
                Ok(_) => {
                    generation += 1;
                    continue;
                }
                Err(error) => error,
            };
            match error.code() {
                Some("IdempotentInstanceTerminated") if generation < MAX_GENERATIONS => {
                    generation += 1
                }
                // The same token with other parameters: an interrupted run launched with another image or type.
                Some("IdempotentParameterMismatch") if generation < MAX_GENERATIONS => {
                    match context.aws.instance_by_token(&token).await? {
                        Some(host) if host.is_live() => return self.bring_back(&host, run).await,
                        Some(_) => generation += 1,
                        None if began.elapsed() < PROFILE_PATIENCE => {
                            run.progress(
                                "waiting for EC2 to show the host an earlier run launched",
                            );
                            run.pause(Duration::from_secs(2)).await?;
                        }
                        None => generation += 1,
                    }
                }
                _ if is_profile_not_ready(&error) && began.elapsed() < PROFILE_PATIENCE => {
                    run.progress("waiting for EC2 to know the instance profile");
                    run.pause(pause).await?;
                    pause = (pause * 2).min(Duration::from_secs(10));
                }
                _ => {
                    return Err(match diagnosis::of_launch(&error, &context.customer) {
                        Some(diagnosis) => StepError::LaunchRefused {
                            diagnosis: Box::new(diagnosis),
                            error,
                        },
                        None => error.into(),
                    });
                }
            }
        }
    }

    /// Terminates a host and waits until it is gone. One that EC2 does not know, though it was launched, is asked for
    /// until it does, or is given up as one that never came to be.
    async fn end(&self, host: &Instance, is_listed: bool, run: &StepRun) -> Result<(), StepError> {
        let aws = &self.0.aws;
        let began = Instant::now();
        let mut known = is_listed;
        let mut is_ending = !host.is_live();
        run.progress(format!("waiting for {} to end", host.id));
        loop {
            if !is_ending {
                is_ending = aws.terminate(&host.id).await?;
            }
            let state = aws.instance(&host.id).await?.map(|now| now.state);
            known |= state.is_some();
            match state.as_deref() {
                Some("terminated") => return Ok(()),
                None if known || began.elapsed() > VISIBLE_PATIENCE => return Ok(()),
                _ if began.elapsed() > TERMINATE_PATIENCE => {
                    return Err(StepError::Precondition {
                        problem: format!(
                            "{} is still {} after ten minutes",
                            host.id,
                            state.unwrap_or_default()
                        ),
                        hint: "look at it in the EC2 console, then run the same command again"
                            .to_owned(),
                    });
                }
                _ => {}
            }
            run.pause(Duration::from_secs(1)).await?;
        }
    }

    fn launched(&self, host: Instance) -> Outcome {
        let detail = format!("{} ({})", host.id, self.0.instance_type);
        let _ = self.0.found.launched.set(());
        let _ = self.0.found.host.set(host);
        Outcome::Created(detail)
    }
}

#[async_trait]
impl Step for Host {
    fn name(&self) -> &'static str {
        Resource::Host.name()
    }

    fn after(&self) -> &'static [&'static str] {
        Resource::Host.after()
    }

    fn describe(&self) -> String {
        format!("EC2 host tagged {CUSTOMER_TAG_KEY}={}", self.0.customer)
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        let live = self.0.live_hosts().await?;
        let Some(host) = self.only(&live)? else {
            let mut changes = vec![format!(
                "launch one {} tagged {CUSTOMER_TAG_KEY}={}{}",
                self.0.instance_type,
                self.0.customer,
                self.0
                    .subnet
                    .as_ref()
                    .map_or(String::new(), |subnet| format!(" in {subnet}"))
            )];
            changes.push(format!(
                "IMDSv2 only, instance tags in metadata, encrypted root volume of at least {MIN_ROOT_VOLUME_GIB} GiB"
            ));
            return Ok(Observation::Missing { changes });
        };
        self.check_profile(host)?;
        let mut differences = metadata_differences(host);
        if matches!(host.state.as_str(), "stopped" | "stopping") {
            differences.push("start it".to_owned());
        }
        if differences.is_empty() {
            let _ = self.0.found.host.set((*host).clone());
            Ok(Observation::satisfied(format!(
                "{}, {}",
                host.id, host.state
            )))
        } else {
            let differences = differences
                .into_iter()
                .map(|difference| format!("{} ({}): {difference}", host.id, host.state))
                .collect();
            Ok(Observation::Drifted { differences })
        }
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        let all = self.0.aws.customer_instances(&self.0.customer).await?;
        let live: Vec<&Instance> = all.iter().filter(|host| host.is_live()).collect();
        match self.only(&live)? {
            Some(host) => self.bring_back(host, run).await,
            None => self.launch(run).await,
        }
    }

    /// Ends every host of the customer and waits until they are gone.
    async fn undo(&self, run: &StepRun) -> Result<Vec<String>, StepError> {
        let listed = self.0.aws.customer_instances(&self.0.customer).await?;
        let mut removed = Vec::new();
        // What this run has just launched may not be listed yet.
        let unlisted = self.0.found.host.get().filter(|launched| {
            launched.is_live() && !listed.iter().any(|host| host.id == launched.id)
        });
        let all = listed.iter().map(|host| (host, true));
        for (host, is_listed) in all.chain(unlisted.map(|host| (host, false))) {
            if host.state != "terminated" && self.0.may_remove(&host.tags) {
                self.end(host, is_listed, run).await?;
                removed.push(format!("host {}", host.id));
            }
        }
        Ok(removed)
    }
}
