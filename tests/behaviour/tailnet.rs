//! What tests do at the sandbox's tailnet as an administrator does in the admin console.

use serde_json::Value;

use crate::common::{RunningSandbox, ended};

/// The tailnet of a running sandbox, seen from outside.
pub struct Console {
    url: String,
    client: String,
}

impl Console {
    pub fn of(sandbox: &RunningSandbox) -> Self {
        let secret =
            std::fs::read_to_string(&sandbox.environment["M8TRX_TAILSCALE_CLIENT_SECRET_FILE"]);
        let id = &sandbox.environment["M8TRX_TAILSCALE_CLIENT_ID"];
        Self {
            url: sandbox.environment["M8TRX_TAILSCALE_API_URL"].clone(),
            client: format!(
                "grant_type=client_credentials&client_id={id}&client_secret={}",
                secret.unwrap().trim()
            ),
        }
    }

    fn curl(&self, path: &str, arguments: &[&str]) -> Value {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-qsS", "--fail-with-body", "--noproxy", "*"])
            .args(arguments)
            .arg(format!("{}{path}", self.url));
        let answer = ended(&mut curl);
        answer.assert_code(0);
        serde_json::from_str(&answer.stdout).unwrap()
    }

    /// A call as an OAuth client of the test's own; it shows in the calls as well.
    fn api(&self, path: &str, arguments: &[&str]) -> Value {
        let token = self.curl("/api/v2/oauth/token", &["-d", &self.client]);
        let bearer = format!(
            "Authorization: Bearer {}",
            token["access_token"].as_str().unwrap()
        );
        self.curl(
            &format!("/api/v2{path}"),
            &[&["-H", &bearer], arguments].concat(),
        )
    }

    /// How the API conducts itself from here on.
    pub fn conduct(&self, conduct: Value) {
        self.curl(
            "/_sandbox/conduct",
            &["-X", "PUT", "-d", &conduct.to_string()],
        );
    }

    /// An OAuth client made in the admin console: its id, and its secret.
    pub fn make_client(&self, scopes: &[&str]) -> (String, String) {
        let asked = serde_json::json!({ "scopes": scopes });
        let made = self.curl("/_sandbox/clients", &["-d", &asked.to_string()]);
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        (text("id"), text("secret"))
    }

    /// A key made in the admin console.
    pub fn make_key(&self, asked: &Value) -> String {
        let made = self.curl("/_sandbox/keys", &["-d", &asked.to_string()]);
        made["key"].as_str().unwrap().to_owned()
    }

    /// Every good key, with what the API tells of it.
    pub fn keys(&self) -> Vec<Value> {
        let listed = self.api("/tailnet/-/keys?all=true", &[]);
        let ids = listed["keys"].as_array().unwrap().iter();
        ids.map(|key| {
            self.api(
                &format!("/tailnet/-/keys/{}", key["id"].as_str().unwrap()),
                &[],
            )
        })
        .collect()
    }

    /// The ids of the good keys for a tag.
    pub fn keys_of(&self, tag: &str) -> Vec<String> {
        self.keys()
            .iter()
            .filter(|key| key["capabilities"]["devices"]["create"]["tags"][0] == tag)
            .map(|key| key["id"].as_str().unwrap().to_owned())
            .collect()
    }

    pub fn revoke(&self, id: &str) {
        self.api(&format!("/tailnet/-/keys/{id}"), &["-X", "DELETE"]);
    }

    /// How many devices carry a tag.
    pub fn tagged(&self, tag: &str) -> usize {
        let devices = self.api("/tailnet/-/devices?fields=all", &[]);
        let tags = devices["devices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|device| &device["tags"]);
        tags.filter(|tags| {
            tags.as_array()
                .is_some_and(|tags| tags.iter().any(|own| own == tag))
        })
        .count()
    }

    /// The policy file as it is.
    pub fn policy(&self) -> String {
        let token = self.curl("/api/v2/oauth/token", &["-d", &self.client]);
        let bearer = format!(
            "Authorization: Bearer {}",
            token["access_token"].as_str().unwrap()
        );
        let mut curl = std::process::Command::new("curl");
        curl.args(["-qsS", "--fail-with-body", "--noproxy", "*"])
            .args(["-H", &bearer, "-H", "Accept: application/hujson"])
            .arg(format!("{}/api/v2/tailnet/-/acl", self.url));
        ended(&mut curl).assert_code(0).stdout.clone()
    }

    /// Replaces the policy file, whatever it is.
    pub fn set_policy(&self, text: &str) {
        let kind = "Content-Type: application/hujson";
        self.api("/tailnet/-/acl", &["-H", kind, "--data-binary", text]);
    }

    /// How often a request was made.
    pub fn count(&self, method: &str, path: &str) -> usize {
        let calls = self.curl("/_sandbox/calls", &[]);
        let all = calls["calls"].as_array().unwrap().iter();
        all.filter(|call| {
            call["method"] == method && call["path"].as_str().unwrap().ends_with(path)
        })
        .count()
    }
}
