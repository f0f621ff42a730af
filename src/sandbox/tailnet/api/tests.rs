//! The API as this program's own client and plain requests meet it.

use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::*;
use crate::http::{Options, Server};
use m8trx::customer::CustomerId;
use m8trx::tailnet::keys::NewKey;
use m8trx::tailnet::policy_file::Verdict;
use m8trx::tailnet::{self, OAuthClient, TailnetError, TailnetSettings};

const TAG: &str = "tag:m8trx-cust-acme";

struct Api {
    sandbox: Tailnet,
    client: tailnet::Tailnet,
    url: String,
    _server: Server,
}

fn acme() -> CustomerId {
    "cust_acme".parse().unwrap()
}

impl Api {
    async fn start() -> Self {
        let sandbox = Tailnet::new(Vec::new());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::start(listener, Options::default(), sandbox.api_handler()).unwrap();
        let url = format!("http://{}", server.address());
        let client = tailnet::Tailnet::new(TailnetSettings {
            api_url: url.parse().unwrap(),
            client: OAuthClient {
                id: sandbox.client().id.clone(),
                secret: sandbox.client().secret.clone(),
            },
            policy_client: None,
            tailnet: "-".to_owned(),
            answer_timeout: Duration::from_secs(10),
        });
        Self {
            sandbox,
            client,
            url,
            _server: server,
        }
    }

    async fn conduct(&self, conduct: Value) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/_sandbox/conduct", self.url);
        let answer = http.put(url).json(&conduct).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }

    /// A request with a good token, as anybody could send it.
    async fn post(&self, path: &str, body: Value) -> (u16, String) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let client = self.sandbox.client();
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}",
            client.id,
            client.secret.expose_secret()
        );
        let token: Value = http
            .post(format!("{}/api/v2/oauth/token", self.url))
            .body(form)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let answer = http
            .post(format!("{}/api/v2{path}", self.url))
            .bearer_auth(token["access_token"].as_str().unwrap())
            .json(&body)
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        (
            status,
            body["message"].as_str().unwrap_or_default().to_owned(),
        )
    }

    /// A host joins as `tailscale up` lets it.
    async fn join(&self, instance: &str, key: &str) -> Result<Value, String> {
        super::super::tests::register(&self.sandbox, instance, key, &[TAG]).await
    }
}

#[tokio::test]
async fn a_minted_key_lets_hosts_in_until_it_is_revoked() {
    let api = Api::start().await;
    api.conduct(json!({"takes_undefined_customer_tags": true}))
        .await;
    let new = NewKey::for_customer(&acme(), "run1");
    let minted = api.client.mint_key(&new).await.unwrap();
    let known = api.client.auth_key(minted.key.id()).await.unwrap().unwrap();
    assert_eq!(
        known.problems(&acme(), Timestamp::now()),
        Vec::<String>::new()
    );
    assert_eq!(known.description, "m8trx-acme-run1");
    assert_eq!(known.days_left(Timestamp::now()), Some(89));
    api.join("i-1", minted.key.expose()).await.unwrap();
    let devices = api.client.devices_tagged(TAG).await.unwrap();
    assert!(devices[0].is_online() && devices[0].authorized && !devices[0].is_locked_out());
    assert_eq!(api.client.devices().await.unwrap().len(), 3);

    assert!(api.client.revoke_key(minted.key.id()).await.unwrap());
    assert!(!api.client.revoke_key(minted.key.id()).await.unwrap());
    let refused = api.join("i-2", minted.key.expose()).await.unwrap_err();
    assert_eq!(refused, "invalid key: API key does not exist");
    let known = api.client.auth_key(minted.key.id()).await.unwrap().unwrap();
    assert_eq!(
        known.problems(&acme(), Timestamp::now()),
        ["it was revoked"]
    );
    assert!(api.client.auth_keys().await.unwrap().is_empty());

    assert!(api.client.remove_device(&devices[0].node_id).await.unwrap());
    assert!(!api.client.remove_device(&devices[0].node_id).await.unwrap());
    assert!(!api.sandbox.has_joined("i-1"));
}

