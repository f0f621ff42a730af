//! IAM: roles, their policies, and instance profiles.

mod details;
mod managed;
mod policies;
mod profiles;
mod roles;

use std::collections::BTreeMap;

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::Call;
use super::error::{ApiError, Service};
use super::identity::ACCOUNT;
use super::policy::{Context, Document, Kind, trusts_service};
use super::query::Params;
use super::xml::Xml;

/// Everything of IAM, which is global.
#[derive(Debug, Default)]
pub(crate) struct Store {
    /// By name.
    pub roles: BTreeMap<String, Role>,
    /// By name.
    pub profiles: BTreeMap<String, Profile>,
}

/// A role.
#[derive(Debug, Clone)]
pub(crate) struct Role {
    pub id: String,
    pub path: String,
    pub created: Timestamp,
    pub tags: BTreeMap<String, String>,
    /// When and in which region a host last called something with it.
    pub last_used: Option<(Timestamp, String)>,
    description: Option<String>,
    max_session_seconds: i64,
    trust: Policy,
    inline: BTreeMap<String, Policy>,
    /// By ARN.
    attached: BTreeMap<String, Policy>,
}

/// A policy as given, and read.
#[derive(Debug, Clone)]
struct Policy {
    text: String,
    document: Document,
}

/// An instance profile.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    id: String,
    path: String,
    created: Timestamp,
    tags: BTreeMap<String, String>,
    /// The role and when it was added.
    role: Option<(String, Timestamp)>,
}

/// How EC2 sees an instance profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProfileView {
    /// Not there, or not yet known to EC2.
    Unknown,
    /// There without a role, or EC2 does not know of the role yet.
    WithoutRole { arn: String },
    /// Ready.
    Ready(ReadyProfile),
}

/// An instance profile that an instance can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadyProfile {
    pub name: String,
    pub id: String,
    pub arn: String,
    pub role: String,
}

impl Policy {
    fn parse(text: &str, kind: Kind) -> Result<Self, ApiError> {
        let document = Document::parse(text, kind)
            .map_err(|error| ApiError::new("MalformedPolicyDocument", error.to_string()))?;
        Ok(Self {
            text: text.to_owned(),
            document,
        })
    }

    /// The size that IAM counts: without white space.
    fn size(&self) -> usize {
        self.text.chars().filter(|c| !c.is_whitespace()).count()
    }

    /// As IAM answers it.
    fn encoded(&self) -> String {
        percent_encoding::utf8_percent_encode(&self.text, percent_encoding::NON_ALPHANUMERIC)
            .to_string()
    }
}

impl Role {
    /// The policies that say what the role may do.
    pub fn policies(&self) -> impl Iterator<Item = &Document> {
        self.inline
            .values()
            .chain(self.attached.values())
            .map(|policy| &policy.document)
    }

    /// Whether EC2 may assume the role for an instance.
    pub fn trusts_ec2(&self) -> bool {
        trusts_service(&self.trust.document, "ec2.amazonaws.com")
    }

    fn context(&self) -> Context {
        let mut context = Context::default();
        context.set_tags("aws:ResourceTag", &self.tags);
        context.set_tags("iam:ResourceTag", &self.tags);
        context
    }
}

impl Store {
    /// How EC2 sees a profile at `now`, given how long IAM's changes take to reach it.
    pub fn profile_for_ec2(
        &self,
        name: &str,
        now: Timestamp,
        delay: std::time::Duration,
    ) -> ProfileView {
        let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
        let arrived = |change: Timestamp| now.duration_since(change) >= delay;
        let Some(profile) = self.profiles.get(name).filter(|p| arrived(p.created)) else {
            return ProfileView::Unknown;
        };
        let arn = profile_arn(&profile.path, name);
        match &profile.role {
            Some((role, added)) if arrived(*added) => ProfileView::Ready(ReadyProfile {
                name: name.to_owned(),
                id: profile.id.clone(),
                arn,
                role: role.clone(),
            }),
            _ => ProfileView::WithoutRole { arn },
        }
    }

    /// The role of a profile as the metadata service sees it.
    pub fn role_of_profile(&self, profile: &str) -> Option<(&str, &Role)> {
        let (name, _) = self.profiles.get(profile)?.role.as_ref()?;
        Some((name, self.roles.get(name)?))
    }
}

/// Handles one call.
pub(crate) fn handle(call: &mut Call, action: &str, params: &Params) -> Result<Xml, ApiError> {
    match action {
        "GetAccountAuthorizationDetails" => details::all(call, params),
        "CreateRole" => roles::create(call, params),
        "GetRole" => roles::get(call, params),
        "ListRoles" => roles::list(call, params),
        "UpdateAssumeRolePolicy" => roles::update_trust(call, params),
        "DeleteRole" => roles::delete(call, params),
        "TagRole" => roles::tag(call, params),
        "UntagRole" => roles::untag(call, params),
        "ListRoleTags" => roles::list_tags(call, params),
        "PutRolePolicy" => policies::put(call, params),
        "GetRolePolicy" => policies::get(call, params),
        "DeleteRolePolicy" => policies::delete(call, params),
        "ListRolePolicies" => policies::list(call, params),
        "AttachRolePolicy" => policies::attach(call, params),
        "DetachRolePolicy" => policies::detach(call, params),
        "ListAttachedRolePolicies" => policies::list_attached(call, params),
        "CreateInstanceProfile" => profiles::create(call, params),
        "GetInstanceProfile" => profiles::get(call, params),
        "ListInstanceProfiles" => profiles::list(call, params),
        "ListInstanceProfilesForRole" => profiles::list_for_role(call, params),
        "AddRoleToInstanceProfile" => profiles::add_role(call, params),
        "RemoveRoleFromInstanceProfile" => profiles::remove_role(call, params),
        "DeleteInstanceProfile" => profiles::delete(call, params),
        "TagInstanceProfile" => profiles::tag(call, params),
        "UntagInstanceProfile" => profiles::untag(call, params),
        "ListInstanceProfileTags" => profiles::list_tags(call, params),
        _ => Err(ApiError::unknown_action(Service::Iam, action)),
    }
}

