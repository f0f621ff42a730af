//! Stored keys of a whole fleet, read ten at a time and only when they have changed.

use std::collections::HashMap;

use futures::StreamExt as _;

use super::words;
use crate::aws::Aws;
use crate::aws::fleet::MAX_NAMES;
use crate::aws::ssm::ParameterInfo;
use crate::secret::SecretString;

/// Reads under way at once: Parameter Store serves 40 a second by default.
const READS_AT_ONCE: usize = 8;

/// Keys that were read, by their parameters' names, each with the version it is of.
#[derive(Default)]
pub struct Keys(HashMap<String, (i64, SecretString)>);

impl Keys {
    /// The key in a parameter, where it was read.
    pub fn get(&self, parameter: &ParameterInfo) -> Option<&SecretString> {
        let (version, value) = self.0.get(&parameter.name)?;
        (*version == parameter.version).then_some(value)
    }

    /// Reads those that are not known in their present version, and forgets all others; gives the names of those that could
    /// not be read, and why.
    pub async fn read<'p>(
        &mut self,
        aws: &Aws,
        parameters: impl Iterator<Item = &'p ParameterInfo>,
    ) -> HashMap<String, String> {
        let wanted: HashMap<&str, i64> = parameters
            .map(|parameter| (parameter.name.as_str(), parameter.version))
            .collect();
        self.0
            .retain(|name, (version, _)| wanted.get(name.as_str()) == Some(version));
        let mut missing: Vec<String> = wanted
            .keys()
            .filter(|name| !self.0.contains_key(**name))
            .map(|name| (*name).to_owned())
            .collect();
        missing.sort_unstable();
        let reads = missing
            .chunks(MAX_NAMES)
            .map(|names| async move { (names, aws.parameter_values(names).await) });
        let mut reads = futures::stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        let mut unread = HashMap::new();
        let mut first = None;
        while let Some((names, values)) = reads.next().await {
            match values {
                Ok(values) => {
                    for (name, value) in values {
                        let version = wanted.get(name.as_str()).copied().unwrap_or_default();
                        self.0.insert(name, (version, value));
                    }
                }
                Err(error) => {
                    // AWS names one of ten parameters; what is refused for one is refused for all, and said once.
                    let why = first.get_or_insert_with(|| {
                        format!("stored keys cannot be read: {}", words(&error))
                    });
                    unread.extend(names.iter().map(|name| (name.clone(), why.clone())));
                }
            }
        }
        unread
    }
}
