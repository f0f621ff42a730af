//! The image a new host is launched from, looked up once.

use std::sync::Arc;

use async_trait::async_trait;

use super::Context;
use crate::aws::ec2::Image;
use crate::plan::{Observation, Outcome, Step, StepError, StepRun};
use crate::resource::Resource;
use crate::secret::ExposeSecret as _;

/// The image: `--ami`, or Ubuntu 22.04 for the instance type's architecture.
pub struct HostImage(pub Arc<Context>);

/// Canonical's public parameter with the current Ubuntu 22.04 image of a region.
fn ubuntu_parameter(architecture: &str) -> String {
    format!(
        "/aws/service/canonical/ubuntu/server/22.04/stable/current/{architecture}/hvm/ebs-gp2/ami-id"
    )
}

/// Finds the image, and that the instance type runs it.
pub(crate) async fn resolve(context: &Context) -> Result<Image, StepError> {
    let aws = &context.aws;
    let instance_type = &context.instance_type;
    let architectures = aws.architectures(instance_type).await?;
    let id = match &context.ami {
        Some(ami) => ami.clone(),
        None => {
            let architecture = if architectures.iter().any(|a| a == "arm64") {
                "arm64"
            } else {
                "amd64"
            };
            let name = ubuntu_parameter(architecture);
            let parameter = aws.parameter(&name).await?;
            parameter
                .ok_or_else(|| StepError::Precondition {
                    problem: format!("{} publishes no Ubuntu 22.04 image ({name})", aws.region),
                    hint: "pass an image of this region as --ami".to_owned(),
                })?
                .value
                .expose_secret()
                .to_owned()
        }
    };
    let image = aws
        .image(&id)
        .await?
        .ok_or_else(|| StepError::Precondition {
            problem: format!("{} has no image {id}", aws.region),
            hint: "images differ by region: leave --ami out for Ubuntu 22.04, or pass an image of this region".to_owned(),
        })?;
    let runs_it = architectures.is_empty()
        || image.architecture.is_empty()
        || architectures.contains(&image.architecture);
    if !runs_it {
        return Err(StepError::Precondition {
            problem: format!(
                "the image {id} is for {}, and {instance_type} runs {}",
                image.architecture,
                architectures.join(" and ")
            ),
            hint: "pass an --ami and an --instance-type of one architecture".to_owned(),
        });
    }
    Ok(image)
}

#[async_trait]
impl Step for HostImage {
    fn name(&self) -> &'static str {
        Resource::Image.name()
    }

    fn describe(&self) -> String {
        match &self.0.ami {
            Some(ami) => format!("image {ami}"),
            None => "image of Ubuntu 22.04".to_owned(),
        }
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        if let Some(host) = self.0.live_hosts().await?.first() {
            return Ok(Observation::satisfied(format!(
                "not needed: {} exists",
                host.id
            )));
        }
        let image = self.0.image().await?;
        let mut words = vec![image.id.as_str()];
        if self.0.ami.is_none() {
            words.push("Ubuntu 22.04");
        } else if let Some(name) = &image.name {
            words.push(name);
        }
        words.push(&image.architecture);
        Ok(Observation::satisfied(
            words.join(" ").trim_end().to_owned(),
        ))
    }

    async fn apply(&self, _run: &StepRun) -> Result<Outcome, StepError> {
        Ok(Outcome::Unchanged(self.0.image().await?.id.clone()))
    }

    /// An image is only read.
    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        Ok(Vec::new())
    }
}
