//! Describing parameters without their values, and the filters of lists.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiError, Call, DEFAULT_KEY, Kind, Parameter, Version, arn, epoch, page, page_size, validation,
    with_token,
};

/// One of `ParameterFilters`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Filter {
    key: String,
    option: Option<String>,
    #[serde(default)]
    values: Vec<String>,
}

/// One of the older `Filters`, which match the beginning of a name.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct OldFilter {
    key: String,
    values: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Describe {
    #[serde(default)]
    filters: Vec<OldFilter>,
    #[serde(default)]
    parameter_filters: Vec<Filter>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

pub(super) fn describe(call: &mut Call, input: Describe) -> Result<Value, ApiError> {
    let resource = call.arn("*");
    call.authorize_plain("ssm:DescribeParameters", &resource)?;
    let size = page_size(input.max_results, 50)?;
    let mut filters = input.parameter_filters;
    if !filters.is_empty() && !input.filters.is_empty() {
        return Err(validation(
            "You can use either Filters or ParameterFilters in a single request.",
        ));
    }
    filters.extend(input.filters.into_iter().map(|old| {
        Filter {
            option: Some(
                if old.key == "Name" {
                    "BeginsWith"
                } else {
                    "Equals"
                }
                .to_owned(),
            ),
            key: old.key,
            values: old.values,
        }
    }));
    let mut passing = Vec::new();
    for (name, parameter) in &call.region().ssm.parameters {
        if matches(name, parameter, &filters)? {
            passing.push((name, parameter.current()));
        }
    }
    let (page, token) = page(passing, input.next_token.as_deref(), size)?;
    let page: Vec<(String, Version)> = page
        .into_iter()
        .map(|(name, version)| (name.clone(), version.clone()))
        .collect();
    let shown: Vec<Value> = page
        .iter()
        .map(|(name, version)| details(call, name, version))
        .collect();
    Ok(with_token(json!({ "Parameters": shown }), token))
}

/// What is told about a version besides its value.
pub(super) fn details(call: &Call, name: &str, version: &Version) -> Value {
    let mut shown = json!({
        "Name": name,
        "ARN": arn(call, name),
        "Type": version.kind.name(),
        "LastModifiedDate": epoch(version.modified),
        "LastModifiedUser": version.modified_by,
        "Version": version.number,
        "Tier": version.tier,
        "Policies": [],
        "DataType": version.data_type,
    });
    if version.kind == Kind::SecureString {
        shown["KeyId"] = json!(DEFAULT_KEY);
    }
    if let Some(description) = &version.description {
        shown["Description"] = json!(description);
    }
    shown
}

/// Whether a name lies beneath a path: directly, or at any depth.
pub(super) fn is_beneath(name: &str, path: &str, recursive: bool) -> bool {
    let Some(rest) = name.strip_prefix(path.trim_end_matches('/')) else {
        return false;
    };
    rest.strip_prefix('/')
        .is_some_and(|rest| recursive || !rest.contains('/'))
}

/// Whether a parameter passes all filters.
pub(super) fn matches(
    name: &str,
    parameter: &Parameter,
    filters: &[Filter],
) -> Result<bool, ApiError> {
    for filter in filters {
        if !matches_one(name, parameter, filter)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn matches_one(name: &str, parameter: &Parameter, filter: &Filter) -> Result<bool, ApiError> {
    let current = parameter.current();
    let option = filter
        .option
        .as_deref()
        .unwrap_or(match filter.key.as_str() {
            "Path" => "OneLevel",
            _ => "Equals",
        });
    let invalid = || {
        ApiError::new(
            "InvalidFilterOption",
            format!(
                "The following filter option is not valid: {option}. Valid options depend on the key {}.",
                filter.key
            ),
        )
    };
    let values = || filter.values.iter();
    let equals = |actual: &str| match option {
        "Equals" => Ok(values().any(|value| value == actual)),
        "BeginsWith" => Ok(values().any(|value| actual.starts_with(value.as_str()))),
        _ => Err(invalid()),
    };
    if filter.values.is_empty() && !filter.key.starts_with("tag:") {
        return Err(ApiError::new(
            "InvalidFilterValue",
            "The filter value is empty.",
        ));
    }
    match filter.key.as_str() {
        "Name" if option == "Contains" => Ok(values().any(|value| name.contains(value.as_str()))),
        // Names without hierarchy are found with and without a slash.
        "Name" => Ok(equals(name)? || equals(name.trim_start_matches('/'))?),
        "Path" => match option {
            "OneLevel" | "Recursive" => {
                let recursive = option == "Recursive";
                Ok(values().any(|path| is_beneath(name, path, recursive)))
            }
            _ => Err(invalid()),
        },
        "Type" => equals(current.kind.name()),
        "Tier" => equals(current.tier),
        "DataType" => equals(&current.data_type),
        "KeyId" => Ok(current.kind == Kind::SecureString && equals(DEFAULT_KEY)?),
        key => match key.strip_prefix("tag:") {
            Some(tag) => match parameter.tags.get(tag) {
                Some(_) if filter.values.is_empty() => Ok(true),
                Some(value) => equals(value),
                None => Ok(false),
            },
            None => Err(ApiError::new(
                "InvalidFilterKey",
                format!("The specified key isn't valid: {key}"),
            )),
        },
    }
}
