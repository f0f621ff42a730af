//! The world as it is, read by other means than the command's own: AWS through a client, brain and tailnet by plain HTTP.

use std::net::SocketAddr;

use serde_json::Value;

use crate::common::Surroundings;
use crate::fleet::Fleet;
use crate::proxy::{Message, Party, Proxy, exchange};

/// A sandbox that is looked at from outside.
pub struct World {
    pub fleet: Fleet,
    environment: Vec<(String, String)>,
    pub servers: [SocketAddr; 3],
}

/// A key at the brain.
#[derive(Debug, Clone)]
pub struct BrainKey {
    pub id: String,
    pub label: String,
    /// The beginning of the key itself.
    pub prefix: String,
}

/// A stored parameter.
#[derive(Debug, Clone)]
pub struct Stored {
    pub value: String,
    pub tags: Vec<(String, String)>,
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://")
        .trim_end_matches('/')
        .parse()
        .unwrap()
}

impl World {
    pub fn new() -> Self {
        let fleet = Fleet::start();
        let environment: Vec<(String, String)> = fleet
            .sandbox
            .environment()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let variable = |name: &str| {
            let found = environment.iter().find(|(key, _)| key == name);
            found.unwrap().1.clone()
        };
        let servers = [
            "AWS_ENDPOINT_URL",
            "M8TRX_BRAIN_URL",
            "M8TRX_TAILSCALE_API_URL",
        ]
        .map(|name| address(&variable(name)));
        let world = Self {
            fleet,
            environment,
            servers,
        };
        // Known to the hosts by its own address, and to the command by the proxy's.
        world.fleet.put(
            "/m8trx/brain-url",
            &format!("http://{}", servers[Party::Brain as usize]),
            aws_sdk_ssm::types::ParameterType::String,
        );
        world
    }

    pub fn variable(&self, name: &str) -> &str {
        let found = self.environment.iter().find(|(key, _)| key == name);
        &found.unwrap().1
    }

    /// A home whose commands go through a proxy.
    pub fn surroundings(&self, proxy: &Proxy) -> Surroundings {
        let mut surroundings = Surroundings::new();
        for (name, value) in &self.environment {
            surroundings.set(name, value.clone());
        }
        surroundings
            .set("AWS_ENDPOINT_URL", proxy.url(Party::Aws))
            .set("M8TRX_TAILSCALE_API_URL", proxy.url(Party::Tailscale))
            .variables
            .remove("M8TRX_BRAIN_URL");
        surroundings
    }

    fn ask(&self, party: Party, method: &str, path: &str, headers: &str, body: &str) -> Message {
        let server = self.servers[party as usize];
        let request = Message {
            head: format!("{method} {path} HTTP/1.1\r\nHost: {server}\r\n{headers}"),
            body: body.as_bytes().to_vec(),
        };
        exchange(server, &request).unwrap()
    }

    fn held_in(&self, variable: &str) -> String {
        let text = std::fs::read_to_string(self.variable(variable)).unwrap();
        text.trim().to_owned()
    }

    fn admin_token(&self) -> String {
        self.held_in("M8TRX_BRAIN_ADMIN_TOKEN_FILE")
    }

    fn client_secret(&self) -> String {
        self.held_in("M8TRX_TAILSCALE_CLIENT_SECRET_FILE")
    }

    /// What must be seen nowhere.
    pub fn secrets(&self) -> Vec<String> {
        vec![
            self.admin_token(),
            self.client_secret(),
            self.variable("AWS_SECRET_ACCESS_KEY").to_owned(),
        ]
    }

    /// The valid keys of a customer.
    pub fn brain_keys(&self, customer: &str) -> Vec<BrainKey> {
        let path = format!("/v1/keys?customer_id={customer}");
        let bearer = format!("Authorization: Bearer {}", self.admin_token());
        let answer = self.ask(Party::Brain, "GET", &path, &bearer, "");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let text = |key: &Value, name: &str| key[name].as_str().unwrap().to_owned();
        let keys = body["keys"].as_array().unwrap().iter();
        keys.map(|key| BrainKey {
            id: text(key, "id"),
            label: text(key, "label"),
            prefix: text(key, "prefix"),
        })
        .collect()
    }

