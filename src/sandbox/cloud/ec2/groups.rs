//! Security groups.

use std::collections::BTreeMap;

use super::rules::{Peer, Rule, all_egress, write_rules};
use super::{
    ACCOUNT, ApiError, Call, Context, Params, PowerState, Store, Xml, authorize, authorize_list,
    dry_run, filter, page, stable_id, tags, write_tags,
};
use crate::random;

/// A security group.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub id: String,
    pub name: String,
    description: String,
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
}

/// The group that every VPC has: its members may talk to each other.
pub(super) fn default_group(region: &str, vpc: &str) -> Group {
    let id = stable_id("sg", region, vpc);
    Group {
        name: "default".to_owned(),
        description: "default VPC security group".to_owned(),
        ingress: vec![Rule {
            protocol: "-1".to_owned(),
            ports: None,
            peer: Peer::Group(id.clone()),
        }],
        egress: vec![all_egress()],
        id,
    }
}

pub(super) fn not_found(id: &str) -> ApiError {
    ApiError::new(
        "InvalidGroup.NotFound",
        format!("The security group '{id}' does not exist"),
    )
}

impl Store {
    /// The group of an id, or EC2's error.
    pub(super) fn require_group(&self, id: &str) -> Result<&Group, ApiError> {
        if !id.starts_with("sg-") {
            return Err(ApiError::new(
                "InvalidGroupId.Malformed",
                format!("Invalid id: \"{id}\" (expecting \"sg-...\")"),
            ));
        }
        self.groups.get(id).ok_or_else(|| not_found(id))
    }

    pub(super) fn group_by_name(&self, name: &str) -> Option<&Group> {
        self.groups.values().find(|group| group.name == name)
    }

    fn require_vpc(&self, id: &str) -> Result<(), ApiError> {
        if id == self.vpc {
            return Ok(());
        }
        Err(ApiError::new(
            "InvalidVpcID.NotFound",
            format!("The vpc ID '{id}' does not exist"),
        ))
    }
}

pub(super) fn create(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let name = params.required("GroupName")?.to_owned();
    let description = params.required("GroupDescription")?.to_owned();
    let charset = |c: char| c.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(c);
    for (key, value) in [("GroupName", &name), ("GroupDescription", &description)] {
        if value.len() > 255 || !value.chars().all(charset) {
            return Err(super::invalid(
                key,
                value,
                "Character sets beyond ASCII are not supported.",
            ));
        }
    }
    if name.starts_with("sg-") || name == "default" {
        return Err(super::invalid(
            "GroupName",
            &name,
            "Group names may not be in the format sg-*, nor `default`.",
        ));
    }
    let new_tags = tags::specified(params, &["security-group"])?
        .remove("security-group")
        .unwrap_or_default();
    let mut about = Context::default();
    about.set_tags("aws:RequestTag", &new_tags);
    let resource = call.arn("security-group/*");
    call.authorize("ec2:CreateSecurityGroup", &resource, &about)?;
    if !new_tags.is_empty() {
        about.set("ec2:CreateAction", "CreateSecurityGroup");
        call.authorize("ec2:CreateTags", &resource, &about)?;
    }
    let store = &mut call.region().ec2;
    if let Some(vpc) = params.get("VpcId") {
        store.require_vpc(vpc)?;
    }
    if store.group_by_name(&name).is_some() {
        return Err(ApiError::new(
            "InvalidGroup.Duplicate",
            format!(
                "The security group '{name}' already exists for VPC '{}'",
                store.vpc
            ),
        ));
    }
    dry_run(params)?;
    let id = format!("sg-0{}", random::hex(16));
    let mut xml = Xml::default();
    xml.text("return", true).text("groupId", &id);
    write_tags(&mut xml, &new_tags);
    xml.text(
        "securityGroupArn",
        format!("arn:aws:ec2:{}:{ACCOUNT}:security-group/{id}", store.region),
    );
    store.tags.insert(id.clone(), new_tags);
    let group = Group {
        id: id.clone(),
        name,
        description,
        ingress: Vec::new(),
        egress: vec![all_egress()],
    };
    store.groups.insert(id, group);
    Ok(xml)
}

