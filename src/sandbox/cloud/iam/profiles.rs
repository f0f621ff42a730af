//! Instance profiles.

use std::collections::BTreeMap;

use super::roles::{MAX_ROLE_NAME_LENGTH, merge_tags};
use super::{
    ApiError, Call, Context, Params, Profile, Store, Xml, already_exists, delete_conflict,
    limit_exceeded, name, no_such_entity, page, path, profile_arn, role_arn, roles, tags,
    write_tags,
};
use crate::cloud::iso;
use crate::random;

const MAX_PROFILE_NAME_LENGTH: usize = 128;

fn find<'a>(
    call: &'a mut Call,
    params: &Params,
    action: &str,
) -> Result<(String, &'a mut Profile), ApiError> {
    let name = name(params, "InstanceProfileName", MAX_PROFILE_NAME_LENGTH)?.to_owned();
    let mut about = Context::default();
    let held = call.state.iam.profiles.get(&name);
    if let Some(profile) = held {
        about.set_tags("aws:ResourceTag", &profile.tags);
    }
    let resource = profile_arn(held.map_or("/", |profile| &profile.path), &name);
    call.authorize(&format!("iam:{action}"), &resource, &about)?;
    match call.state.iam.profiles.get_mut(&name) {
        Some(profile) => Ok((name, profile)),
        None => Err(no_such_entity(format!(
            "Instance Profile {name} cannot be found."
        ))),
    }
}

pub(super) fn create(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let name = name(params, "InstanceProfileName", MAX_PROFILE_NAME_LENGTH)?.to_owned();
    let path = path(params)?;
    let tags = tags(params)?;
    let mut about = Context::default();
    about.set_tags("aws:RequestTag", &tags);
    call.authorize(
        "iam:CreateInstanceProfile",
        &profile_arn(&path, &name),
        &about,
    )?;
    if !tags.is_empty() {
        call.authorize("iam:TagInstanceProfile", &profile_arn(&path, &name), &about)?;
    }
    let mut names = call.state.iam.profiles.keys();
    if names.any(|held| held.eq_ignore_ascii_case(&name)) {
        return Err(already_exists(format!(
            "Instance Profile {name} already exists."
        )));
    }
    let profile = Profile {
        id: format!("AIPA{}", random::upper(17)),
        path,
        created: call.now,
        tags,
        role: None,
    };
    call.state.iam.profiles.insert(name.clone(), profile);
    Ok(answer(&call.state.iam, &name))
}

pub(super) fn get(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let (name, _) = find(call, params, "GetInstanceProfile")?;
    Ok(answer(&call.state.iam, &name))
}

pub(super) fn list(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    call.authorize_plain("iam:ListInstanceProfiles", &profile_arn("/", ""))?;
    let prefix = params.get("PathPrefix").unwrap_or("/").to_owned();
    write_list(&call.state.iam, params, |profile| {
        profile.path.starts_with(&prefix)
    })
}

pub(super) fn list_for_role(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let (role, _) = roles::find(call, params, "ListInstanceProfilesForRole")?;
    write_list(&call.state.iam, params, |profile| {
        profile.role.as_ref().is_some_and(|(held, _)| *held == role)
    })
}

fn write_list(
    store: &Store,
    params: &Params,
    wanted: impl Fn(&Profile) -> bool,
) -> Result<Xml, ApiError> {
    let names: Vec<&String> = store
        .profiles
        .iter()
        .filter(|(_, profile)| wanted(profile))
        .map(|(name, _)| name)
        .collect();
    let mut xml = Xml::default();
    let names = page(params, names, &mut xml)?;
    xml.list("InstanceProfiles", "member", names, |xml, name| {
        write(xml, store, name, false);
    });
    Ok(xml)
}

pub(super) fn add_role(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let role = name(params, "RoleName", MAX_ROLE_NAME_LENGTH)?.to_owned();
    find(call, params, "AddRoleToInstanceProfile")?;
    let role_path = match call.state.iam.roles.get(&role) {
        Some(held) => held.path.clone(),
        None => {
            return Err(no_such_entity(format!(
                "The role with name {role} cannot be found."
            )));
        }
    };
    call.authorize_plain("iam:PassRole", &role_arn(&role_path, &role))?;
    let now = call.now;
    let (_, profile) = find(call, params, "AddRoleToInstanceProfile")?;
    if profile.role.is_some() {
        return Err(limit_exceeded(
            "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1".to_owned(),
        ));
    }
    profile.role = Some((role, now));
    Ok(Xml::default())
}

pub(super) fn remove_role(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let role = name(params, "RoleName", MAX_ROLE_NAME_LENGTH)?.to_owned();
    let (_, profile) = find(call, params, "RemoveRoleFromInstanceProfile")?;
    if profile.role.as_ref().is_none_or(|(held, _)| *held != role) {
        return Err(no_such_entity(format!(
            "The role with name {role} cannot be found."
        )));
    }
    profile.role = None;
    Ok(Xml::default())
}

pub(super) fn delete(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let (name, profile) = find(call, params, "DeleteInstanceProfile")?;
    if profile.role.is_some() {
        return Err(delete_conflict(
            "Cannot delete entity, must remove roles from instance profile first.",
        ));
    }
    call.state.iam.profiles.remove(&name);
    Ok(Xml::default())
}

pub(super) fn tag(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let new: BTreeMap<String, String> = tags(params)?;
    let (_, profile) = find(call, params, "TagInstanceProfile")?;
    merge_tags(&mut profile.tags, new)?;
    Ok(Xml::default())
}

pub(super) fn untag(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let keys = params.list("TagKeys.member");
    let (_, profile) = find(call, params, "UntagInstanceProfile")?;
    profile.tags.retain(|key, _| !keys.contains(key));
    Ok(Xml::default())
}

pub(super) fn list_tags(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let (_, profile) = find(call, params, "ListInstanceProfileTags")?;
    let mut xml = Xml::default();
    write_tags(&mut xml, &profile.tags);
    xml.text("IsTruncated", false);
    Ok(xml)
}

fn answer(store: &Store, name: &str) -> Xml {
    let mut xml = Xml::default();
    xml.element("InstanceProfile", |xml| write(xml, store, name, true));
    xml
}

pub(super) fn write(xml: &mut Xml, store: &Store, name: &str, whole: bool) {
    let Some(profile) = store.profiles.get(name) else {
        return;
    };
    xml.text("Path", &profile.path)
        .text("InstanceProfileName", name)
        .text("InstanceProfileId", &profile.id)
        .text("Arn", profile_arn(&profile.path, name))
        .text("CreateDate", iso(profile.created));
    let role = profile
        .role
        .as_ref()
        .and_then(|(role, _)| Some((role, store.roles.get(role)?)));
    xml.list("Roles", "member", role, |xml, (name, role)| {
        roles::write(xml, name, role, false);
    });
    if whole && !profile.tags.is_empty() {
        write_tags(xml, &profile.tags);
    }
}