    /// Whether the brain takes a key.
    pub fn brain_takes(&self, key: &str) -> bool {
        let bearer = format!("Authorization: Bearer {key}");
        let answer = self.ask(Party::Brain, "GET", "/v1/events?limit=1", &bearer, "");
        answer.head.starts_with("HTTP/1.1 200")
    }

    /// Revokes a key, as somebody else would.
    pub fn revoke_brain_key(&self, id: &str) {
        let bearer = format!("Authorization: Bearer {}", self.admin_token());
        self.ask(
            Party::Brain,
            "DELETE",
            &format!("/v1/keys/{id}"),
            &bearer,
            "",
        );
    }

    /// The ids of the good auth keys of a customer's hosts.
    pub fn auth_keys(&self, customer: &str) -> Vec<String> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", self.variable("M8TRX_TAILSCALE_CLIENT_ID"))
            .append_pair("client_secret", &self.client_secret())
            .finish();
        let form_type = "Content-Type: application/x-www-form-urlencoded";
        let token = self.ask(
            Party::Tailscale,
            "POST",
            "/api/v2/oauth/token",
            form_type,
            &form,
        );
        let token: Value = serde_json::from_slice(&token.body).unwrap();
        let bearer = format!(
            "Authorization: Bearer {}",
            token["access_token"].as_str().unwrap()
        );
        let get = |path: &str| -> Value {
            let answer = self.ask(Party::Tailscale, "GET", path, &bearer, "");
            serde_json::from_slice(&answer.body).unwrap_or_default()
        };
        let tag = customer
            .replace("cust_", "tag:m8trx-cust-")
            .replace('_', "-");
        let listed = get("/api/v2/tailnet/-/keys?all=true");
        let mut good = Vec::new();
        for key in listed["keys"].as_array().unwrap() {
            let id = key["id"].as_str().unwrap();
            let key = get(&format!("/api/v2/tailnet/-/keys/{id}"));
            let tags = &key["capabilities"]["devices"]["create"]["tags"];
            let is_of = tags
                .as_array()
                .is_some_and(|tags| tags.iter().any(|t| *t == *tag));
            if is_of && key["invalid"] != true && key["revoked"].is_null() {
                good.push(id.to_owned());
            }
        }
        good
    }

    /// A parameter with its tags.
    pub fn stored(&self, name: &str) -> Option<Stored> {
        let ssm = &self.fleet.ssm;
        let got = ssm.get_parameter().name(name).with_decryption(true).send();
        let parameter = self.fleet.wait(got).ok()?.parameter?;
        let kind = aws_sdk_ssm::types::ResourceTypeForTagging::Parameter;
        let tags = ssm
            .list_tags_for_resource()
            .resource_type(kind)
            .resource_id(name)
            .send();
        let tags = self.fleet.wait(tags).unwrap();
        Some(Stored {
            value: parameter.value.unwrap(),
            tags: tags
                .tag_list()
                .iter()
                .map(|tag| (tag.key().to_owned(), tag.value().to_owned()))
                .collect(),
        })
    }

    /// The ids of a customer's live hosts.
    pub fn hosts(&self, customer: &str) -> Vec<String> {
        use aws_sdk_ec2::types::Filter;
        let filter = Filter::builder()
            .name("tag:Customer")
            .values(customer)
            .build();
        let asked = self.fleet.ec2.describe_instances().filters(filter).send();
        let answer = self.fleet.wait(asked).unwrap();
        answer
            .reservations()
            .iter()
            .flat_map(|reservation| reservation.instances())
            .filter(|host| {
                let state = host.state().and_then(|state| state.name());
                state.is_some_and(|name| !["terminated", "shutting-down"].contains(&name.as_str()))
            })
            .map(|host| host.instance_id().unwrap().to_owned())
            .collect()
    }

    /// Ends a customer's hosts, as somebody else would.
    pub fn terminate_hosts(&self, customer: &str) {
        for host in self.hosts(customer) {
            let end = self.fleet.ec2.terminate_instances().instance_ids(host);
            self.fleet.wait(end.send()).unwrap();
        }
    }
}
