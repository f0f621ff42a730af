//! What a launch asks for, read and checked on its own.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::metadata_options::{MetadataOptions, check_tag_keys};
use super::{ApiError, Params, images, invalid, tags, types};

/// Longest user-data, before base64.
const MAX_USER_DATA_LENGTH: usize = 16 * 1024;
const MAX_CLIENT_TOKEN_LENGTH: usize = 64;

/// The parameters that the sandbox reads, by their first part.
const KNOWN: [&str; 24] = [
    "Action",
    "Version",
    "ImageId",
    "InstanceType",
    "MinCount",
    "MaxCount",
    "ClientToken",
    "DryRun",
    "UserData",
    "SubnetId",
    "SecurityGroupId",
    "SecurityGroup",
    "NetworkInterface",
    "BlockDeviceMapping",
    "IamInstanceProfile",
    "MetadataOptions",
    "TagSpecification",
    "KeyName",
    "Monitoring",
    "EbsOptimized",
    "InstanceInitiatedShutdownBehavior",
    "DisableApiTermination",
    "Placement",
    "CreditSpecification",
];

/// A launch as asked for.
pub(super) struct LaunchInput {
    pub image: &'static images::PublicImage,
    pub image_id: String,
    pub kind: types::InstanceType,
    pub count: usize,
    pub client_token: Option<String>,
    pub user_data: Vec<u8>,
    pub subnet: Option<String>,
    pub groups: Vec<String>,
    pub group_names: Vec<String>,
    pub profile: Option<ProfileReference>,
    pub options: MetadataOptions,
    pub tags: BTreeMap<String, BTreeMap<String, String>>,
    pub root: RootVolume,
    pub terminates_on_shutdown: bool,
    pub termination_protected: bool,
    pub zone: Option<String>,
}

/// An instance profile as a launch names it.
pub(super) struct ProfileReference {
    pub name: String,
    /// `name` or `arn`, and the text that was given.
    pub given_as: &'static str,
    pub given: String,
}

/// What a launch says about the root volume.
#[derive(Default)]
pub(super) struct RootVolume {
    pub encrypted: bool,
    pub size_gib: Option<i64>,
    pub kind: Option<String>,
    pub delete_on_termination: Option<bool>,
}

impl LaunchInput {
    /// Reads a launch. What it names outside itself (subnet, groups, profile) is looked up later.
    pub fn read(params: &Params, region: &str) -> Result<Self, ApiError> {
        for name in params.names() {
            let first = name.split('.').next().unwrap_or(name);
            if !KNOWN.contains(&first) {
                return Err(ApiError::new(
                    "UnknownParameter",
                    format!("The parameter {name} is not recognized: the sandbox does not know it"),
                ));
            }
        }
        let client_token = params.get("ClientToken").map(str::to_owned);
        if let Some(token) = &client_token {
            let valid = token.is_ascii() && (1..=MAX_CLIENT_TOKEN_LENGTH).contains(&token.len());
            if !valid {
                return Err(invalid(
                    "ClientToken",
                    token,
                    "It must have 1 to 64 ASCII characters.",
                ));
            }
        }
        let image_id = params.required("ImageId")?.to_owned();
        let image = images::require(region, &image_id)?;
        let kind = types::require(params.get("InstanceType").unwrap_or("m5.large"))?;
        if kind.architecture != image.architecture {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!(
                    "The architecture '{}' of the specified instance type does not match the architecture '{}' of the \
                     specified AMI. Specify an instance type and an AMI that have matching architectures, and try again. You \
                     can use 'describe-instance-types' or 'describe-images' to discover the architecture of the instance \
                     type or AMI.",
                    kind.architecture.name(),
                    image.architecture.name()
                ),
            ));
        }
        if let Some(key) = params.get("KeyName") {
            return Err(ApiError::new(
                "InvalidKeyPair.NotFound",
                format!("The key pair '{key}' does not exist"),
            ));
        }
        let options = MetadataOptions::default().changed_by(&params.beneath("MetadataOptions"))?;
        let tags = tags::specified(params, &["instance", "volume", "network-interface"])?;
        if options.tags_enabled
            && let Some(tags) = tags.get("instance")
        {
            check_tag_keys(tags)?;
        }
        let (subnet, groups) = network(params)?;
        Ok(Self {
            image,
            image_id,
            kind,
            count: count(params)?,
            client_token,
            user_data: user_data(params)?,
            subnet,
            groups,
            group_names: params.list("SecurityGroup"),
            profile: profile(params)?,
            options,
            tags,
            root: root_volume(params)?,
            terminates_on_shutdown: match params.get("InstanceInitiatedShutdownBehavior") {
                None | Some("stop") => false,
                Some("terminate") => true,
                Some(other) => {
                    return Err(invalid("InstanceInitiatedShutdownBehavior", other, ""));
                }
            },
            termination_protected: params.boolean("DisableApiTermination")?.unwrap_or(false),
            zone: params.get("Placement.AvailabilityZone").map(str::to_owned),
        })
    }
}

