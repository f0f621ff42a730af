//! `Filter.N` of the describing calls.

use std::collections::BTreeMap;

use super::{ApiError, Params};
use crate::cloud::policy::pattern::Pattern;

/// One filter: a name, and values of which one must match.
pub(super) struct Filter {
    name: String,
    values: Vec<Pattern>,
}

/// Reads the filters of a request.
pub(super) fn read(params: &Params) -> Vec<Filter> {
    params
        .structures("Filter")
        .iter()
        .map(|filter| Filter {
            name: filter.get("Name").unwrap_or_default().to_owned(),
            values: filter
                .list("Value")
                .iter()
                .map(|value| Pattern::plain(value))
                .collect(),
        })
        .collect()
}

/// Whether a resource passes every filter. `attribute` gives the values of a resource under a filter's name, or none when
/// there is no such filter; tags are seen to here.
pub(super) fn passes(
    filters: &[Filter],
    tags: &BTreeMap<String, String>,
    attribute: impl Fn(&str) -> Option<Vec<String>>,
) -> Result<bool, ApiError> {
    for filter in filters {
        let actual = if let Some(key) = filter.name.strip_prefix("tag:") {
            tags.get(key).cloned().into_iter().collect()
        } else if filter.name == "tag-key" {
            tags.keys().cloned().collect()
        } else {
            attribute(&filter.name).ok_or_else(|| {
                ApiError::new(
                    "InvalidParameterValue",
                    format!(
                        "The filter '{}' is invalid, or the sandbox does not know it",
                        filter.name.escape_debug()
                    ),
                )
            })?
        };
        let wanted = |value: &String| filter.values.iter().any(|pattern| pattern.matches(value));
        if !actual.iter().any(wanted) {
            return Ok(false);
        }
    }
    Ok(true)
}
