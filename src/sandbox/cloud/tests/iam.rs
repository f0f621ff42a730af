use aws_sdk_iam::Client;
use aws_sdk_iam::types::Tag;

use super::*;

pub(super) const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
pub(in crate::cloud) const POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:GetParameter","Resource":["arn:aws:ssm:*:*:parameter/m8trx/brain-url","arn:aws:ssm:*:*:parameter/m8trx/${aws:PrincipalTag/Customer}/*"]}]}"#;
pub(in crate::cloud) const NAME: &str = "m8trx-cust_acme";

/// Role, policy and profile as onboarding makes them.
pub(in crate::cloud) async fn make_profile(client: &Client, policy: &str) {
    let tag = Tag::builder()
        .key("Customer")
        .value("cust_acme")
        .build()
        .unwrap();
    client
        .create_role()
        .role_name(NAME)
        .assume_role_policy_document(TRUST)
        .tags(tag)
        .send()
        .await
        .unwrap();
    client
        .put_role_policy()
        .role_name(NAME)
        .policy_name("m8trx")
        .policy_document(policy)
        .send()
        .await
        .unwrap();
    client
        .create_instance_profile()
        .instance_profile_name(NAME)
        .send()
        .await
        .unwrap();
    client
        .add_role_to_instance_profile()
        .instance_profile_name(NAME)
        .role_name(NAME)
        .send()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_role_from_making_to_deleting() {
    let running = running(&[]).await;
    let client = Client::new(&running.config);
    let missing = client.get_role().role_name(NAME).send().await;
    assert_eq!(
        refusal(missing),
        (
            "NoSuchEntity".to_owned(),
            format!("The role with name {NAME} cannot be found.")
        )
    );
    make_profile(&client, POLICY).await;
    let again = client
        .create_role()
        .role_name(NAME)
        .assume_role_policy_document(TRUST)
        .send()
        .await;
    assert_eq!(refusal(again).0, "EntityAlreadyExists");
    let again = client
        .create_instance_profile()
        .instance_profile_name(NAME)
        .send()
        .await;
    assert_eq!(refusal(again).0, "EntityAlreadyExists");

    let role = client
        .get_role()
        .role_name(NAME)
        .send()
        .await
        .unwrap()
        .role
        .unwrap();
    assert_eq!(role.arn(), format!("arn:aws:iam::123456789012:role/{NAME}"));
    let document = role.assume_role_policy_document().unwrap();
    let decoded = percent_encoding::percent_decode_str(document)
        .decode_utf8()
        .unwrap();
    assert!(
        document.starts_with("%7B") && decoded == TRUST,
        "{document}"
    );
    assert_eq!(role.tags()[0].value(), "cust_acme");
    let policy = client
        .get_role_policy()
        .role_name(NAME)
        .policy_name("m8trx")
        .send()
        .await
        .unwrap();
    let decoded = percent_encoding::percent_decode_str(policy.policy_document())
        .decode_utf8()
        .unwrap();
    assert_eq!(decoded, POLICY);
    let profile = client
        .get_instance_profile()
        .instance_profile_name(NAME)
        .send()
        .await
        .unwrap();
    assert_eq!(
        profile.instance_profile().unwrap().roles()[0].role_name(),
        NAME
    );

    let second = client
        .add_role_to_instance_profile()
        .instance_profile_name(NAME)
        .role_name(NAME)
        .send()
        .await;
    assert_eq!(refusal(second).0, "LimitExceeded");
    assert_eq!(
        refusal(client.delete_role().role_name(NAME).send().await).0,
        "DeleteConflict"
    );
    let delete_profile = || {
        client
            .delete_instance_profile()
            .instance_profile_name(NAME)
            .send()
    };
    assert_eq!(refusal(delete_profile().await).0, "DeleteConflict");
    client
        .remove_role_from_instance_profile()
        .instance_profile_name(NAME)
        .role_name(NAME)
        .send()
        .await
        .unwrap();
    delete_profile().await.unwrap();
    assert_eq!(
        refusal(client.delete_role().role_name(NAME).send().await).0,
        "DeleteConflict"
    );
    client
        .delete_role_policy()
        .role_name(NAME)
        .policy_name("m8trx")
        .send()
        .await
        .unwrap();
    client.delete_role().role_name(NAME).send().await.unwrap();
    assert!(client.list_roles().send().await.unwrap().roles().is_empty());
}

#[tokio::test]
async fn bad_documents_names_and_sizes_are_refused() {
    let running = running(&[]).await;
    let client = Client::new(&running.config);
    let create = |name: &str, trust: &str| {
        client
            .create_role()
            .role_name(name)
            .assume_role_policy_document(trust)
            .send()
    };
    assert_eq!(
        refusal(create(NAME, "{}").await).0,
        "MalformedPolicyDocument"
    );
    assert_eq!(
        refusal(create(NAME, POLICY).await).0,
        "MalformedPolicyDocument"
    );
    assert_eq!(refusal(create("a b", TRUST).await).0, "ValidationError");
    assert_eq!(
        refusal(create(&"x".repeat(65), TRUST).await).0,
        "ValidationError"
    );
    create(NAME, TRUST).await.unwrap();
    assert_eq!(
        refusal(create("M8TRX-cust_acme", TRUST).await).0,
        "EntityAlreadyExists"
    );
    let put = |document: &str| {
        client
            .put_role_policy()
            .role_name(NAME)
            .policy_name("p")
            .policy_document(document)
            .send()
    };
    assert_eq!(refusal(put(TRUST).await).0, "MalformedPolicyDocument");
    let long = POLICY.replace("brain-url", &"x".repeat(10_241));
    assert_eq!(refusal(put(&long).await).0, "LimitExceeded");
}

#[tokio::test]
async fn managed_policies_attach_by_arn() {
    let running = running(&[]).await;
    let client = Client::new(&running.config);
    make_profile(&client, POLICY).await;
    let attach = |name: &str| {
        client
            .attach_role_policy()
            .role_name(NAME)
            .policy_arn(format!("arn:aws:iam::aws:policy/{name}"))
            .send()
    };
    assert_eq!(refusal(attach("Nothing").await).0, "NoSuchEntity");
    attach("AmazonSSMManagedInstanceCore").await.unwrap();
    let attached = client
        .list_attached_role_policies()
        .role_name(NAME)
        .send()
        .await
        .unwrap();
    assert_eq!(
        attached.attached_policies()[0].policy_name(),
        Some("AmazonSSMManagedInstanceCore")
    );
    let names = client
        .list_role_policies()
        .role_name(NAME)
        .send()
        .await
        .unwrap();
    assert_eq!(names.policy_names(), ["m8trx"]);
    let profiles = client
        .list_instance_profiles_for_role()
        .role_name(NAME)
        .send()
        .await
        .unwrap();
    assert_eq!(profiles.instance_profiles().len(), 1);
}

#[tokio::test]
async fn every_role_at_once_with_its_policies_and_profiles() {
    let running = running(&[]).await;
    let client = Client::new(&running.config);
    make_profile(&client, POLICY).await;
    for number in 0..3 {
        let role = client.create_role().role_name(format!("other-{number}"));
        let role = role.assume_role_policy_document(TRUST);
        role.send().await.unwrap();
    }
    let leak = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore";
    let attach = client.attach_role_policy().role_name(NAME);
    attach.policy_arn(leak).send().await.unwrap();

    let pages = client
        .get_account_authorization_details()
        .filter(aws_sdk_iam::types::EntityType::Role)
        .max_items(3)
        .into_paginator()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .unwrap();
    let counts: Vec<usize> = pages.iter().map(|p| p.role_detail_list().len()).collect();
    assert_eq!(counts, [3, 1]);
    let roles: Vec<_> = pages.iter().flat_map(|p| p.role_detail_list()).collect();
    let role = roles.iter().find(|r| r.role_name() == Some(NAME)).unwrap();
    assert_eq!(role.tags()[0].value(), "cust_acme");
    let policy = &role.role_policy_list()[0];
    assert_eq!(policy.policy_name(), Some("m8trx"));
    let document = percent_encoding::percent_decode_str(policy.policy_document().unwrap());
    assert_eq!(document.decode_utf8().unwrap(), POLICY);
    assert_eq!(role.attached_managed_policies()[0].policy_arn(), Some(leak));
    assert_eq!(
        role.instance_profile_list()[0].instance_profile_name(),
        NAME
    );
    let users = client
        .get_account_authorization_details()
        .filter(aws_sdk_iam::types::EntityType::User);
    assert!(users.send().await.unwrap().role_detail_list().is_empty());
}
