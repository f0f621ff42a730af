use aws_sdk_ec2::types::{IamInstanceProfileSpecification, InstanceType};
use aws_sdk_ssm::types::ParameterType;

use super::iam::{NAME, POLICY, TRUST, make_profile};
use super::*;
use crate::cloud::identity::RoleCredentials;

const REGION: &str = DEFAULT_REGION;

/// Launches an instance under the profile and gives its id.
async fn instance(running: &Running) -> String {
    let ec2 = aws_sdk_ec2::Client::new(&running.config);
    let image = crate::cloud::ec2::PUBLIC_IMAGES[0].id(REGION);
    let launched = ec2
        .run_instances()
        .image_id(image)
        .instance_type(InstanceType::T3Micro)
        .min_count(1)
        .max_count(1)
        .iam_instance_profile(
            IamInstanceProfileSpecification::builder()
                .name(NAME)
                .build(),
        )
        .send()
        .await
        .unwrap();
    launched.instances()[0].instance_id().unwrap().to_owned()
}

fn host_config(running: &Running, held: &RoleCredentials) -> SdkConfig {
    let credentials = Credentials::from_keys(
        &held.access_key,
        held.secret.expose_secret(),
        Some(held.token.expose_secret().to_owned()),
    );
    config(&running.url, credentials)
}

fn credentials(running: &Running, instance: &str) -> RoleCredentials {
    match running.cloud.host_credentials(REGION, instance) {
        HostCredentials::Ready(credentials) => credentials,
        _ => panic!("the instance has credentials"),
    }
}

#[tokio::test]
async fn a_host_reads_what_its_role_allows_and_nothing_else() {
    let running = running(&[]).await;
    make_profile(&aws_sdk_iam::Client::new(&running.config), POLICY).await;
    let operator = aws_sdk_ssm::Client::new(&running.config);
    for name in [
        "/m8trx/brain-url",
        "/m8trx/cust_acme/brain-key",
        "/m8trx/cust_bigco/brain-key",
    ] {
        operator
            .put_parameter()
            .name(name)
            .value("v")
            .r#type(ParameterType::SecureString)
            .send()
            .await
            .unwrap();
    }
    let id = instance(&running).await;
    let host = aws_sdk_ssm::Client::new(&host_config(&running, &credentials(&running, &id)));
    let get = |name: &str| host.get_parameter().name(name).with_decryption(true).send();
    get("/m8trx/brain-url").await.unwrap();
    assert_eq!(
        get("/m8trx/cust_acme/brain-key")
            .await
            .unwrap()
            .parameter()
            .unwrap()
            .value(),
        Some("v")
    );
    // Missing but permitted, against there but forbidden.
    assert_eq!(
        refusal(get("/m8trx/cust_acme/other").await).0,
        "ParameterNotFound"
    );
    let (code, message) = refusal(get("/m8trx/cust_bigco/brain-key").await);
    assert_eq!(code, "AccessDeniedException");
    assert_eq!(
        message,
        format!(
            "User: arn:aws:sts::123456789012:assumed-role/{NAME}/{id} is not authorized to perform: ssm:GetParameter on \
             resource: arn:aws:ssm:us-east-1:123456789012:parameter/m8trx/cust_bigco/brain-key because no identity-based \
             policy allows the ssm:GetParameter action"
        )
    );
    let put = host
        .put_parameter()
        .name("/m8trx/brain-url")
        .value("x")
        .overwrite(true)
        .send()
        .await;
    assert_eq!(refusal(put).0, "AccessDeniedException");
    let last = running.cloud.calls().pop().unwrap();
    assert_eq!(
        (last.action.as_str(), last.allowed, last.mutating),
        ("PutParameter", false, true)
    );
    assert_eq!(
        last.identity.unwrap(),
        format!("arn:aws:sts::123456789012:assumed-role/{NAME}/{id}")
    );

    // The role's tag is what scopes it.
    let iam = aws_sdk_iam::Client::new(&running.config);
    iam.untag_role()
        .role_name(NAME)
        .tag_keys("Customer")
        .send()
        .await
        .unwrap();
    assert_eq!(
        refusal(get("/m8trx/cust_acme/brain-key").await).0,
        "AccessDeniedException"
    );

    let sts = aws_sdk_sts::Client::new(&host_config(&running, &credentials(&running, &id)));
    let who = sts.get_caller_identity().send().await.unwrap();
    assert!(who.user_id().unwrap().starts_with("AROA") && who.user_id().unwrap().ends_with(&id));
}

