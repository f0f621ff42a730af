//! Launching a customer host, and bringing a live one's metadata options back to what the host needs.

use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, HttpTokensState, IamInstanceProfileSpecification,
    InstanceMetadataEndpointState, InstanceMetadataOptionsRequest, InstanceMetadataTagsState,
    ResourceType, VolumeType,
};
use base64::Engine as _;

use super::ec2::{Image, Instance, instance_of, tag_specification};
use super::{Aws, AwsError};
use crate::customer::CUSTOMER_TAG_KEY;

/// Longest user-data EC2 takes, in bytes before base64.
pub const MAX_USER_DATA_LENGTH: usize = 16 * 1024;

/// One network hop: answers of the metadata service, with them the role's credentials, do not reach containers on
/// a bridge network.
pub const METADATA_HOP_LIMIT: i32 = 1;

/// The smallest root volume a host gets, in GiB: Ubuntu's own 8 GiB do not hold Docker and a few images.
pub const MIN_ROOT_VOLUME_GIB: i32 = 20;

/// What a host is launched with.
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    /// The same token and parameters give the same instance.
    pub client_token: &'a str,
    /// The image.
    pub image: &'a Image,
    /// `t3.small`, for example.
    pub instance_type: &'a str,
    /// A subnet; without one AWS picks a default subnet with capacity.
    pub subnet: Option<&'a str>,
    /// The security group.
    pub security_group: &'a str,
    /// The instance profile, by name.
    pub instance_profile: &'a str,
    /// The script, as it is: encoding it is done here.
    pub user_data: &'a str,
    /// Tags of the instance and its volume, in force from the first moment.
    pub tags: &'a [(&'a str, &'a str)],
}

/// What a launch is rehearsed with: nothing that a customer has.
#[derive(Debug, Clone)]
pub struct Rehearsal<'a> {
    /// The image.
    pub image: &'a Image,
    /// `t3.small`, for example.
    pub instance_type: &'a str,
    /// A subnet instead of a default one.
    pub subnet: Option<&'a str>,
    /// A customer id for the tags.
    pub customer: &'a str,
}

impl Aws {
    /// Whether EC2 would launch a host: a dry run, which launches nothing.
    pub async fn rehearse_launch(&self, rehearsal: &Rehearsal<'_>) -> Result<(), AwsError> {
        let tags = [(CUSTOMER_TAG_KEY, rehearsal.customer)];
        let answer = self
            .ec2
            .run_instances()
            .dry_run(true)
            .min_count(1)
            .max_count(1)
            .image_id(&rehearsal.image.id)
            .instance_type(rehearsal.instance_type.into())
            .set_subnet_id(rehearsal.subnet.map(str::to_owned))
            .metadata_options(
                InstanceMetadataOptionsRequest::builder()
                    .http_endpoint(InstanceMetadataEndpointState::Enabled)
                    .http_tokens(HttpTokensState::Required)
                    .http_put_response_hop_limit(METADATA_HOP_LIMIT)
                    .instance_metadata_tags(InstanceMetadataTagsState::Enabled)
                    .build(),
            )
            .tag_specifications(tag_specification(ResourceType::Instance, &tags))
            .tag_specifications(tag_specification(ResourceType::Volume, &tags))
            .send()
            .await;
        let Err(error) = answer else { return Ok(()) };
        let error = self.ec2_error("RunInstances", error);
        // How EC2 says that it would.
        if error.code() == Some("DryRunOperation") {
            return Ok(());
        }
        Err(error.about(rehearsal.instance_type))
    }

    /// Asks EC2 for one instance.
    pub async fn run_instance(&self, launch: &Launch<'_>) -> Result<Instance, AwsError> {
        let root = launch.image.root_device.as_ref().map(|device| {
            BlockDeviceMapping::builder()
                .device_name(device)
                .ebs(
                    EbsBlockDevice::builder()
                        .encrypted(true)
                        .volume_type(VolumeType::Gp3)
                        .volume_size(
                            launch
                                .image
                                .root_volume_gib
                                .unwrap_or_default()
                                .max(MIN_ROOT_VOLUME_GIB),
                        )
                        .delete_on_termination(true)
                        .build(),
                )
                .build()
        });
        let answer = self
            .ec2
            .run_instances()
            .min_count(1)
            .max_count(1)
            .client_token(launch.client_token)
            .image_id(&launch.image.id)
            .instance_type(launch.instance_type.into())
            .set_subnet_id(launch.subnet.map(str::to_owned))
            .security_group_ids(launch.security_group)
            .iam_instance_profile(
                IamInstanceProfileSpecification::builder()
                    .name(launch.instance_profile)
                    .build(),
            )
            // The SDK does not encode user-data (aws-sdk-rust, RunInstances); EC2 wants base64.
            .user_data(base64::engine::general_purpose::STANDARD.encode(launch.user_data))
            .metadata_options(
                InstanceMetadataOptionsRequest::builder()
                    .http_endpoint(InstanceMetadataEndpointState::Enabled)
                    .http_tokens(HttpTokensState::Required)
                    .http_put_response_hop_limit(METADATA_HOP_LIMIT)
                    .instance_metadata_tags(InstanceMetadataTagsState::Enabled)
                    .build(),
            )
            .set_block_device_mappings(root.map(|root| vec![root]))
            .tag_specifications(tag_specification(ResourceType::Instance, launch.tags))
            .tag_specifications(tag_specification(ResourceType::Volume, launch.tags))
            .send()
            .await
            .map_err(|e| {
                self.ec2_error("RunInstances", e)
                    .about(launch.instance_type)
            })?;
        answer
            .instances()
            .first()
            .and_then(instance_of)
            .ok_or_else(|| AwsError::incomplete("ec2", "RunInstances", &self.region, "instance"))
    }

    /// Gives a live instance the metadata options a customer host needs.
    pub async fn set_metadata_options(&self, id: &str) -> Result<(), AwsError> {
        self.ec2
            .modify_instance_metadata_options()
            .instance_id(id)
            .http_endpoint(InstanceMetadataEndpointState::Enabled)
            .http_tokens(HttpTokensState::Required)
            .http_put_response_hop_limit(METADATA_HOP_LIMIT)
            .instance_metadata_tags(InstanceMetadataTagsState::Enabled)
            .send()
            .await
            .map(drop)
            .map_err(|e| self.ec2_error("ModifyInstanceMetadataOptions", e).about(id))
    }
}

/// Whether EC2 refused a launch because IAM has not told it of the profile yet.
///
/// IAM is eventually consistent, and EC2 has no code of its own for it: the message tells (IAM user guide,
/// "Troubleshoot IAM and Amazon EC2").
pub fn is_profile_not_ready(error: &AwsError) -> bool {
    error.code() == Some("InvalidParameterValue")
        && error.message().is_some_and(|message| {
            message.contains("Invalid IAM Instance Profile")
                || message.contains("has no associated IAM Roles")
        })
}
