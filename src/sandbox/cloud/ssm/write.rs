//! Putting and deleting parameters.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiError, Call, Context, DEFAULT_KEY, Kind, Parameter, Tag, Version, arn, name, not_found,
    tags, validation,
};

/// AWS keeps this many versions of a parameter.
const MAX_VERSIONS: usize = 100;
const MAX_STANDARD_LENGTH: usize = 4096;
const MAX_ADVANCED_LENGTH: usize = 8192;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Put {
    name: String,
    value: String,
    description: Option<String>,
    r#type: Option<Kind>,
    key_id: Option<String>,
    #[serde(default)]
    overwrite: bool,
    #[serde(default)]
    tags: Vec<Tag>,
    tier: Option<String>,
    data_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct DeleteOne {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct DeleteMany {
    names: Vec<String>,
}

pub(super) fn put(call: &mut Call, input: Put) -> Result<Value, ApiError> {
    name::check(&input.name)?;
    let existing = call.region().ssm.parameters.get(&input.name).cloned();
    let new_tags: BTreeMap<String, String> = input
        .tags
        .iter()
        .map(|tag| (tag.key.clone(), tag.value.clone()))
        .collect();
    let resource = arn(call, &input.name);
    let mut about = existing
        .as_ref()
        .map(Parameter::context)
        .unwrap_or_default();
    about.set_tags("aws:RequestTag", &new_tags);
    about.set_all("aws:TagKeys", new_tags.keys().cloned().collect());
    call.authorize("ssm:PutParameter", &resource, &about)?;
    if !new_tags.is_empty() {
        call.authorize("ssm:AddTagsToResource", &resource, &about)?;
    }

    if input.overwrite && !input.tags.is_empty() {
        return Err(validation(
            "Invalid request: tags and overwrite can't be used together. To create a parameter with tags, please remove \
             overwrite flag. To update tags for an existing parameter, please use AddTagsToResource or \
             RemoveTagsFromResource.",
        ));
    }
    tags::check(&new_tags)?;
    let previous = existing
        .as_ref()
        .map(|parameter| parameter.current().clone());
    if previous.is_some() && !input.overwrite {
        return Err(ApiError::new(
            "ParameterAlreadyExists",
            "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.",
        ));
    }
    let kind = input
        .r#type
        .or(previous.as_ref().map(|previous| previous.kind))
        .ok_or_else(|| validation("A parameter type is required when you create a parameter."))?;
    if let Some(key) = &input.key_id {
        if kind != Kind::SecureString {
            return Err(validation(
                "KeyId is allowed for the type SecureString only.",
            ));
        }
        if key != DEFAULT_KEY {
            return Err(ApiError::new(
                "InvalidKeyId",
                format!("the sandbox has no KMS key but {DEFAULT_KEY}"),
            ));
        }
    }
    let tier = check_value(&input.value, input.tier.as_deref())?;
    let data_type = input.data_type.unwrap_or_else(|| "text".to_owned());
    if !matches!(data_type.as_str(), "text" | "aws:ec2:image") {
        return Err(validation(format!(
            "The following data type is not supported: {data_type} (Data type names are all lowercase.)"
        )));
    }

    let version = Version {
        number: previous.as_ref().map_or(1, |previous| previous.number + 1),
        kind,
        value: input.value,
        description: input
            .description
            .or(previous.and_then(|previous| previous.description)),
        tier,
        data_type,
        modified: call.now,
        modified_by: call.caller.arn(),
    };
    let answer = json!({"Version": version.number, "Tier": version.tier});
    let parameter = call
        .region()
        .ssm
        .parameters
        .entry(input.name)
        .or_insert_with(|| Parameter {
            tags: new_tags,
            versions: Vec::new(),
        });
    parameter.versions.push(version);
    if parameter.versions.len() > MAX_VERSIONS {
        parameter.versions.remove(0);
    }
    Ok(answer)
}

/// Checks a value against its tier, and settles the tier.
fn check_value(value: &str, tier: Option<&str>) -> Result<&'static str, ApiError> {
    if value.is_empty() {
        return Err(validation(
            "1 validation error detected: Value '' at 'value' failed to satisfy constraint: Member must have length \
             greater than or equal to 1.",
        ));
    }
    if value.contains("{{") {
        return Err(validation(
            "Parameter value can't nest another parameter. Do not use \"{{}}\" in the value.",
        ));
    }
    let tier = match tier {
        None | Some("Standard") => "Standard",
        Some("Advanced") => "Advanced",
        Some("Intelligent-Tiering") if value.len() > MAX_STANDARD_LENGTH => "Advanced",
        Some("Intelligent-Tiering") => "Standard",
        Some(other) => {
            return Err(validation(format!(
                "1 validation error detected: Value '{other}' at 'tier' failed to satisfy constraint: Member must satisfy \
                 enum value set: [Standard, Advanced, Intelligent-Tiering]"
            )));
        }
    };
    if tier == "Standard" && value.len() > MAX_STANDARD_LENGTH {
        return Err(validation(format!(
            "Standard tier parameters support a maximum parameter value of {MAX_STANDARD_LENGTH} characters. To create a \
             larger parameter value, upgrade the parameter to use the advanced-parameter tier. For more information, see \
             https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html"
        )));
    }
    if value.len() > MAX_ADVANCED_LENGTH {
        return Err(validation(format!(
            "Advanced tier parameters support a maximum parameter value of {MAX_ADVANCED_LENGTH} characters."
        )));
    }
    Ok(tier)
}

pub(super) fn delete_one(call: &mut Call, input: DeleteOne) -> Result<Value, ApiError> {
    authorize_delete(call, "ssm:DeleteParameter", &input.name)?;
    match call.region().ssm.parameters.remove(&input.name) {
        Some(_) => Ok(json!({})),
        None => Err(not_found()),
    }
}

pub(super) fn delete_many(call: &mut Call, input: DeleteMany) -> Result<Value, ApiError> {
    if input.names.is_empty() || input.names.len() > 10 {
        return Err(validation(
            "1 validation error detected: Value at 'names' failed to satisfy constraint: Member must have length between \
             1 and 10",
        ));
    }
    for name in &input.names {
        authorize_delete(call, "ssm:DeleteParameters", name)?;
    }
    let (deleted, invalid): (Vec<String>, Vec<String>) = input
        .names
        .into_iter()
        .partition(|name| call.region().ssm.parameters.remove(name).is_some());
    Ok(json!({"DeletedParameters": deleted, "InvalidParameters": invalid}))
}

fn authorize_delete(call: &mut Call, action: &str, name: &str) -> Result<(), ApiError> {
    let about = match call.region().ssm.parameters.get(name) {
        Some(parameter) => parameter.context(),
        None => Context::default(),
    };
    let resource = arn(call, name);
    call.authorize(action, &resource, &about)
}
