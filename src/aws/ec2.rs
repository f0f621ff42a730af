//! Instances and images, as far as a customer host needs them.

use aws_sdk_ec2::types::{
    ArchitectureType, Filter, InstanceMetadataTagsState, ResourceType, Tag, TagSpecification,
};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use base64::Engine as _;
use jiff::Timestamp;

use super::{Aws, AwsError};
use crate::customer::{CUSTOMER_TAG_KEY, CustomerId};

/// A customer host as EC2 knows it.
#[derive(Debug, Clone)]
pub struct Instance {
    /// `i-…`.
    pub id: String,
    /// `pending`, `running`, `stopping`, `stopped`, `shutting-down` or `terminated`.
    pub state: String,
    /// `t3.small`, for example.
    pub instance_type: Option<String>,
    /// Why it is in this state, where EC2 says.
    pub state_reason: Option<String>,
    /// When it was launched or last started, to the second.
    pub launched: Option<Timestamp>,
    /// `ip-172-31-0-10.…`, the name the host gives itself.
    pub private_dns_name: Option<String>,
    /// Whether the metadata service offers the instance's tags.
    pub metadata_tags_enabled: bool,
    /// Whether the metadata service insists on a session token (IMDSv2).
    pub metadata_token_required: bool,
    /// How many network hops a metadata answer survives.
    pub metadata_hop_limit: Option<i32>,
    /// ARN of its instance profile.
    pub instance_profile: Option<String>,
    /// The token it was launched with.
    pub client_token: Option<String>,
    /// The value of its `Customer` tag.
    pub customer: Option<String>,
    /// All its tags.
    pub tags: Vec<(String, String)>,
}

impl Instance {
    /// Whether it exists or is about to: not terminated and not on its way there.
    pub fn is_live(&self) -> bool {
        !matches!(self.state.as_str(), "terminated" | "shutting-down")
    }
}

/// Whether two names are of one host: first labels, since a host may or may not add its domain.
pub fn same_host(one: &str, other: &str) -> bool {
    let label = |name: &str| name.split('.').next().unwrap_or_default().to_lowercase();
    !label(one).is_empty() && label(one) == label(other)
}

/// A machine image.
#[derive(Debug, Clone)]
pub struct Image {
    /// `ami-…`.
    pub id: String,
    /// `x86_64`, `arm64`, ….
    pub architecture: String,
    /// The device its root volume is attached as, `/dev/sda1` for Ubuntu.
    pub root_device: Option<String>,
    /// The size of its root volume, in GiB.
    pub root_volume_gib: Option<i32>,
    /// Its name, where it has one.
    pub name: Option<String>,
}

pub(super) fn filter(name: &str, values: &[&str]) -> Filter {
    Filter::builder()
        .name(name)
        .set_values(Some(values.iter().map(|v| (*v).to_owned()).collect()))
        .build()
}

/// Tags for one kind of resource, applied in the call that creates it.
pub(super) fn tag_specification(kind: ResourceType, tags: &[(&str, &str)]) -> TagSpecification {
    TagSpecification::builder()
        .resource_type(kind)
        .set_tags(Some(
            tags.iter()
                .map(|(key, value)| Tag::builder().key(*key).value(*value).build())
                .collect(),
        ))
        .build()
}

pub(super) fn tag<'t>(tags: &'t [Tag], key: &str) -> Option<&'t str> {
    tags.iter()
        .find(|tag| tag.key() == Some(key))
        .and_then(Tag::value)
}

pub(super) fn tags_of(tags: &[Tag]) -> Vec<(String, String)> {
    tags.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())))
        .collect()
}

