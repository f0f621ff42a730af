//! A cloud that is served, for tests that need a launched instance.

use aws_sdk_ec2::types::{
    HttpTokensState, IamInstanceProfileSpecification, InstanceMetadataOptionsRequest,
    InstanceMetadataTagsState, InstanceType, ResourceType, Tag, TagSpecification,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::tests::{Running, iam, running};
use super::{Cloud, DEFAULT_REGION, Fault};

pub(crate) const REGION: &str = DEFAULT_REGION;
pub(crate) const ROLE: &str = iam::NAME;

pub(crate) struct Trial {
    pub cloud: Cloud,
    running: Running,
}

pub(crate) async fn start(faults: &[Fault]) -> Trial {
    let running = running(faults).await;
    iam::make_profile(&aws_sdk_iam::Client::new(&running.config), iam::POLICY).await;
    Trial {
        cloud: running.cloud.clone(),
        running,
    }
}

impl Trial {
    fn ec2(&self) -> aws_sdk_ec2::Client {
        aws_sdk_ec2::Client::new(&self.running.config)
    }

    /// Launches a customer's instance, waits until it is visible, and gives its id.
    pub async fn launch(&self) -> String {
        let mut tags = TagSpecification::builder().resource_type(ResourceType::Instance);
        for (key, value) in [("Customer", "cust_acme"), ("Name", "host")] {
            tags = tags.tags(Tag::builder().key(key).value(value).build());
        }
        let options = InstanceMetadataOptionsRequest::builder()
            .http_tokens(HttpTokensState::Required)
            .instance_metadata_tags(InstanceMetadataTagsState::Enabled)
            .build();
        let profile = IamInstanceProfileSpecification::builder()
            .name(ROLE)
            .build();
        let launched = self
            .ec2()
            .run_instances()
            .image_id(super::ec2::PUBLIC_IMAGES[0].id(REGION))
            .instance_type(InstanceType::T3Micro)
            .min_count(1)
            .max_count(1)
            .user_data(BASE64_STANDARD.encode("#!/bin/bash\n"))
            .iam_instance_profile(profile)
            .tag_specifications(tags.build())
            .metadata_options(options)
            .send()
            .await
            .unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(170)).await;
        launched.instances()[0].instance_id().unwrap().to_owned()
    }

    /// Enables or disables the instance's tags in its metadata.
    pub async fn set_tags_enabled(&self, instance: &str, enabled: bool) {
        let state = if enabled {
            InstanceMetadataTagsState::Enabled
        } else {
            InstanceMetadataTagsState::Disabled
        };
        let modify = self.ec2().modify_instance_metadata_options();
        let modify = modify.instance_id(instance).instance_metadata_tags(state);
        modify.send().await.unwrap();
    }
}