/// The ARN of a role.
pub(crate) fn role_arn(path: &str, name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role{path}{name}")
}

fn profile_arn(path: &str, name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:instance-profile{path}{name}")
}

fn validation(message: impl Into<String>) -> ApiError {
    ApiError::validation(Service::Iam, message)
}

fn no_such_entity(message: String) -> ApiError {
    ApiError::with_status(StatusCode::NOT_FOUND, "NoSuchEntity", message)
}

fn already_exists(message: String) -> ApiError {
    ApiError::with_status(StatusCode::CONFLICT, "EntityAlreadyExists", message)
}

fn delete_conflict(message: &str) -> ApiError {
    ApiError::with_status(StatusCode::CONFLICT, "DeleteConflict", message)
}

fn limit_exceeded(message: String) -> ApiError {
    ApiError::with_status(StatusCode::CONFLICT, "LimitExceeded", message)
}

/// A required name of the given longest length.
fn name<'a>(params: &'a Params, key: &str, max: usize) -> Result<&'a str, ApiError> {
    // In messages IAM writes the member's name with a small first letter.
    let member = format!("{}{}", key[..1].to_ascii_lowercase(), &key[1..]);
    let value = params.get(key).ok_or_else(|| {
        validation(format!(
            "1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not be null"
        ))
    })?;
    if value.is_empty() || value.len() > max {
        let bound = if value.is_empty() {
            "greater than or equal to 1".to_owned()
        } else {
            format!("less than or equal to {max}")
        };
        return Err(validation(format!(
            "1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must have length {bound}"
        )));
    }
    let charset = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
    if !value.chars().all(charset) {
        return Err(validation(format!(
            "The specified value for {member} is invalid. It must contain only alphanumeric characters and/or the \
             following: +=,.@_-"
        )));
    }
    Ok(value)
}

fn path(params: &Params) -> Result<String, ApiError> {
    let path = params.get("Path").unwrap_or("/");
    let valid = path.starts_with('/')
        && path.ends_with('/')
        && path.len() <= 512
        && path.chars().all(|c| c.is_ascii_graphic());
    if valid {
        Ok(path.to_owned())
    } else {
        Err(validation(
            "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters \
             and/or / characters.",
        ))
    }
}

fn tags(params: &Params) -> Result<BTreeMap<String, String>, ApiError> {
    let mut tags: BTreeMap<String, String> = BTreeMap::new();
    for tag in params.structures("Tags.member") {
        let key = tag.get("Key").unwrap_or_default();
        let value = tag.get("Value").unwrap_or_default();
        let charset = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
        let lengths = (1..=128).contains(&key.chars().count()) && value.chars().count() <= 256;
        if !lengths || !key.chars().all(charset) || !value.chars().all(charset) {
            return Err(validation(format!(
                "1 validation error detected: Value at 'tags' failed to satisfy constraint: the tag {} is not valid",
                key.escape_debug()
            )));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(ApiError::new(
                "InvalidInput",
                "User tag keys cannot begin with reserved keyword 'aws'",
            ));
        }
        if tags.keys().any(|held| held.eq_ignore_ascii_case(key)) {
            return Err(ApiError::new(
                "InvalidInput",
                "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
            ));
        }
        tags.insert(key.to_owned(), value.to_owned());
    }
    check_tag_count(&tags)?;
    Ok(tags)
}

fn check_tag_count(tags: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if tags.len() > 50 {
        return Err(limit_exceeded(
            "The number of tags has reached the maximum limit.".to_owned(),
        ));
    }
    Ok(())
}

fn write_tags(xml: &mut Xml, tags: &BTreeMap<String, String>) {
    xml.list("Tags", "member", tags, |xml, (key, value)| {
        xml.text("Key", key).text("Value", value);
    });
}

/// One page of a list, by `Marker` and `MaxItems`; says in the answer whether it goes on.
fn page<T>(params: &Params, things: Vec<T>, xml: &mut Xml) -> Result<Vec<T>, ApiError> {
    let size = params.number("MaxItems")?.unwrap_or(100);
    let size = usize::try_from(size)
        .ok()
        .filter(|size| (1..=1000).contains(size))
        .ok_or_else(|| {
            validation(
                "1 validation error detected: Value at 'maxItems' failed to satisfy constraint",
            )
        })?;
    let start = match params.get("Marker") {
        None => 0,
        Some(marker) => marker
            .strip_prefix("sandbox-page-")
            .and_then(|position| position.parse::<usize>().ok())
            .ok_or_else(|| validation("The marker is not valid."))?,
    };
    let end = start.saturating_add(size);
    xml.text("IsTruncated", end < things.len());
    if end < things.len() {
        xml.text("Marker", format!("sandbox-page-{end}"));
    }
    Ok(things.into_iter().skip(start).take(size).collect())
}
