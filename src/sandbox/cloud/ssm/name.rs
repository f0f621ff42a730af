//! Names of parameters.

use super::{ApiError, validation};

/// Longest name, counted with the parameter's ARN (1011 characters are left for the name itself).
const MAX_NAME_LENGTH: usize = 1011;
const MAX_LEVELS: usize = 15;

/// Checks the name of a parameter that is to be written.
pub(super) fn check(name: &str) -> Result<(), ApiError> {
    if name.is_empty() || name.len() > MAX_NAME_LENGTH {
        return Err(validation(format!(
            "1 validation error detected: Value at 'name' failed to satisfy constraint: Member must have length between 1 \
             and {MAX_NAME_LENGTH}"
        )));
    }
    let lower = name.trim_start_matches('/').to_ascii_lowercase();
    if lower.starts_with("aws") {
        return Err(ApiError::new(
            "AccessDeniedException",
            format!("No access to reserved parameter name: {name}."),
        ));
    }
    let charset = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    if lower.starts_with("ssm") || !name.chars().all(charset) {
        return Err(validation(
            "Parameter name: can't be prefixed with \"ssm\" (case-insensitive). If formed as a path, it can consist of \
             sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the following \
             3 symbols .-_",
        ));
    }
    if name.contains('/') && !name.starts_with('/') {
        return Err(validation("Parameter name must be a fully qualified name."));
    }
    if name.ends_with('/') || name.contains("//") {
        return Err(validation(format!(
            "Parameter name must not end with a slash or hold an empty sub-path: {name}"
        )));
    }
    if name.trim_start_matches('/').split('/').count() > MAX_LEVELS {
        return Err(ApiError::new(
            "HierarchyLevelLimitExceededException",
            format!("Hierarchy can have a maximum of {MAX_LEVELS} levels; parameter name: {name}"),
        ));
    }
    Ok(())
}

/// What a reader asked for: a name, and perhaps a version (`name:3`).
pub(super) struct Selector {
    pub name: String,
    pub version: Option<u64>,
    /// `:3`, as it is given back.
    pub text: Option<String>,
}

/// Reads a name, an ARN, or either with a version.
pub(super) fn selector(text: &str) -> Result<Selector, ApiError> {
    let name = match text.strip_prefix("arn:") {
        Some(arn) => arn
            .splitn(5, ':')
            .nth(4)
            .and_then(|resource| resource.strip_prefix("parameter"))
            .ok_or_else(|| validation(format!("Invalid parameter ARN: {text}")))?,
        None => text,
    };
    match name.split_once(':') {
        None => Ok(Selector {
            name: name.to_owned(),
            version: None,
            text: None,
        }),
        Some((name, version)) => Ok(Selector {
            name: name.to_owned(),
            version: Some(version.parse().map_err(|_| {
                ApiError::new(
                    "ParameterVersionNotFound",
                    format!(
                        "Systems Manager could not find version {version} of {name}. Verify the version and try again."
                    ),
                )
            })?),
            text: Some(format!(":{version}")),
        }),
    }
}