fn count(params: &Params) -> Result<usize, ApiError> {
    params.required("MinCount")?;
    params.required("MaxCount")?;
    let min = params.number("MinCount")?.unwrap_or(0);
    let max = params.number("MaxCount")?.unwrap_or(0);
    if min < 1 {
        return Err(invalid(
            "minCount",
            &min.to_string(),
            "It must be at least 1.",
        ));
    }
    if max < min {
        return Err(invalid(
            "maxCount",
            &max.to_string(),
            "It must not be smaller than minCount.",
        ));
    }
    // Each instance is a host with processes of its own on this machine.
    const MAX_INSTANCES: i64 = 20;
    if min > MAX_INSTANCES {
        return Err(ApiError::new(
            "InstanceLimitExceeded",
            format!(
                "You have requested more instances ({min}) than the sandbox starts at once ({MAX_INSTANCES})."
            ),
        ));
    }
    Ok(max.min(MAX_INSTANCES) as usize)
}

fn user_data(params: &Params) -> Result<Vec<u8>, ApiError> {
    let Some(encoded) = params.get("UserData") else {
        return Ok(Vec::new());
    };
    let decoded = BASE64_STANDARD.decode(encoded).map_err(|_| {
        ApiError::new(
            "InvalidParameterValue",
            "Invalid BASE64 encoding of user data",
        )
    })?;
    if decoded.len() > MAX_USER_DATA_LENGTH {
        return Err(ApiError::new(
            "InvalidParameterValue",
            "User data is limited to 16384 bytes",
        ));
    }
    Ok(decoded)
}

/// Subnet and groups, which stand in the request itself or in its network interface.
fn network(params: &Params) -> Result<(Option<String>, Vec<String>), ApiError> {
    let own = (
        params.get("SubnetId").map(str::to_owned),
        params.list("SecurityGroupId"),
    );
    let interfaces = params.structures("NetworkInterface");
    let interface = match interfaces.as_slice() {
        [] => return Ok(own),
        [interface] => interface,
        _ => {
            return Err(ApiError::new(
                "UnsupportedOperation",
                "the sandbox gives an instance one network interface",
            ));
        }
    };
    if own.0.is_some() || !own.1.is_empty() || !params.list("SecurityGroup").is_empty() {
        return Err(ApiError::new(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level subnet ID or security groups may not be specified on the same request",
        ));
    }
    if interface.get("DeviceIndex") != Some("0") {
        return Err(invalid(
            "DeviceIndex",
            interface.get("DeviceIndex").unwrap_or_default(),
            "The primary network interface has the device index 0.",
        ));
    }
    Ok((
        interface.get("SubnetId").map(str::to_owned),
        interface.list("SecurityGroupId"),
    ))
}

fn profile(params: &Params) -> Result<Option<ProfileReference>, ApiError> {
    let profile = params.beneath("IamInstanceProfile");
    match (profile.get("Name"), profile.get("Arn")) {
        (None, None) => Ok(None),
        (Some(name), None) => Ok(Some(ProfileReference {
            name: name.to_owned(),
            given_as: "name",
            given: name.to_owned(),
        })),
        (None, Some(arn)) => Ok(Some(ProfileReference {
            name: arn.rsplit('/').next().unwrap_or(arn).to_owned(),
            given_as: "arn",
            given: arn.to_owned(),
        })),
        (Some(_), Some(_)) => Err(ApiError::new(
            "InvalidParameterCombination",
            "The parameter 'iamInstanceProfile.name' may not be used in combination with 'iamInstanceProfile.arn'",
        )),
    }
}

fn root_volume(params: &Params) -> Result<RootVolume, ApiError> {
    let mut root = RootVolume::default();
    for mapping in params.structures("BlockDeviceMapping") {
        let device = mapping.required("DeviceName")?;
        if device != images::ROOT_DEVICE {
            return Err(ApiError::new(
                "UnsupportedOperation",
                format!(
                    "the sandbox gives an instance one volume, at {}",
                    images::ROOT_DEVICE
                ),
            ));
        }
        let ebs = mapping.beneath("Ebs");
        let size_gib = ebs.number("VolumeSize")?;
        if size_gib.is_some_and(|size| size < 8) {
            return Err(ApiError::new(
                "InvalidBlockDeviceMapping",
                "Volume of size less than 8GB is smaller than the image's snapshot, expect size>= 8GB",
            ));
        }
        let kind = ebs.get("VolumeType").map(str::to_owned);
        if let Some(kind) = &kind
            && !matches!(kind.as_str(), "gp2" | "gp3" | "io1" | "io2" | "standard")
        {
            return Err(invalid("volumeType", kind, "Unknown volume type."));
        }
        root = RootVolume {
            encrypted: ebs.boolean("Encrypted")?.unwrap_or(false),
            size_gib,
            kind,
            delete_on_termination: ebs.boolean("DeleteOnTermination")?,
        };
    }
    Ok(root)
}
