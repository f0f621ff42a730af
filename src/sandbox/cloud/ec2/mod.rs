//! EC2: instances, their network, and tags.

mod filter;
mod groups;
mod host;
mod images;
mod instance;
mod instances;
mod launch;
mod launch_input;
mod lifecycle;
mod metadata_options;
mod network;
mod rules;
mod tags;
mod types;

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};

use super::Call;
use super::error::{ApiError, Service};
use super::identity::ACCOUNT;
use super::policy::Context;
use super::query::Params;
use super::xml::Xml;
use crate::random::hexadecimal;
pub(crate) use host::{Down, HostCredentials, HostView};
pub(crate) use images::PUBLIC_IMAGES;
use instance::Instance;
use instance::PowerState;

/// Regions that calls may be for: those that every account has.
pub(crate) const REGIONS: [&str; 17] = [
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];

/// Everything of EC2 in one region.
#[derive(Debug)]
pub(crate) struct Store {
    region: String,
    vpc: String,
    subnets: Vec<network::Subnet>,
    groups: BTreeMap<String, groups::Group>,
    instances: BTreeMap<String, Instance>,
    /// Tags of every resource, by its id.
    tags: BTreeMap<String, BTreeMap<String, String>>,
    launches: HashMap<String, launch::Launch>,
    next_address: u32,
}

impl Store {
    /// A region as every account finds it: one default VPC with a subnet in each zone.
    pub fn new(region: &str) -> Self {
        let vpc = stable_id("vpc", region, "default");
        let subnets = network::default_subnets(region);
        let group = groups::default_group(region, &vpc);
        Self {
            region: region.to_owned(),
            vpc,
            subnets,
            groups: BTreeMap::from([(group.id.clone(), group)]),
            instances: BTreeMap::new(),
            tags: BTreeMap::new(),
            launches: HashMap::new(),
            next_address: 0,
        }
    }

    /// The tags of a resource.
    fn tags_of(&self, id: &str) -> BTreeMap<String, String> {
        self.tags.get(id).cloned().unwrap_or_default()
    }
}

/// An id that is the same in every sandbox.
fn stable_id(prefix: &str, region: &str, name: &str) -> String {
    let digest = Sha256::digest(format!("{prefix} {region} {name}").as_bytes());
    format!("{prefix}-{}", &hexadecimal(&digest)[..17])
}

/// Handles one call.
pub(crate) fn handle(call: &mut Call, action: &str, params: &Params) -> Result<Xml, ApiError> {
    match action {
        "RunInstances" => launch::run(call, params),
        "DescribeInstances" => instances::describe(call, params),
        "DescribeInstanceStatus" => instances::describe_status(call, params),
        "DescribeInstanceAttribute" => instances::describe_attribute(call, params),
        "GetConsoleOutput" => instances::console_output(call, params),
        "DescribeVolumes" => instances::describe_volumes(call, params),
        "TerminateInstances" => lifecycle::terminate(call, params),
        "StopInstances" => lifecycle::stop(call, params),
        "StartInstances" | "RebootInstances" => lifecycle::cannot_boot_again(call, action, params),
        "ModifyInstanceMetadataOptions" => metadata_options::modify(call, params),
        "CreateTags" => tags::create(call, params),
        "DeleteTags" => tags::delete(call, params),
        "DescribeTags" => tags::describe(call, params),
        "CreateSecurityGroup" => groups::create(call, params),
        "DescribeSecurityGroups" => groups::describe(call, params),
        "DeleteSecurityGroup" => groups::delete(call, params),
        "AuthorizeSecurityGroupIngress" => rules::change(call, params, action),
        "AuthorizeSecurityGroupEgress" => rules::change(call, params, action),
        "RevokeSecurityGroupIngress" => rules::change(call, params, action),
        "RevokeSecurityGroupEgress" => rules::change(call, params, action),
        "DescribeVpcs" => network::describe_vpcs(call, params),
        "DescribeSubnets" => network::describe_subnets(call, params),
        "DescribeRegions" => network::describe_regions(call, params),
        "DescribeAvailabilityZones" => network::describe_zones(call, params),
        "DescribeImages" => images::describe(call, params),
        "DescribeInstanceTypes" => types::describe(call, params),
        "DescribeInstanceTypeOfferings" => types::describe_offerings(call, params),
        _ => Err(ApiError::unknown_action(Service::Ec2, action)),
    }
}

fn invalid(name: &str, value: &str, why: &str) -> ApiError {
    ApiError::new(
        "InvalidParameterValue",
        format!("Value ({value}) for parameter {name} is invalid. {why}"),
    )
}

/// Ends a call whose `DryRun` is set, as EC2 does when the call would have succeeded: with an error.
fn dry_run(params: &Params) -> Result<(), ApiError> {
    if params.boolean("DryRun")? == Some(true) {
        return Err(ApiError::with_status(
            http::StatusCode::PRECONDITION_FAILED,
            "DryRunOperation",
            "Request would have succeeded, but DryRun flag is set.",
        ));
    }
    Ok(())
}

/// Asks for permission to do `action` to the resource of this id, with its tags as context.
fn authorize(call: &mut Call, action: &str, kind: &str, id: &str) -> Result<(), ApiError> {
    let tags = call.region().ec2.tags_of(id);
    let mut about = Context::default();
    about.set_tags("aws:ResourceTag", &tags);
    about.set_tags("ec2:ResourceTag", &tags);
    let resource = call.arn(&format!("{kind}/{id}"));
    call.authorize(&format!("ec2:{action}"), &resource, &about)
}

/// Asks for permission to list, which EC2 does not scope by resource.
fn authorize_list(call: &mut Call, action: &str) -> Result<(), ApiError> {
    call.authorize_plain(&format!("ec2:{action}"), "*")
}

/// One page of a list, by `NextToken` and `MaxResults`, and the token of the next page.
fn page<T>(
    params: &Params,
    things: Vec<T>,
    range: std::ops::RangeInclusive<i64>,
) -> Result<(Vec<T>, Option<String>), ApiError> {
    let size = match params.number("MaxResults")? {
        None => usize::MAX,
        Some(size) if range.contains(&size) => size as usize,
        Some(size) => {
            let bounds = format!(
                "Expecting a value between {} and {}.",
                range.start(),
                range.end()
            );
            return Err(invalid("maxResults", &size.to_string(), &bounds));
        }
    };
    let start = match params.get("NextToken").filter(|token| !token.is_empty()) {
        None => 0,
        Some(token) => token
            .strip_prefix("sandbox-page-")
            .and_then(|position| position.parse::<usize>().ok())
            .ok_or_else(|| invalid("NextToken", token, "The token is not valid."))?,
    };
    let end = start.saturating_add(size);
    let next = (end < things.len()).then(|| format!("sandbox-page-{end}"));
    Ok((things.into_iter().skip(start).take(size).collect(), next))
}

fn write_tags(xml: &mut Xml, tags: &BTreeMap<String, String>) {
    xml.list("tagSet", "item", tags, |xml, (key, value)| {
        xml.text("key", key).text("value", value);
    });
}
