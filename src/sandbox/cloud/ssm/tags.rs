//! Tags of parameters.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, Call, Parameter, Tag, arn, validation};

const MAX_TAGS: usize = 50;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Add {
    resource_type: String,
    resource_id: String,
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Remove {
    resource_type: String,
    resource_id: String,
    tag_keys: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct List {
    resource_type: String,
    resource_id: String,
}

/// Checks a set of tags against the rules for keys and values.
pub(super) fn check(tags: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if tags.len() > MAX_TAGS {
        return Err(ApiError::new(
            "TooManyTagsError",
            format!("The number of tags exceeds the limit of {MAX_TAGS}."),
        ));
    }
    let charset = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
    for (key, value) in tags {
        let lengths = (1..=128).contains(&key.chars().count()) && value.chars().count() <= 256;
        if !lengths || !key.chars().all(charset) || !value.chars().all(charset) {
            return Err(validation(format!(
                "The tag {} is not valid: keys have 1 to 128 characters, values at most 256, of letters, digits, spaces \
                 and _.:/=+-@",
                key.escape_debug()
            )));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(validation(format!(
                "The tag key {key} is not valid: keys that begin with aws: are reserved."
            )));
        }
    }
    Ok(())
}

pub(super) fn add(call: &mut Call, input: Add) -> Result<Value, ApiError> {
    let new: BTreeMap<String, String> = input
        .tags
        .into_iter()
        .map(|tag| (tag.key, tag.value))
        .collect();
    let parameter = find(
        call,
        "ssm:AddTagsToResource",
        &input.resource_type,
        &input.resource_id,
        &new,
    )?;
    check(&new)?;
    let mut merged = parameter.tags.clone();
    merged.extend(new);
    check(&merged)?;
    parameter.tags = merged;
    Ok(json!({}))
}

pub(super) fn remove(call: &mut Call, input: Remove) -> Result<Value, ApiError> {
    let parameter = find(
        call,
        "ssm:RemoveTagsFromResource",
        &input.resource_type,
        &input.resource_id,
        &BTreeMap::new(),
    )?;
    parameter
        .tags
        .retain(|key, _| !input.tag_keys.contains(key));
    Ok(json!({}))
}

pub(super) fn list(call: &mut Call, input: List) -> Result<Value, ApiError> {
    let parameter = find(
        call,
        "ssm:ListTagsForResource",
        &input.resource_type,
        &input.resource_id,
        &BTreeMap::new(),
    )?;
    let tags: Vec<Value> = parameter
        .tags
        .iter()
        .map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect();
    Ok(json!({ "TagList": tags }))
}

fn find<'a>(
    call: &'a mut Call,
    action: &str,
    kind: &str,
    id: &str,
    new: &BTreeMap<String, String>,
) -> Result<&'a mut Parameter, ApiError> {
    if kind != "Parameter" {
        return Err(ApiError::new(
            "InvalidResourceType",
            format!("the sandbox tags resources of the type Parameter only, not {kind}"),
        ));
    }
    let mut about = match call.region().ssm.parameters.get(id) {
        Some(parameter) => parameter.context(),
        None => Default::default(),
    };
    about.set_tags("aws:RequestTag", new);
    let resource = arn(call, id);
    call.authorize(action, &resource, &about)?;
    call.region()
        .ssm
        .parameters
        .get_mut(id)
        .ok_or_else(|| ApiError::new("InvalidResourceId", "The resource ID isn't valid."))
}