#[tokio::test]
async fn requests_are_read_strictly() {
    let api = Api::start().await;
    let key = |create: Value| json!({"capabilities": {"devices": {"create": create}}});
    let path = "/tailnet/-/keys";
    for (body, words) in [
        (json!({"capabilites": {}}), "unknown field"),
        (key(json!({"tag": [TAG]})), "unknown field"),
        (key(json!({"reusable": true})), "must have tags set"),
        (
            key(json!({"tags": ["tag:m8trx-brain-b"]})),
            "invalid or not permitted",
        ),
        (
            key(json!({"tags": ["tag:m8trx-team"]})),
            "[tag:m8trx-team] are invalid or not permitted",
        ),
        (
            key(json!({"tags": ["tag:a_b"]})),
            "numbers, letters, or dashes",
        ),
        (
            json!({"capabilities": {"devices": {"create": {"tags": [TAG]}}}, "expirySeconds": 7_776_001}),
            "expirySeconds",
        ),
        (
            json!({"capabilities": {"devices": {"create": {"tags": [TAG]}}}, "description": "a/b"}),
            "description",
        ),
    ] {
        let (status, message) = api.post(path, body).await;
        assert_eq!(status, 400, "{message}");
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(api.post("/tailnet/other/keys", json!({})).await.0, 404);
    assert!(api.client.auth_keys().await.unwrap().is_empty());
}

#[tokio::test]
async fn tags_are_the_policy_files_to_give() {
    let api = Api::start().await;
    let new = NewKey::for_customer(&acme(), "run1");
    let error = api.client.mint_key(&new).await.unwrap_err();
    assert!(
        error.to_string().contains("invalid or not permitted"),
        "{error}"
    );
    let pasted = api.sandbox.mint_key(AuthKeySpec {
        tags: [TAG.to_owned()].into(),
        ..AuthKeySpec::default()
    });
    let refused = api.join("i-1", pasted.expose_secret()).await.unwrap_err();
    assert!(refused.contains("invalid or not permitted"), "{refused}");

    let file = api.client.policy_file().await.unwrap();
    let with = |owners: &str| {
        let line = format!("\"{TAG}\": {owners},\n\t\t\"tag:m8trx-team\"");
        file.text.replace("\"tag:m8trx-team\"", &line)
    };
    let text = with("[\"autogroup:admin\"]");
    assert_eq!(
        api.client.validate_policy(&text).await.unwrap(),
        Verdict::Taken
    );
    let once = api.client.set_policy(&text, &file.etag).await.unwrap();
    assert!(matches!(
        api.client.set_policy(&text, &file.etag).await.unwrap_err(),
        TailnetError::Changed
    ));
    api.client.mint_key(&new).await.unwrap_err();
    let text = with("[\"tag:m8trx-operator\"]");
    api.client.set_policy(&text, &once.etag).await.unwrap();
    assert_eq!(api.client.policy_file().await.unwrap().text, text);
    let minted = api.client.mint_key(&new).await.unwrap();
    api.join("i-1", minted.key.expose()).await.unwrap();
    let undefined = file
        .text
        .replace("tag:m8trx-brain\"]", "tag:m8trx-cust-x\"]");
    let verdict = api.client.validate_policy(&undefined).await.unwrap();
    let Verdict::Refused(refusal) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(refusal.message, "tag not found: \"tag:m8trx-cust-x\"");
    let now = api.client.policy_file().await.unwrap();
    let error = api
        .client
        .set_policy(&undefined, &now.etag)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("tag not found"), "{error}");
}

#[tokio::test]
async fn it_conducts_itself_as_asked() {
    let api = Api::start().await;
    api.conduct(json!({"scopes": ["auth_keys:read"], "answers": [
        {"method": "GET", "path": "/devices", "how": "too-many", "retry_after": 0},
    ]}))
    .await;
    let error = api.client.devices().await.unwrap_err();
    assert!(error.to_string().contains("`devices:core:read`"), "{error}");
    assert!(api.client.auth_keys().await.unwrap().is_empty());
    let error = api.client.revoke_key("k").await.unwrap_err();
    assert!(error.to_string().contains("`auth_keys`"), "{error}");
    let calls = api.sandbox.state().calls.clone();
    let statuses: Vec<_> = calls.iter().map(|call| call["status"].clone()).collect();
    assert_eq!(statuses, [200, 429, 403, 200, 403]);
}

#[tokio::test]
async fn a_lock_and_an_approval_are_asked_of_devices() {
    let api = Api::start().await;
    api.conduct(
        json!({"lock": true, "device_approval": true, "takes_undefined_customer_tags": true}),
    )
    .await;
    let minted = api
        .client
        .mint_key(&NewKey::for_customer(&acme(), "run1"))
        .await
        .unwrap();
    api.join("i-1", minted.key.expose()).await.unwrap();
    let shut_out = &api.client.devices_tagged(TAG).await.unwrap()[0];
    assert!(shut_out.is_locked_out() && !api.sandbox.has_joined("i-1"));
    let wrapped = format!(
        "{}--TL{}-{}",
        minted.key.expose(),
        "A".repeat(40),
        "b+/".repeat(10)
    );
    api.join("i-2", &wrapped).await.unwrap();
    assert!(api.sandbox.has_joined("i-2"));
    api.join("i-3", &format!("{}--TLx-y", minted.key.expose()))
        .await
        .unwrap();
    assert!(!api.sandbox.has_joined("i-3"));

    let key = api.sandbox.mint_key(AuthKeySpec {
        tags: [TAG.to_owned()].into(),
        preauthorized: false,
        ..AuthKeySpec::default()
    });
    let refused = api.join("i-4", key.expose_secret()).await.unwrap_err();
    assert!(refused.starts_with("To approve your machine"), "{refused}");
    let devices = api.client.devices_tagged(TAG).await.unwrap();
    assert_eq!(
        devices.iter().filter(|device| !device.authorized).count(),
        1
    );
}
