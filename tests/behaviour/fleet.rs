//! A sandbox in the test's own process, with customers that were onboarded some time ago.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use jiff::SignedDuration;
use m8trx::config::{Flags, Settings};
use m8trx::customer::CustomerId;
use m8trx::tailnet::Tailnet;
use m8trx::tailnet::policy::change::Wish;
use m8trx_sandbox::{Sandbox, SandboxOptions};

use crate::common::{M8TRX, Surroundings};
use crate::settled::settled;

/// The sandbox, and AWS as another tool would change it.
pub struct Fleet {
    pub sandbox: Sandbox,
    pub ssm: aws_sdk_ssm::Client,
    pub iam: aws_sdk_iam::Client,
    pub ec2: aws_sdk_ec2::Client,
    settled: Mutex<BTreeSet<CustomerId>>,
    // Serves the sandbox, so it must be dropped after it.
    runtime: tokio::runtime::Runtime,
}

impl Fleet {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let sandbox = Sandbox::start_from(SandboxOptions::default(), Path::new(M8TRX));
        let sandbox = runtime.block_on(sandbox).unwrap();
        let config = config(&sandbox);
        Self {
            ssm: aws_sdk_ssm::Client::new(&config),
            iam: aws_sdk_iam::Client::new(&config),
            ec2: aws_sdk_ec2::Client::new(&config),
            settled: Mutex::default(),
            sandbox,
            runtime,
        }
    }

    /// A home whose commands talk to this sandbox. What was settled by now is in the tailnet's policy file, too.
    pub fn surroundings(&self) -> Surroundings {
        self.name_in_policy();
        let mut surroundings = Surroundings::new();
        for (name, value) in self.sandbox.environment() {
            surroundings.set(name, value);
        }
        surroundings
    }

    fn name_in_policy(&self) {
        let environment = self.sandbox.environment();
        let variable = |name: &str| {
            let found = environment.iter().find(|(key, _)| *key == name)?;
            Some(found.1.clone())
        };
        let settings = Settings::of_sandbox(&Flags::default(), &variable).unwrap();
        let tailnet = Tailnet::new(settings.tailnet.unwrap());
        let wish = Wish {
            add: self.settled.lock().unwrap().clone(),
            brain_port: settings.brain.url.map(|url| url.port()),
            ..Wish::default()
        };
        let directory = tempfile::tempdir().unwrap();
        self.wait(tailnet.bring_about(&wish, Some(directory.path())))
            .unwrap();
    }

    /// The same without Tailscale's API.
    pub fn surroundings_without_tailscale(&self) -> Surroundings {
        let mut surroundings = self.surroundings();
        surroundings
            .variables
            .retain(|name, _| !name.starts_with("M8TRX_TAILSCALE_CLIENT"));
        surroundings
    }

    /// A customer of this many days whose host beat so many minutes ago; gives the host.
    pub fn settle(&self, id: &str, days: i64, beat_minutes_ago: Option<i64>) -> String {
        self.settle_minutes(id, 24 * 60 * days, beat_minutes_ago)
    }

    pub fn settle_minutes(&self, id: &str, minutes: i64, beat_minutes_ago: Option<i64>) -> String {
        self.settled.lock().unwrap().insert(id.parse().unwrap());
        self.sandbox
            .settle(&settled(
                id,
                SignedDuration::from_mins(minutes),
                beat_minutes_ago.map(SignedDuration::from_mins),
            ))
            .unwrap()
    }

    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Overwrites a parameter, with another type too.
    pub fn put(&self, name: &str, value: &str, kind: aws_sdk_ssm::types::ParameterType) {
        let put = self.ssm.put_parameter().name(name).value(value);
        let put = put.r#type(kind).overwrite(true).send();
        self.wait(put).unwrap();
    }

    pub fn delete(&self, name: &str) {
        self.wait(self.ssm.delete_parameter().name(name).send())
            .unwrap();
    }

    /// Sets a tag of an instance, or takes it off.
    pub fn tag(&self, instance: &str, key: &str, value: Option<&str>) {
        let tag = aws_sdk_ec2::types::Tag::builder().key(key);
        match value {
            Some(value) => {
                let tags = self.ec2.create_tags().resources(instance);
                self.wait(tags.tags(tag.value(value).build()).send())
                    .map(drop)
                    .unwrap();
            }
            None => {
                let tags = self.ec2.delete_tags().resources(instance);
                self.wait(tags.tags(tag.build()).send()).map(drop).unwrap();
            }
        }
    }
}

fn config(sandbox: &Sandbox) -> SdkConfig {
    let environment = sandbox.environment();
    let value = |name: &str| {
        let found = environment.iter().find(|(key, _)| *key == name);
        found.unwrap().1.clone()
    };
    let credentials = Credentials::from_keys(
        value("AWS_ACCESS_KEY_ID"),
        value("AWS_SECRET_ACCESS_KEY"),
        None,
    );
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(value("AWS_REGION")))
        .endpoint_url(value("AWS_ENDPOINT_URL"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build()
}