pub(super) fn instance_of(instance: &aws_sdk_ec2::types::Instance) -> Option<Instance> {
    let options = instance.metadata_options();
    Some(Instance {
        id: instance.instance_id()?.to_owned(),
        state: instance
            .state()
            .and_then(|state| state.name())
            .map(|name| name.as_str().to_owned())
            .unwrap_or_default(),
        instance_type: instance
            .instance_type()
            .map(|kind| kind.as_str().to_owned()),
        state_reason: instance
            .state_reason()
            .and_then(|reason| reason.message().or(reason.code()))
            .map(str::to_owned),
        launched: instance
            .launch_time()
            .and_then(|at| Timestamp::from_second(at.secs()).ok()),
        private_dns_name: instance
            .private_dns_name()
            .filter(|name| !name.is_empty())
            .map(str::to_owned),
        metadata_tags_enabled: options.and_then(|o| o.instance_metadata_tags())
            == Some(&InstanceMetadataTagsState::Enabled),
        metadata_token_required: options.and_then(|o| o.http_tokens()).map(|t| t.as_str())
            == Some("required"),
        metadata_hop_limit: options.and_then(|o| o.http_put_response_hop_limit()),
        instance_profile: instance
            .iam_instance_profile()
            .and_then(|profile| profile.arn())
            .map(str::to_owned),
        client_token: instance.client_token().map(str::to_owned),
        customer: tag(instance.tags(), CUSTOMER_TAG_KEY).map(str::to_owned),
        tags: tags_of(instance.tags()),
    })
}

const INSTANCES_IN_A_PAGE: i32 = 1000;

