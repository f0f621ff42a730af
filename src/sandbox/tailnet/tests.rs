use bytes::Bytes;
use http_body_util::BodyExt;
use secrecy::ExposeSecret;

use super::*;

const TAG: &str = "tag:m8trx-cust-acme";

async fn post(tailnet: &Tailnet, path: &str, instance: &str, body: Value) -> Result<Value, String> {
    let request = http::Request::post(path)
        .body(Bytes::from(body.to_string()))
        .unwrap();
    let answer = (tailnet.handler(instance.to_owned()))(request).await;
    let good = answer.status().is_success();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    if good {
        Ok(body)
    } else {
        Err(body["error"].as_str().unwrap().to_owned())
    }
}

pub(super) async fn register(
    tailnet: &Tailnet,
    instance: &str,
    key: &str,
    tags: &[&str],
) -> Result<Value, String> {
    let body =
        json!({"auth_key": key, "tags": tags, "hostname": "ip-172-31-0-10", "version": "1.90.8"});
    post(tailnet, "/machine/register", instance, body).await
}

/// Without a policy file that defines the customers' tags.
fn tailnet() -> Tailnet {
    let tailnet = Tailnet::new(Vec::new());
    tailnet.state().conduct.takes_undefined_customer_tags = true;
    tailnet
}

fn tagged() -> AuthKeySpec {
    AuthKeySpec {
        tags: BTreeSet::from([TAG.to_owned()]),
        ..AuthKeySpec::default()
    }
}

fn id(key: &str) -> &str {
    key["tskey-auth-".len()..].split('-').next().unwrap()
}

#[tokio::test]
async fn a_key_gives_its_own_tags_only() {
    let tailnet = tailnet();
    let key = tailnet.mint_key(tagged());
    let key = key.expose_secret();
    let refused = register(&tailnet, "i-1", key, &["tag:m8trx-cust-bigco"]).await;
    assert_eq!(
        refused.unwrap_err(),
        "requested tags [tag:m8trx-cust-bigco] are invalid or not permitted"
    );
    assert!(!tailnet.has_joined("i-1"));
    let joined = register(&tailnet, "i-1", key, &[TAG]).await.unwrap();
    assert!(joined["ip"].as_str().unwrap().starts_with("100."));
    assert_eq!(joined["login_name"], "tagged-devices");
    assert!(tailnet.has_joined("i-1") && !tailnet.has_joined("i-2"));
    // The same device again keeps its address; another one gets its own.
    assert_eq!(
        register(&tailnet, "i-1", key, &[]).await.unwrap()["ip"],
        joined["ip"]
    );
    assert_ne!(
        register(&tailnet, "i-2", key, &[]).await.unwrap()["ip"],
        joined["ip"]
    );
    assert_eq!(tailnet.devices()[1].tags, [TAG]);
}

#[tokio::test]
async fn an_untagged_key_gives_the_tags_its_user_owns() {
    let tailnet = tailnet();
    let key = tailnet.mint_key(AuthKeySpec::default());
    let key = key.expose_secret();
    register(&tailnet, "i-1", key, &[TAG]).await.unwrap();
    let refused = register(&tailnet, "i-2", key, &[TAG, "tag:m8trx-brain"]).await;
    assert_eq!(
        refused.unwrap_err(),
        "requested tags [tag:m8trx-brain] are invalid or not permitted"
    );
    let untagged = register(&tailnet, "i-3", key, &[]).await.unwrap();
    assert_eq!(untagged["login_name"], USER);
}

#[tokio::test]
async fn keys_that_are_no_good() {
    let tailnet = tailnet();
    let refusal = async |key: &str| register(&tailnet, "i-1", key, &[TAG]).await.unwrap_err();
    assert_eq!(
        refusal("nonsense").await,
        "invalid key: unable to validate API key"
    );
    assert_eq!(
        refusal("tskey-api-k1-x").await,
        "invalid key: unable to validate API key"
    );
    assert_eq!(
        refusal("tskey-auth-k1-x").await,
        "invalid key: API key does not exist"
    );
    let deleted = tailnet.mint_key(tagged());
    let deleted = deleted.expose_secret();
    assert!(tailnet.delete_key(id(deleted)));
    assert_eq!(
        refusal(deleted).await,
        "invalid key: API key does not exist"
    );
    let wrong = tailnet.mint_key(tagged());
    let wrong = format!("{}x", wrong.expose_secret());
    assert_eq!(refusal(&wrong).await, "invalid key: API key does not exist");

    let expired = tailnet.mint_key(AuthKeySpec {
        lifetime: SignedDuration::ZERO,
        ..tagged()
    });
    let expired = expired.expose_secret();
    assert_eq!(
        refusal(expired).await,
        format!("invalid key: API key {} not valid", id(expired))
    );
    let once = tailnet.mint_key(AuthKeySpec {
        reusable: false,
        ..tagged()
    });
    let once = once.expose_secret();
    register(&tailnet, "i-1", once, &[TAG]).await.unwrap();
    let again = register(&tailnet, "i-2", once, &[TAG]).await.unwrap_err();
    assert_eq!(
        again,
        format!("invalid key: API key {} not valid", id(once))
    );
}

#[tokio::test]
async fn tags_that_no_client_accepts() {
    let tailnet = Tailnet::new(Vec::new());
    let key = tailnet.mint_key(AuthKeySpec::default());
    for (tag, text) in [
        (
            "tag:m8trx-cust-b4_smoke",
            "tag: \"tag:m8trx-cust-b4_smoke\": tag names can only contain numbers, letters, or dashes",
        ),
        (
            "tag:4x",
            "tag: \"tag:4x\": tag names must start with a letter, after 'tag:'",
        ),
        ("tag:", "tag: \"tag:\": tag names must not be empty"),
        ("m8trx", "tag: \"m8trx\": tags must start with 'tag:'"),
    ] {
        let refused = register(&tailnet, "i-1", key.expose_secret(), &[tag]).await;
        assert_eq!(refused.unwrap_err(), text);
    }
}

#[tokio::test]
async fn devices_leave() {
    let tailnet = Tailnet::new(Vec::new());
    let key = tailnet.mint_key(tagged());
    let lasting = tailnet.mint_key(AuthKeySpec {
        ephemeral: false,
        ..tagged()
    });
    register(&tailnet, "i-1", key.expose_secret(), &[])
        .await
        .unwrap();
    register(&tailnet, "i-2", lasting.expose_secret(), &[])
        .await
        .unwrap();
    tailnet.instance_gone("i-1");
    tailnet.instance_gone("i-2");
    let left = tailnet.devices();
    assert_eq!(
        (left.len(), left[0].instance_id.as_str(), left[0].online),
        (1, "i-2", false)
    );
    assert!(!tailnet.has_joined("i-2"));
    post(&tailnet, "/machine/logout", "i-2", json!({}))
        .await
        .unwrap();
    assert!(tailnet.devices().is_empty());
}
