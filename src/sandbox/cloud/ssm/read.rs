//! Reading values.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

use super::describe::{self, Filter};
use super::name::{self, Selector};
use super::{
    ApiError, Call, Context, DEFAULT_KEY, Kind, Parameter, Version, arn, epoch, not_found, page,
    page_size, public_parameters, validation, with_token,
};
use crate::fault::Fault;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct GetOne {
    name: String,
    #[serde(default)]
    with_decryption: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct GetMany {
    names: Vec<String>,
    #[serde(default)]
    with_decryption: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct ByPath {
    path: String,
    #[serde(default)]
    recursive: bool,
    #[serde(default)]
    with_decryption: bool,
    #[serde(default)]
    parameter_filters: Vec<Filter>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct History {
    name: String,
    #[serde(default)]
    with_decryption: bool,
    max_results: Option<usize>,
    next_token: Option<String>,
}

pub(super) fn get_one(call: &mut Call, input: GetOne) -> Result<Value, ApiError> {
    let selector = name::selector(&input.name)?;
    let (parameter, version) = select(call, "ssm:GetParameter", &selector)?;
    let _ = parameter;
    let shown = show(call, &selector, &version, input.with_decryption);
    Ok(json!({ "Parameter": shown }))
}

pub(super) fn get_many(call: &mut Call, input: GetMany) -> Result<Value, ApiError> {
    if input.names.is_empty() || input.names.len() > 10 {
        return Err(validation(format!(
            "1 validation error detected: Value '{:?}' at 'names' failed to satisfy constraint: Member must have length \
             less than or equal to 10",
            input.names
        )));
    }
    let mut found = Vec::new();
    let mut invalid = Vec::new();
    for text in &input.names {
        let selector = name::selector(text)?;
        match select(call, "ssm:GetParameters", &selector) {
            Ok((_, version)) => found.push(show(call, &selector, &version, input.with_decryption)),
            Err(error) if error.code.starts_with("Parameter") => invalid.push(text),
            Err(error) => return Err(error),
        }
    }
    Ok(json!({"Parameters": found, "InvalidParameters": invalid}))
}

pub(super) fn by_path(call: &mut Call, input: ByPath) -> Result<Value, ApiError> {
    if !input.path.starts_with('/') {
        return Err(validation(
            "The parameter doesn't meet the parameter name requirements. The parameter name must begin with a forward \
             slash \"/\". It can't be prefixed with \"aws\" or \"ssm\" (case-insensitive).",
        ));
    }
    let resource = arn(call, input.path.trim_end_matches('/'));
    call.authorize("ssm:GetParametersByPath", &resource, &Context::default())?;
    let size = page_size(input.max_results, 10)?;
    let public = input.path.starts_with("/aws/");
    let public = public.then(|| public_parameters(&call.region));
    let all = match &public {
        Some(public) => public,
        None => &call.region().ssm.parameters,
    };
    // As at AWS, pages are cut before the filter is applied, so that a page may be empty and have a successor.
    let (candidates, token) = page(all.iter().collect(), input.next_token.as_deref(), size)?;
    let candidates: Vec<(String, Parameter)> = candidates
        .into_iter()
        .map(|(name, parameter)| (name.clone(), parameter.clone()))
        .collect();
    let mut shown = Vec::new();
    for (name, parameter) in &candidates {
        if describe::is_beneath(name, &input.path, input.recursive)
            && describe::matches(name, parameter, &input.parameter_filters)?
        {
            let selector = Selector {
                name: name.clone(),
                version: None,
                text: None,
            };
            shown.push(show(
                call,
                &selector,
                parameter.current(),
                input.with_decryption,
            ));
        }
    }
    Ok(with_token(json!({ "Parameters": shown }), token))
}

pub(super) fn history(call: &mut Call, input: History) -> Result<Value, ApiError> {
    let selector = name::selector(&input.name)?;
    let (parameter, _) = select(call, "ssm:GetParameterHistory", &selector)?;
    let size = page_size(input.max_results, 50)?;
    let (versions, token) = page(parameter.versions, input.next_token.as_deref(), size)?;
    let shown: Vec<Value> = versions
        .iter()
        .map(|version| {
            let mut shown = describe::details(call, &selector.name, version);
            shown["Value"] = json!(value(&selector.name, version, input.with_decryption));
            shown["Labels"] = json!([]);
            shown
        })
        .collect();
    Ok(with_token(json!({ "Parameters": shown }), token))
}

/// Finds what a reader asked for, if the reader may have it.
fn select(
    call: &mut Call,
    action: &str,
    selector: &Selector,
) -> Result<(Parameter, Version), ApiError> {
    let hidden = call.caller.is_host()
        && call.has_fault(Fault::ParameterMissing)
        && selector.name.ends_with("/brain-key");
    let parameter = if selector.name.starts_with("/aws/") {
        public_parameters(&call.region).remove(&selector.name)
    } else {
        call.region().ssm.parameters.get(&selector.name).cloned()
    };
    let parameter = parameter.filter(|_| !hidden);
    let about = parameter
        .as_ref()
        .map(Parameter::context)
        .unwrap_or_default();
    let resource = arn(call, &selector.name);
    call.authorize(action, &resource, &about)?;
    let parameter = parameter.ok_or_else(not_found)?;
    let version = match selector.version {
        None => parameter.current().clone(),
        Some(number) => parameter
            .versions
            .iter()
            .find(|version| version.number == number)
            .cloned()
            .ok_or_else(|| {
                ApiError::new(
                    "ParameterVersionNotFound",
                    format!(
                        "Systems Manager could not find version {number} of {}. Verify the version and try again.",
                        selector.name
                    ),
                )
            })?,
    };
    Ok((parameter, version))
}

fn show(call: &Call, selector: &Selector, version: &Version, decrypt: bool) -> Value {
    let mut shown = json!({
        "Name": selector.name,
        "Type": version.kind.name(),
        "Value": value(&selector.name, version, decrypt),
        "Version": version.number,
        "LastModifiedDate": epoch(version.modified),
        "ARN": arn(call, &selector.name),
        "DataType": version.data_type,
    });
    if let Some(text) = &selector.text {
        shown["Selector"] = json!(text);
    }
    shown
}

/// The value; of a SecureString without decryption something that looks like its ciphertext and reveals nothing.
fn value(name: &str, version: &Version, decrypt: bool) -> String {
    if version.kind != Kind::SecureString || decrypt {
        return version.value.clone();
    }
    let seed = format!("{DEFAULT_KEY} {name} {}", version.number);
    let digest = Sha512::digest(seed.as_bytes());
    format!(
        "AQICAH{}",
        BASE64_STANDARD.encode([&digest[..], &digest[..32]].concat())
    )
}
