//! Groups, tags, metadata options, types and regions.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::*;

use super::ec2::{filter, launch, ready, visible};
use super::iam::NAME;
use super::*;

#[tokio::test]
async fn security_groups() {
    let running = running(&[]).await;
    ready(&running).await;
    let client = Client::new(&running.config);
    let vpcs = client
        .describe_vpcs()
        .filters(filter("is-default", "true"))
        .send()
        .await
        .unwrap();
    let vpc = vpcs.vpcs()[0].vpc_id().unwrap();
    let subnets = client
        .describe_subnets()
        .filters(filter("vpc-id", vpc))
        .send()
        .await
        .unwrap();
    assert_eq!(subnets.subnets().len(), 3);
    let create = || {
        client
            .create_security_group()
            .group_name(NAME)
            .description("hosts")
            .vpc_id(vpc)
            .send()
    };
    let group = create().await.unwrap().group_id.unwrap();
    assert_eq!(refusal(create().await).0, "InvalidGroup.Duplicate");
    let describe = async || {
        let groups = client
            .describe_security_groups()
            .group_ids(&group)
            .send()
            .await
            .unwrap();
        groups.security_groups()[0].clone()
    };
    let new = describe().await;
    assert!(new.ip_permissions().is_empty());
    assert_eq!(
        new.ip_permissions_egress()[0].ip_ranges()[0].cidr_ip(),
        Some("0.0.0.0/0")
    );
    let ssh = IpPermission::builder()
        .ip_protocol("tcp")
        .from_port(22)
        .to_port(22)
        .ip_ranges(IpRange::builder().cidr_ip("10.0.0.0/8").build())
        .build();
    let authorize = || {
        client
            .authorize_security_group_ingress()
            .group_id(&group)
            .ip_permissions(ssh.clone())
            .send()
    };
    authorize().await.unwrap();
    assert_eq!(refusal(authorize().await).0, "InvalidPermission.Duplicate");
    assert_eq!(describe().await.ip_permissions()[0].from_port(), Some(22));
    client
        .revoke_security_group_ingress()
        .group_id(&group)
        .ip_permissions(ssh.clone())
        .send()
        .await
        .unwrap();
    assert!(describe().await.ip_permissions().is_empty());
    let all = describe().await.ip_permissions_egress()[0].clone();
    client
        .revoke_security_group_egress()
        .group_id(&group)
        .ip_permissions(all)
        .send()
        .await
        .unwrap();
    assert!(describe().await.ip_permissions_egress().is_empty());

    let launched = launch(&running)
        .await
        .security_group_ids(&group)
        .send()
        .await
        .unwrap();
    let id = launched.instances()[0].instance_id().unwrap();
    let delete = || client.delete_security_group().group_id(&group).send();
    assert_eq!(refusal(delete().await).0, "DependencyViolation");
    visible().await;
    client
        .terminate_instances()
        .instance_ids(id)
        .send()
        .await
        .unwrap();
    running.cloud.host_down(DEFAULT_REGION, id, Down::Off);
    delete().await.unwrap();
    assert_eq!(refusal(delete().await).0, "InvalidGroup.NotFound");
}

#[tokio::test]
async fn tags_and_metadata_options_change_on_a_running_instance() {
    let running = running(&[]).await;
    ready(&running).await;
    let client = Client::new(&running.config);
    let launched = launch(&running).await.send().await.unwrap();
    let id = launched.instances()[0].instance_id().unwrap();
    visible().await;
    let tag = |key: &str| Tag::builder().key(key).value("x").build();
    let create = |key: &str| client.create_tags().resources(id).tags(tag(key)).send();
    create("Team").await.unwrap();
    assert_eq!(refusal(create("a/b").await).0, "InvalidParameterValue");
    client
        .modify_instance_metadata_options()
        .instance_id(id)
        .instance_metadata_tags(InstanceMetadataTagsState::Disabled)
        .send()
        .await
        .unwrap();
    create("a/b").await.unwrap();
    let enable = client
        .modify_instance_metadata_options()
        .instance_id(id)
        .instance_metadata_tags(InstanceMetadataTagsState::Enabled)
        .send()
        .await;
    assert_eq!(refusal(enable).0, "InvalidParameterValue");
    client
        .delete_tags()
        .resources(id)
        .tags(tag("a/b"))
        .send()
        .await
        .unwrap();
    let tags = client
        .describe_tags()
        .filters(filter("resource-id", id))
        .send()
        .await
        .unwrap();
    let keys: Vec<_> = tags.tags().iter().map(|tag| tag.key().unwrap()).collect();
    assert_eq!(keys, ["Customer", "Name", "Team"]);
    let view = running.cloud.host_view(DEFAULT_REGION, id).unwrap();
    assert!(!view.options.tags_enabled && view.options.tokens_required);
}

#[tokio::test]
async fn types_and_regions() {
    let running = running(&[]).await;
    let client = Client::new(&running.config);
    let types = client
        .describe_instance_types()
        .instance_types(InstanceType::T4gSmall)
        .send()
        .await
        .unwrap();
    let kind = &types.instance_types()[0];
    assert_eq!(
        kind.processor_info().unwrap().supported_architectures(),
        [ArchitectureType::Arm64]
    );
    assert_eq!(kind.memory_info().unwrap().size_in_mib(), Some(2048));
    let unknown = client
        .describe_instance_types()
        .instance_types(InstanceType::from("x.y"))
        .send()
        .await;
    assert_eq!(refusal(unknown).0, "InvalidInstanceType");
    let offerings = client
        .describe_instance_type_offerings()
        .filters(filter("instance-type", "t3.small"))
        .location_type(LocationType::AvailabilityZone)
        .send()
        .await
        .unwrap();
    assert_eq!(offerings.instance_type_offerings().len(), 3);
    let regions = client.describe_regions().send().await.unwrap();
    assert!(
        regions
            .regions()
            .iter()
            .any(|region| region.region_name() == Some("eu-central-1"))
    );
}