pub(super) fn describe(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    authorize_list(call, "DescribeSecurityGroups")?;
    let store = &call.region().ec2;
    let ids = params.list("GroupId");
    for id in &ids {
        store.require_group(id)?;
    }
    let names = params.list("GroupName");
    if let Some(unknown) = names
        .iter()
        .find(|name| store.group_by_name(name).is_none())
    {
        return Err(ApiError::new(
            "InvalidGroup.NotFound",
            format!(
                "The security group '{unknown}' does not exist in default VPC '{}'",
                store.vpc
            ),
        ));
    }
    let filters = filter::read(params);
    let mut shown = Vec::new();
    for group in store.groups.values() {
        let tags = store.tags_of(&group.id);
        let passes = filter::passes(&filters, &tags, |name| {
            Some(vec![match name {
                "group-id" => group.id.clone(),
                "group-name" => group.name.clone(),
                "vpc-id" => store.vpc.clone(),
                "description" => group.description.clone(),
                "owner-id" => ACCOUNT.to_owned(),
                _ => return None,
            }])
        })?;
        let listed = (ids.is_empty() || ids.contains(&group.id))
            && (names.is_empty() || names.contains(&group.name));
        if passes && listed {
            shown.push((group, tags));
        }
    }
    let (shown, token) = page(params, shown, 5..=1000)?;
    let mut xml = Xml::default();
    xml.list("securityGroupInfo", "item", shown, |xml, (group, tags)| {
        xml.text("ownerId", ACCOUNT)
            .text("groupId", &group.id)
            .text("groupName", &group.name)
            .text("groupDescription", &group.description)
            .text("vpcId", &store.vpc);
        write_rules(xml, "ipPermissions", &group.ingress);
        write_rules(xml, "ipPermissionsEgress", &group.egress);
        write_tags(xml, &tags);
    })
    .optional("nextToken", token);
    Ok(xml)
}

pub(super) fn delete(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let id = target(call, params)?;
    authorize(call, "DeleteSecurityGroup", "security-group", &id)?;
    let store = &mut call.region().ec2;
    if store.require_group(&id)?.name == "default" {
        return Err(ApiError::new(
            "CannotDelete",
            format!("the specified group: \"{id}\" name: \"default\" cannot be deleted by a user"),
        ));
    }
    let used = store
        .instances
        .values()
        .any(|instance| instance.groups.contains(&id) && instance.state != PowerState::Terminated);
    let referenced = store.groups.values().any(|group| {
        let mut rules = group.ingress.iter().chain(&group.egress);
        group.id != id && rules.any(|rule| rule.peer == Peer::Group(id.clone()))
    });
    if used || referenced {
        return Err(ApiError::new(
            "DependencyViolation",
            format!("resource {id} has a dependent object"),
        ));
    }
    dry_run(params)?;
    store.groups.remove(&id);
    store.tags.remove(&id);
    let mut xml = Xml::default();
    xml.text("return", true).text("groupId", id);
    Ok(xml)
}

/// The group of a request, by id or by name.
pub(super) fn target(call: &mut Call, params: &Params) -> Result<String, ApiError> {
    let store = &call.region().ec2;
    match (params.get("GroupId"), params.get("GroupName")) {
        (Some(id), _) => Ok(store.require_group(id)?.id.clone()),
        (None, Some(name)) => store
            .group_by_name(name)
            .map(|group| group.id.clone())
            .ok_or_else(|| not_found(name)),
        (None, None) => Err(ApiError::new(
            "MissingParameter",
            "The request must contain the parameter groupName or groupId",
        )),
    }
}

/// The names of some groups, for answers about instances.
pub(super) fn names(groups: &BTreeMap<String, Group>, ids: &[String]) -> Vec<(String, String)> {
    ids.iter()
        .filter_map(|id| Some((id.clone(), groups.get(id)?.name.clone())))
        .collect()
}
