//! Everything about every role at once.

use super::{ApiError, Call, Params, Profile, Role, Xml, page, profiles, roles, write_tags};

/// The kinds of things that a filter of this call names; the sandbox has roles only.
const ENTITY_TYPES: [&str; 5] = [
    "User",
    "Role",
    "Group",
    "LocalManagedPolicy",
    "AWSManagedPolicy",
];

pub(super) fn all(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    call.authorize_plain("iam:GetAccountAuthorizationDetails", "*")?;
    let filter = params.list("Filter.member");
    if let Some(unknown) = filter
        .iter()
        .find(|kind| !ENTITY_TYPES.contains(&kind.as_str()))
    {
        return Err(super::validation(format!(
            "1 validation error detected: Value '[{}]' at 'filter' failed to satisfy constraint: Member must satisfy enum \
             value set: [{}]",
            unknown.escape_debug(),
            ENTITY_TYPES.join(", ")
        )));
    }
    let wanted = filter.is_empty() || filter.iter().any(|kind| kind == "Role");
    let store = &call.state.iam;
    let roles: Vec<(&String, &Role)> = store.roles.iter().filter(|_| wanted).collect();
    let mut xml = Xml::default();
    let roles = page(params, roles, &mut xml)?;
    for empty in ["UserDetailList", "GroupDetailList", "Policies"] {
        xml.element(empty, |_| {});
    }
    xml.list("RoleDetailList", "member", roles, |xml, (name, role)| {
        let held_in: Vec<&String> = store
            .profiles
            .iter()
            .filter(|(_, profile)| holds(profile, name))
            .map(|(profile, _)| profile)
            .collect();
        roles::write(xml, name, role, false);
        write_tags(xml, &role.tags);
        roles::write_last_used(xml, role);
        xml.list(
            "RolePolicyList",
            "member",
            &role.inline,
            |xml, (name, policy)| {
                xml.text("PolicyName", name)
                    .text("PolicyDocument", policy.encoded());
            },
        )
        .list(
            "AttachedManagedPolicies",
            "member",
            role.attached.keys(),
            |xml, arn| {
                xml.text("PolicyName", arn.rsplit('/').next().unwrap_or(arn))
                    .text("PolicyArn", arn);
            },
        )
        .list("InstanceProfileList", "member", held_in, |xml, profile| {
            profiles::write(xml, store, profile, false);
        });
    });
    Ok(xml)
}

fn holds(profile: &Profile, role: &str) -> bool {
    profile.role.as_ref().is_some_and(|(held, _)| held == role)
}
