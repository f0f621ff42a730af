//! Parameters of the query protocols: `Name=…`, `List.1=…`, `Structure.Member=…`.

use std::collections::BTreeMap;

use super::error::ApiError;

/// The parameters of a request, or those beneath one prefix of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Params(BTreeMap<String, String>);

impl Params {
    /// Reads a form body.
    pub fn parse(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    /// The texts of a flat JSON object.
    pub fn of(object: &serde_json::Value) -> Self {
        let members = object.as_object().into_iter().flatten();
        Self(
            members
                .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect(),
        )
    }

    /// One value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// One value that must be there and not be empty.
    pub fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| {
                ApiError::new(
                    "MissingParameter",
                    format!("The request must contain the parameter {name}"),
                )
            })
    }

    /// A value that is `true` or `false`.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some("true" | "True") => Ok(Some(true)),
            Some("false" | "False") => Ok(Some(false)),
            Some(other) => Err(ApiError::new(
                "InvalidParameterValue",
                format!("Value ({other}) for parameter {name} is invalid. Invalid boolean value"),
            )),
        }
    }

    /// A whole number.
    pub fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.get(name)
            .map(|value| {
                value.parse().map_err(|_| {
                    ApiError::new(
                        "InvalidParameterValue",
                        format!("Value ({value}) for parameter {name} is invalid."),
                    )
                })
            })
            .transpose()
    }

    /// What stands beneath `name.`.
    pub fn beneath(&self, name: &str) -> Self {
        let prefix = format!("{name}.");
        Self(
            self.0
                .iter()
                .filter_map(|(key, value)| {
                    Some((key.strip_prefix(&prefix)?.to_owned(), value.clone()))
                })
                .collect(),
        )
    }

    /// The values of a list `name.1`, `name.2`, … in order.
    pub fn list(&self, name: &str) -> Vec<String> {
        let beneath = self.beneath(name);
        let mut items: Vec<(u32, String)> = beneath
            .0
            .into_iter()
            .filter_map(|(key, value)| Some((key.parse().ok()?, value)))
            .collect();
        items.sort_unstable();
        items.into_iter().map(|(_, value)| value).collect()
    }

    /// The structures of a list `name.1.Member`, … in order.
    pub fn structures(&self, name: &str) -> Vec<Self> {
        let beneath = self.beneath(name);
        let mut numbers: Vec<u32> = beneath
            .0
            .keys()
            .filter_map(|key| key.split('.').next()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
            .into_iter()
            .map(|number| beneath.beneath(&number.to_string()))
            .collect()
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The same without some parameters.
    pub fn without(&self, names: &[&str]) -> Self {
        Self(
            self.0
                .iter()
                .filter(|(key, _)| !names.contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_in_numerical_order() {
        let body: String = (1..=11).map(|i| format!("Id.{i}=v{i}&")).collect();
        let ids = Params::parse(body.as_bytes()).list("Id");
        assert_eq!(ids.len(), 11);
        assert_eq!((ids[1].as_str(), ids[10].as_str()), ("v2", "v11"));
        let params =
            Params::parse(b"Tag.2.Key=b&Tag.2.Value=2&Tag.1.Key=a&Tag.1.Value=x%26y&Tagged=1");
        let tags = params.structures("Tag");
        assert_eq!(tags.len(), 2);
        assert_eq!(
            (tags[0].get("Key"), tags[0].get("Value")),
            (Some("a"), Some("x&y"))
        );
    }
}
