//! Regions, zones, the default VPC and its subnets.

use std::collections::BTreeMap;

use super::{
    ACCOUNT, ApiError, Call, Params, REGIONS, Store, Xml, authorize_list, filter, page, stable_id,
    write_tags,
};

const VPC_CIDR: &str = "172.31.0.0/16";

/// A subnet of the default VPC.
#[derive(Debug, Clone)]
pub(super) struct Subnet {
    pub id: String,
    pub zone: String,
    /// Third number of its addresses: 172.31.`block`.0/20.
    pub block: u8,
}

impl Subnet {
    fn cidr(&self) -> String {
        format!("172.31.{}.0/20", self.block)
    }
}

/// The names of a region's zones.
pub(super) fn zones(region: &str) -> Vec<String> {
    ["a", "b", "c"]
        .map(|letter| format!("{region}{letter}"))
        .into()
}

/// One subnet a zone, as in an account's default VPC.
pub(super) fn default_subnets(region: &str) -> Vec<Subnet> {
    zones(region)
        .into_iter()
        .zip([0, 16, 32])
        .map(|(zone, block)| Subnet {
            id: stable_id("subnet", region, &zone),
            zone,
            block,
        })
        .collect()
}

impl Store {
    /// The subnet of an id, or EC2's error.
    pub(super) fn require_subnet(&self, id: &str) -> Result<&Subnet, ApiError> {
        self.subnets
            .iter()
            .find(|subnet| subnet.id == id)
            .ok_or_else(|| {
                ApiError::new(
                    "InvalidSubnetID.NotFound",
                    format!("The subnet ID '{id}' does not exist"),
                )
            })
    }

    /// An address of a subnet that no instance had before, as its last two numbers.
    pub(super) fn take_address(&mut self, subnet: &Subnet) -> (u8, u8) {
        // The first four addresses of a subnet are AWS's own; ten looks like what people know.
        let number = 10 + self.next_address;
        self.next_address = (self.next_address + 1) % (16 * 256 - 20);
        (subnet.block + (number / 256) as u8, (number % 256) as u8)
    }
}

pub(super) fn describe_vpcs(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    authorize_list(call, "DescribeVpcs")?;
    let store = &call.region().ec2;
    let ids = params.list("VpcId");
    if let Some(unknown) = ids.iter().find(|id| **id != store.vpc) {
        return Err(ApiError::new(
            "InvalidVpcID.NotFound",
            format!("The vpc ID '{unknown}' does not exist"),
        ));
    }
    let tags = store.tags_of(&store.vpc);
    let passes = filter::passes(&filter::read(params), &tags, |name| {
        Some(vec![match name {
            "vpc-id" => store.vpc.clone(),
            "is-default" | "isDefault" => "true".to_owned(),
            "state" => "available".to_owned(),
            "cidr" => VPC_CIDR.to_owned(),
            "owner-id" => ACCOUNT.to_owned(),
            _ => return None,
        }])
    })?;
    let mut xml = Xml::default();
    xml.list("vpcSet", "item", passes.then_some(()), |xml, ()| {
        xml.text("vpcId", &store.vpc)
            .text("ownerId", ACCOUNT)
            .text("state", "available")
            .text("cidrBlock", VPC_CIDR)
            .text("dhcpOptionsId", stable_id("dopt", &store.region, "default"))
            .text("instanceTenancy", "default")
            .text("isDefault", true);
        write_tags(xml, &tags);
    });
    Ok(xml)
}

pub(super) fn describe_subnets(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    authorize_list(call, "DescribeSubnets")?;
    let store = &call.region().ec2;
    let ids = params.list("SubnetId");
    for id in &ids {
        store.require_subnet(id)?;
    }
    let filters = filter::read(params);
    let mut shown = Vec::new();
    for subnet in &store.subnets {
        let tags = store.tags_of(&subnet.id);
        let passes = filter::passes(&filters, &tags, |name| {
            Some(vec![match name {
                "subnet-id" => subnet.id.clone(),
                "vpc-id" => store.vpc.clone(),
                "availability-zone" | "availabilityZone" => subnet.zone.clone(),
                "default-for-az" | "defaultForAz" => "true".to_owned(),
                "state" => "available".to_owned(),
                "map-public-ip-on-launch" => "true".to_owned(),
                _ => return None,
            }])
        })?;
        if passes && (ids.is_empty() || ids.contains(&subnet.id)) {
            shown.push((subnet, tags));
        }
    }
    let (shown, token) = page(params, shown, 5..=1000)?;
    let mut xml = Xml::default();
    xml.list("subnetSet", "item", shown, |xml, (subnet, tags)| {
        xml.text("subnetId", &subnet.id)
            .text(
                "subnetArn",
                format!(
                    "arn:aws:ec2:{}:{ACCOUNT}:subnet/{}",
                    store.region, subnet.id
                ),
            )
            .text("state", "available")
            .text("ownerId", ACCOUNT)
            .text("vpcId", &store.vpc)
            .text("cidrBlock", subnet.cidr())
            .text("availableIpAddressCount", 4091)
            .text("availabilityZone", &subnet.zone)
            .text("defaultForAz", true)
            .text("mapPublicIpOnLaunch", true);
        write_tags(xml, &tags);
    })
    .optional("nextToken", token);
    Ok(xml)
}

pub(super) fn describe_regions(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    authorize_list(call, "DescribeRegions")?;
    let names = params.list("RegionName");
    if let Some(unknown) = names.iter().find(|name| !REGIONS.contains(&name.as_str())) {
        return Err(ApiError::new(
            "InvalidParameterValue",
            format!("Invalid region provided: {unknown}"),
        ));
    }
    let filters = filter::read(params);
    let mut shown = Vec::new();
    for region in REGIONS {
        let endpoint = format!("ec2.{region}.amazonaws.com");
        let passes = filter::passes(&filters, &BTreeMap::new(), |name| {
            Some(vec![match name {
                "region-name" => region.to_owned(),
                "endpoint" => endpoint.clone(),
                "opt-in-status" => "opt-in-not-required".to_owned(),
                _ => return None,
            }])
        })?;
        if passes && (names.is_empty() || names.iter().any(|name| name == region)) {
            shown.push((region, endpoint));
        }
    }
    let mut xml = Xml::default();
    xml.list("regionInfo", "item", shown, |xml, (region, endpoint)| {
        xml.text("regionName", region)
            .text("regionEndpoint", endpoint)
            .text("optInStatus", "opt-in-not-required");
    });
    Ok(xml)
}

pub(super) fn describe_zones(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    authorize_list(call, "DescribeAvailabilityZones")?;
    let region = call.region.clone();
    let filters = filter::read(params);
    let mut shown = Vec::new();
    for zone in zones(&region) {
        let passes = filter::passes(&filters, &BTreeMap::new(), |name| {
            Some(vec![match name {
                "zone-name" => zone.clone(),
                "region-name" => region.clone(),
                "state" => "available".to_owned(),
                _ => return None,
            }])
        })?;
        if passes {
            shown.push(zone);
        }
    }
    let mut xml = Xml::default();
    xml.list("availabilityZoneInfo", "item", shown, |xml, zone| {
        xml.text("zoneName", zone)
            .text("zoneState", "available")
            .text("regionName", &region)
            .text("zoneType", "availability-zone");
    });
    Ok(xml)
}
