//! Roles.

use std::collections::BTreeMap;

use super::{
    ApiError, Call, Kind, Params, Policy, Role, Xml, already_exists, check_tag_count,
    delete_conflict, limit_exceeded, name, no_such_entity, page, path, role_arn, tags, validation,
    write_tags,
};
use crate::cloud::iso;
use crate::random;

pub(super) const MAX_ROLE_NAME_LENGTH: usize = 64;
const MAX_TRUST_POLICY_SIZE: usize = 2048;

/// The role of a request, after the caller was allowed to do `action` to it.
pub(super) fn find<'a>(
    call: &'a mut Call,
    params: &Params,
    action: &str,
) -> Result<(String, &'a mut Role), ApiError> {
    let name = name(params, "RoleName", MAX_ROLE_NAME_LENGTH)?.to_owned();
    let (resource, about) = match call.state.iam.roles.get(&name) {
        Some(role) => (role_arn(&role.path, &name), role.context()),
        None => (role_arn("/", &name), Default::default()),
    };
    call.authorize(&format!("iam:{action}"), &resource, &about)?;
    match call.state.iam.roles.get_mut(&name) {
        Some(role) => Ok((name, role)),
        None => Err(no_such_entity(format!(
            "The role with name {name} cannot be found."
        ))),
    }
}

pub(super) fn create(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let name = name(params, "RoleName", MAX_ROLE_NAME_LENGTH)?.to_owned();
    let path = path(params)?;
    let tags = tags(params)?;
    let mut about = super::Context::default();
    about.set_tags("aws:RequestTag", &tags);
    call.authorize("iam:CreateRole", &role_arn(&path, &name), &about)?;
    if !tags.is_empty() {
        call.authorize("iam:TagRole", &role_arn(&path, &name), &about)?;
    }
    let trust = trust(params, "AssumeRolePolicyDocument")?;
    let max_session_seconds = params.number("MaxSessionDuration")?.unwrap_or(3600);
    if !(3600..=43200).contains(&max_session_seconds) {
        return Err(validation(
            "1 validation error detected: Value at 'maxSessionDuration' failed to satisfy constraint: Member must have value \
             between 3600 and 43200",
        ));
    }
    let mut names = call.state.iam.roles.keys();
    if names.any(|held| held.eq_ignore_ascii_case(&name)) {
        return Err(already_exists(format!(
            "Role with name {name} already exists."
        )));
    }
    let role = Role {
        id: format!("AROA{}", random::upper(17)),
        path,
        created: call.now,
        tags,
        last_used: None,
        description: params.get("Description").map(str::to_owned),
        max_session_seconds,
        trust,
        inline: BTreeMap::new(),
        attached: BTreeMap::new(),
    };
    let mut xml = Xml::default();
    xml.element("Role", |xml| write(xml, &name, &role, true));
    call.state.iam.roles.insert(name, role);
    Ok(xml)
}

fn trust(params: &Params, key: &str) -> Result<Policy, ApiError> {
    let text = params.get(key).unwrap_or_default();
    let policy = Policy::parse(text, Kind::Trust)?;
    if policy.size() > MAX_TRUST_POLICY_SIZE {
        return Err(limit_exceeded(format!(
            "Cannot exceed quota for ACLSizePerRole: {MAX_TRUST_POLICY_SIZE}"
        )));
    }
    Ok(policy)
}

pub(super) fn get(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let (name, role) = find(call, params, "GetRole")?;
    let mut xml = Xml::default();
    xml.element("Role", |xml| {
        write(xml, &name, role, true);
        write_last_used(xml, role);
    });
    Ok(xml)
}

pub(super) fn list(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    call.authorize_plain("iam:ListRoles", &role_arn("/", ""))?;
    let prefix = params.get("PathPrefix").unwrap_or("/");
    let roles: Vec<(&String, &Role)> = call
        .state
        .iam
        .roles
        .iter()
        .filter(|(_, role)| role.path.starts_with(prefix))
        .collect();
    let mut xml = Xml::default();
    let roles = page(params, roles, &mut xml)?;
    // Lists leave the tags out, as IAM does.
    xml.list("Roles", "member", roles, |xml, (name, role)| {
        write(xml, name, role, false);
    });
    Ok(xml)
}

pub(super) fn update_trust(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let (_, role) = find(call, params, "UpdateAssumeRolePolicy")?;
    role.trust = trust(params, "PolicyDocument")?;
    Ok(Xml::default())
}

pub(super) fn delete(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let (name, role) = find(call, params, "DeleteRole")?;
    if !role.attached.is_empty() {
        return Err(delete_conflict(
            "Cannot delete entity, must detach all policies first.",
        ));
    }
    if !role.inline.is_empty() {
        return Err(delete_conflict(
            "Cannot delete entity, must delete policies first.",
        ));
    }
    let mut profiles = call.state.iam.profiles.values();
    if profiles.any(|profile| profile.role.as_ref().is_some_and(|(role, _)| *role == name)) {
        return Err(delete_conflict(
            "Cannot delete entity, must remove roles from instance profile first.",
        ));
    }
    call.state.iam.roles.remove(&name);
    Ok(Xml::default())
}

pub(super) fn tag(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let new = tags(params)?;
    let (_, role) = find(call, params, "TagRole")?;
    merge_tags(&mut role.tags, new)?;
    Ok(Xml::default())
}

pub(super) fn untag(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let keys = params.list("TagKeys.member");
    let (_, role) = find(call, params, "UntagRole")?;
    role.tags.retain(|key, _| !keys.contains(key));
    Ok(Xml::default())
}

/// Adds tags; keys that differ in case only are the same.
pub(super) fn merge_tags(
    held: &mut BTreeMap<String, String>,
    new: BTreeMap<String, String>,
) -> Result<(), ApiError> {
    let mut merged = held.clone();
    merged.retain(|key, _| !new.keys().any(|new| new.eq_ignore_ascii_case(key)));
    merged.extend(new);
    check_tag_count(&merged)?;
    *held = merged;
    Ok(())
}

pub(super) fn list_tags(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let (_, role) = find(call, params, "ListRoleTags")?;
    let mut xml = Xml::default();
    write_tags(&mut xml, &role.tags);
    xml.text("IsTruncated", false);
    Ok(xml)
}

/// Empty for a role that was never used.
pub(super) fn write_last_used(xml: &mut Xml, role: &Role) {
    xml.element("RoleLastUsed", |xml| {
        if let Some((at, region)) = &role.last_used {
            xml.text("LastUsedDate", iso(*at)).text("Region", region);
        }
    });
}

/// The members of a role.
pub(super) fn write(xml: &mut Xml, name: &str, role: &Role, whole: bool) {
    xml.text("Path", &role.path)
        .text("RoleName", name)
        .text("RoleId", &role.id)
        .text("Arn", role_arn(&role.path, name))
        .text("CreateDate", iso(role.created))
        .text("AssumeRolePolicyDocument", role.trust.encoded())
        .optional("Description", role.description.as_ref())
        .text("MaxSessionDuration", role.max_session_seconds);
    if whole && !role.tags.is_empty() {
        write_tags(xml, &role.tags);
    }
}