#[tokio::test]
async fn credentials_are_void_without_token_trust_or_role() {
    let running = running(&[]).await;
    let iam = aws_sdk_iam::Client::new(&running.config);
    make_profile(&iam, POLICY).await;
    let id = instance(&running).await;
    let held = credentials(&running, &id);
    assert_eq!(held.access_key, credentials(&running, &id).access_key);
    let without = Credentials::from_keys(&held.access_key, held.secret.expose_secret(), None);
    let sts = aws_sdk_sts::Client::new(&config(&running.url, without));
    assert_eq!(
        refusal(sts.get_caller_identity().send().await).0,
        "InvalidClientTokenId"
    );

    let other = TRUST.replace("ec2.amazonaws.com", "lambda.amazonaws.com");
    iam.update_assume_role_policy()
        .role_name(NAME)
        .policy_document(other)
        .send()
        .await
        .unwrap();
    assert!(matches!(
        running.cloud.host_credentials(REGION, &id),
        HostCredentials::NotTrusted { .. }
    ));
    iam.remove_role_from_instance_profile()
        .instance_profile_name(NAME)
        .role_name(NAME)
        .send()
        .await
        .unwrap();
    assert!(matches!(
        running.cloud.host_credentials(REGION, &id),
        HostCredentials::None
    ));
    iam.delete_role_policy()
        .role_name(NAME)
        .policy_name("m8trx")
        .send()
        .await
        .unwrap();
    iam.delete_role().role_name(NAME).send().await.unwrap();
    let sts = aws_sdk_sts::Client::new(&host_config(&running, &held));
    assert_eq!(
        refusal(sts.get_caller_identity().send().await).0,
        "InvalidClientTokenId"
    );
}

#[tokio::test]
async fn a_restricted_operator_is_refused_and_can_decode_why() {
    let running = running(&[]).await;
    make_profile(&aws_sdk_iam::Client::new(&running.config), POLICY).await;
    let id = instance(&running).await;
    let other = instance(&running).await;
    let ec2 = aws_sdk_ec2::Client::new(&running.config);
    let tag = |key: &str| {
        aws_sdk_ec2::types::Tag::builder()
            .key("Customer")
            .value(key)
            .build()
    };
    ec2.create_tags()
        .resources(&id)
        .tags(tag("cust_acme"))
        .send()
        .await
        .unwrap();
    ec2.create_tags()
        .resources(&other)
        .tags(tag("cust_bigco"))
        .send()
        .await
        .unwrap();
    running
        .cloud
        .set_operator_policy(
            r#"{"Version":"2012-10-17","Statement":[
            {"Effect":"Allow","Action":["ec2:Describe*","sts:*"],"Resource":"*"},
            {"Effect":"Allow","Action":"ec2:TerminateInstances","Resource":"*",
             "Condition":{"StringEquals":{"aws:ResourceTag/Customer":"cust_acme"}}}]}"#,
        )
        .unwrap();
    tokio::time::sleep(Duration::from_millis(170)).await;
    let terminate = |id: &str| ec2.terminate_instances().instance_ids(id).send();
    let (code, message) = refusal(terminate(&other).await);
    assert_eq!(code, "UnauthorizedOperation");
    let encoded = message.rsplit(' ').next().unwrap();
    let sts = aws_sdk_sts::Client::new(&running.config);
    let decoded = sts
        .decode_authorization_message()
        .encoded_message(encoded)
        .send()
        .await
        .unwrap();
    let decoded = decoded.decoded_message().unwrap();
    assert!(
        decoded.contains("ec2:TerminateInstances") && decoded.contains(&other),
        "{decoded}"
    );
    terminate(&id).await.unwrap();
}
