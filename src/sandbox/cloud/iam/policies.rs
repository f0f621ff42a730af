//! Policies of roles: inline, and AWS's own attached.

use super::roles::find;
use super::{
    ApiError, Call, Kind, Params, Policy, Xml, limit_exceeded, managed, name, no_such_entity, page,
};

const MAX_POLICY_NAME_LENGTH: usize = 128;
/// Of all inline policies of a role together, white space not counted.
const MAX_INLINE_SIZE: usize = 10_240;
const MAX_ATTACHED: usize = 10;

pub(super) fn put(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let policy_name = name(params, "PolicyName", MAX_POLICY_NAME_LENGTH)?.to_owned();
    let (role_name, role) = find(call, params, "PutRolePolicy")?;
    let policy = Policy::parse(
        params.get("PolicyDocument").unwrap_or_default(),
        Kind::Identity,
    )?;
    let others = role.inline.iter().filter(|(name, _)| **name != policy_name);
    let size: usize = others.map(|(_, policy)| policy.size()).sum();
    if size + policy.size() > MAX_INLINE_SIZE {
        return Err(limit_exceeded(format!(
            "Maximum policy size of {MAX_INLINE_SIZE} bytes exceeded for role {role_name}"
        )));
    }
    role.inline.insert(policy_name, policy);
    Ok(Xml::default())
}

pub(super) fn get(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let policy_name = name(params, "PolicyName", MAX_POLICY_NAME_LENGTH)?.to_owned();
    let (role_name, role) = find(call, params, "GetRolePolicy")?;
    let policy = role
        .inline
        .get(&policy_name)
        .ok_or_else(|| missing(&policy_name))?;
    let mut xml = Xml::default();
    xml.text("RoleName", role_name)
        .text("PolicyName", policy_name)
        .text("PolicyDocument", policy.encoded());
    Ok(xml)
}

pub(super) fn delete(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let policy_name = name(params, "PolicyName", MAX_POLICY_NAME_LENGTH)?.to_owned();
    let (_, role) = find(call, params, "DeleteRolePolicy")?;
    role.inline
        .remove(&policy_name)
        .ok_or_else(|| missing(&policy_name))?;
    Ok(Xml::default())
}

fn missing(policy_name: &str) -> ApiError {
    no_such_entity(format!(
        "The role policy with name {policy_name} cannot be found."
    ))
}

pub(super) fn list(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let (_, role) = find(call, params, "ListRolePolicies")?;
    let mut xml = Xml::default();
    let names = page(params, role.inline.keys().collect(), &mut xml)?;
    xml.element("PolicyNames", |xml| {
        for name in names {
            xml.text("member", name);
        }
    });
    Ok(xml)
}

pub(super) fn attach(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let arn = params.required("PolicyArn")?.to_owned();
    let (_, role) = find(call, params, "AttachRolePolicy")?;
    let text = managed::policy(&arn).ok_or_else(|| {
        no_such_entity(format!("Policy {arn} does not exist or is not attachable."))
    })?;
    if role.attached.len() >= MAX_ATTACHED && !role.attached.contains_key(&arn) {
        return Err(limit_exceeded(format!(
            "Cannot exceed quota for PoliciesPerRole: {MAX_ATTACHED}"
        )));
    }
    role.attached
        .insert(arn, Policy::parse(text, Kind::Identity)?);
    Ok(Xml::default())
}

pub(super) fn detach(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let arn = params.required("PolicyArn")?.to_owned();
    let (_, role) = find(call, params, "DetachRolePolicy")?;
    role.attached
        .remove(&arn)
        .ok_or_else(|| no_such_entity(format!("Policy {arn} was not found.")))?;
    Ok(Xml::default())
}

pub(super) fn list_attached(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let (_, role) = find(call, params, "ListAttachedRolePolicies")?;
    let mut xml = Xml::default();
    let arns = page(params, role.attached.keys().collect(), &mut xml)?;
    xml.list("AttachedPolicies", "member", arns, |xml, arn| {
        xml.text("PolicyName", arn.rsplit('/').next().unwrap_or(arn))
            .text("PolicyArn", arn);
    });
    Ok(xml)
}