impl Aws {
    pub(super) fn ec2_error<E, R>(&self, operation: &'static str, error: SdkError<E, R>) -> AwsError
    where
        E: ProvideErrorMetadata + aws_sdk_ec2::operation::RequestId + std::error::Error + 'static,
        R: std::fmt::Debug,
    {
        AwsError::from_sdk("ec2", operation, &self.region, error)
    }

    /// Every instance that a filter lets through, in pages as large as EC2 gives them.
    pub(super) async fn instances_where(
        &self,
        by: Filter,
        about: &str,
    ) -> Result<Vec<Instance>, AwsError> {
        let mut pages = self
            .ec2
            .describe_instances()
            .filters(by)
            .max_results(INSTANCES_IN_A_PAGE)
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| self.ec2_error("DescribeInstances", e).about(about))?;
            found.extend(
                page.reservations()
                    .iter()
                    .flat_map(|reservation| reservation.instances())
                    .filter_map(instance_of),
            );
        }
        Ok(found)
    }

    /// Every instance tagged `Customer=<id>`, ended ones too while EC2 still lists them (about an hour).
    pub async fn customer_instances(
        &self,
        customer: &CustomerId,
    ) -> Result<Vec<Instance>, AwsError> {
        let by = filter(&format!("tag:{CUSTOMER_TAG_KEY}"), &[customer.as_str()]);
        let mut found = self.instances_where(by, customer.as_str()).await?;
        found.sort_by(|a, b| (a.launched, &a.id).cmp(&(b.launched, &b.id)));
        Ok(found)
    }

    /// The instance that was launched with a client token.
    pub async fn instance_by_token(&self, token: &str) -> Result<Option<Instance>, AwsError> {
        let found = self
            .instances_where(filter("client-token", &[token]), token)
            .await?;
        Ok(found.into_iter().next())
    }

    /// One instance by id; `None` when EC2 does not know it, which also happens for seconds after a launch.
    pub async fn instance(&self, id: &str) -> Result<Option<Instance>, AwsError> {
        match self.ec2.describe_instances().instance_ids(id).send().await {
            Ok(answer) => Ok(answer
                .reservations()
                .iter()
                .flat_map(|reservation| reservation.instances())
                .find_map(instance_of)),
            Err(error)
                if error.as_service_error().and_then(|e| e.code())
                    == Some("InvalidInstanceID.NotFound") =>
            {
                Ok(None)
            }
            Err(error) => Err(self.ec2_error("DescribeInstances", error).about(id)),
        }
    }

    /// What EC2's own checks say of a running instance, in a sentence; `None` where there are none yet.
    pub async fn status_checks(&self, id: &str) -> Result<Option<String>, AwsError> {
        let answer = self
            .ec2
            .describe_instance_status()
            .instance_ids(id)
            .include_all_instances(true)
            .send()
            .await
            .map_err(|e| self.ec2_error("DescribeInstanceStatus", e).about(id))?;
        let word = |summary: Option<&aws_sdk_ec2::types::InstanceStatusSummary>| {
            let status = summary.and_then(|summary| summary.status());
            status
                .map_or("unknown", |status| status.as_str())
                .to_owned()
        };
        Ok(answer.instance_statuses().first().map(|status| {
            let events = status
                .events()
                .iter()
                .filter_map(|event| event.description());
            let events: String = events.map(|text| format!("; event: {text}")).collect();
            format!(
                "EC2's status checks: the machine beneath it is {}, the instance itself {}{events}",
                word(status.system_status()),
                word(status.instance_status()),
            )
        }))
    }

    /// What the host wrote to its console: at most the last 64 KB, any bytes; empty until EC2 has some.
    ///
    /// The latest output exists on Nitro types only; elsewhere EC2 posts it minutes later.
    pub async fn console_output(&self, id: &str) -> Result<Vec<u8>, AwsError> {
        let latest = self
            .ec2
            .get_console_output()
            .instance_id(id)
            .latest(true)
            .send()
            .await;
        let answer = match latest {
            Ok(answer) => answer,
            Err(error)
                if matches!(
                    error.as_service_error().and_then(|e| e.code()),
                    Some(
                        "UnsupportedOperation"
                            | "InvalidParameterCombination"
                            | "InvalidParameterValue"
                            | "Unsupported"
                    )
                ) =>
            {
                self.ec2
                    .get_console_output()
                    .instance_id(id)
                    .send()
                    .await
                    .map_err(|e| self.ec2_error("GetConsoleOutput", e).about(id))?
            }
            Err(error)
                if error.as_service_error().and_then(|e| e.code())
                    == Some("InvalidInstanceID.NotFound") =>
            {
                return Ok(Vec::new());
            }
            Err(error) => return Err(self.ec2_error("GetConsoleOutput", error).about(id)),
        };
        // Line breaks inside base64 are legal in EC2's answer, and anything undecodable is no console text.
        let encoded: String = answer
            .output()
            .unwrap_or_default()
            .split_ascii_whitespace()
            .collect();
        Ok(base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .unwrap_or_default())
    }

    /// Ends an instance; `false` when EC2 does not know it.
    pub async fn terminate(&self, id: &str) -> Result<bool, AwsError> {
        match self.ec2.terminate_instances().instance_ids(id).send().await {
            Ok(_) => Ok(true),
            Err(error)
                if error.as_service_error().and_then(|e| e.code())
                    == Some("InvalidInstanceID.NotFound") =>
            {
                Ok(false)
            }
            Err(error) => Err(self.ec2_error("TerminateInstances", error).about(id)),
        }
    }

    /// Starts a stopped instance.
    pub async fn start(&self, id: &str) -> Result<(), AwsError> {
        self.ec2
            .start_instances()
            .instance_ids(id)
            .send()
            .await
            .map(drop)
            .map_err(|e| self.ec2_error("StartInstances", e).about(id))
    }

    /// Reads an image; `None` when the region has none of this id.
    pub async fn image(&self, id: &str) -> Result<Option<Image>, AwsError> {
        let answer = match self.ec2.describe_images().image_ids(id).send().await {
            Ok(answer) => answer,
            Err(error)
                if error
                    .as_service_error()
                    .and_then(|e| e.code())
                    .is_some_and(|code| {
                        code == "InvalidAMIID.NotFound" || code == "InvalidAMIID.Unavailable"
                    }) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(self.ec2_error("DescribeImages", error).about(id)),
        };
        Ok(answer.images().first().map(|image| Image {
            id: id.to_owned(),
            architecture: image
                .architecture()
                .map(|architecture| architecture.as_str().to_owned())
                .unwrap_or_default(),
            root_device: image.root_device_name().map(str::to_owned),
            root_volume_gib: image
                .block_device_mappings()
                .iter()
                .find(|mapping| mapping.device_name() == image.root_device_name())
                .and_then(|mapping| mapping.ebs()?.volume_size()),
            name: image.name().map(str::to_owned),
        }))
    }

    /// The architectures an instance type runs: `x86_64`, `arm64`.
    pub async fn architectures(&self, instance_type: &str) -> Result<Vec<String>, AwsError> {
        let answer = self
            .ec2
            .describe_instance_types()
            .instance_types(instance_type.into())
            .send()
            .await
            .map_err(|e| {
                self.ec2_error("DescribeInstanceTypes", e)
                    .about(instance_type)
            })?;
        Ok(answer
            .instance_types()
            .iter()
            .filter_map(|info| info.processor_info())
            .flat_map(|processor| processor.supported_architectures())
            .map(ArchitectureType::as_str)
            .map(str::to_owned)
            .collect())
    }
}
