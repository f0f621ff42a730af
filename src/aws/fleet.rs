//! Reads of a whole fleet, in pages as large as AWS gives them: never a call for each customer.

use std::collections::BTreeMap;

use aws_sdk_iam::types::EntityType;
use serde_json::Value;

use super::ec2::{Instance, filter};
use super::iam::{Role, document, last_used_region, tags_of};
use super::{Aws, AwsError};
use crate::customer::CUSTOMER_TAG_KEY;
use crate::secret::SecretString;

/// The most names `GetParameters` takes.
pub const MAX_NAMES: usize = 10;
const ROLES_IN_A_PAGE: i32 = 1000;

/// A role with everything that says what it may do.
#[derive(Debug, Clone)]
pub struct RoleDetail {
    /// Its trust policy, its tags, and the names of its policies.
    pub role: Role,
    /// The documents of its inline policies by their names.
    pub documents: BTreeMap<String, Value>,
    /// The names of the instance profiles that hold it.
    pub profiles: Vec<String>,
}

impl Aws {
    /// The decrypted values of those of these parameters that exist. At most [`MAX_NAMES`] names.
    pub async fn parameter_values(
        &self,
        names: &[String],
    ) -> Result<Vec<(String, SecretString)>, AwsError> {
        let answer = self
            .ssm
            .get_parameters()
            .set_names(Some(names.to_vec()))
            .with_decryption(true)
            .send()
            .await
            .map_err(|e| self.ssm_error("GetParameters", e))?;
        Ok(answer
            .parameters
            .unwrap_or_default()
            .into_iter()
            .filter_map(|parameter| Some((parameter.name?, parameter.value?.into())))
            .collect())
    }

    /// Every instance with a `Customer` tag, or with one of these values in it.
    pub async fn customers_instances(
        &self,
        customers: Option<&[&str]>,
    ) -> Result<Vec<Instance>, AwsError> {
        let by = match customers {
            Some(customers) => filter(&format!("tag:{CUSTOMER_TAG_KEY}"), customers),
            None => filter("tag-key", &[CUSTOMER_TAG_KEY]),
        };
        self.instances_where(by, CUSTOMER_TAG_KEY).await
    }

    /// Every instance that runs with an instance profile of one of these names, in which `*` stands for any text.
    pub async fn instances_with_profiles(&self, names: &[&str]) -> Result<Vec<Instance>, AwsError> {
        let arns: Vec<String> = names
            .iter()
            .map(|name| {
                format!(
                    "arn:{}:iam::{}:instance-profile/{name}",
                    self.partition, self.account
                )
            })
            .collect();
        let arns: Vec<&str> = arns.iter().map(String::as_str).collect();
        self.instances_where(
            filter("iam-instance-profile.arn", &arns),
            "instance profiles",
        )
        .await
    }

    /// Every role of the account whose name `wanted` accepts, or that is in an instance profile whose name it accepts.
    pub async fn role_details(
        &self,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, RoleDetail>, AwsError> {
        let mut pages = self
            .iam
            .get_account_authorization_details()
            .filter(EntityType::Role)
            .max_items(ROLES_IN_A_PAGE)
            .into_paginator()
            .send();
        let mut found = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| self.iam_error("GetAccountAuthorizationDetails", e))?;
            for detail in page.role_detail_list() {
                let Some(name) = detail.role_name() else {
                    continue;
                };
                let profiles: Vec<String> = detail
                    .instance_profile_list()
                    .iter()
                    .map(|profile| profile.instance_profile_name().to_owned())
                    .collect();
                if wanted(name) || profiles.iter().any(|profile| wanted(profile)) {
                    found.insert(name.to_owned(), role_detail(detail, profiles));
                }
            }
        }
        Ok(found)
    }
}

fn role_detail(detail: &aws_sdk_iam::types::RoleDetail, profiles: Vec<String>) -> RoleDetail {
    let documents: BTreeMap<String, Value> = detail
        .role_policy_list()
        .iter()
        .filter_map(|policy| {
            Some((
                policy.policy_name()?.to_owned(),
                policy.policy_document().map_or(Value::Null, document),
            ))
        })
        .collect();
    RoleDetail {
        role: Role {
            trust_policy: detail
                .assume_role_policy_document()
                .map_or(Value::Null, document),
            tags: tags_of(detail.tags()),
            last_used_region: last_used_region(detail.role_last_used()),
            inline_policies: documents.keys().cloned().collect(),
            attached_policies: detail
                .attached_managed_policies()
                .iter()
                .filter_map(|policy| policy.policy_arn().map(str::to_owned))
                .collect(),
        },
        documents,
        profiles,
    }
}
