//! Tailscale's API: an OAuth client, one more for the policy file alone, or none.

use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;

use super::file::{TailscaleFile, secret_file};
use super::value::{endpoint, is_loopback};
use super::{ConfigError, Environment};
use crate::tailnet::client::{DEFAULT_ANSWER_TIMEOUT, DEFAULT_API_URL, DEFAULT_TAILNET};
use crate::tailnet::{OAuthClient, TailnetSettings};

const API_URL: &str = "M8TRX_TAILSCALE_API_URL";
const TAILNET: &str = "M8TRX_TAILSCALE_TAILNET";

/// The names of an OAuth client's settings: variables and keys of the file.
struct ClientNames {
    id: &'static str,
    secret_file: &'static str,
    section: &'static str,
}

/// For keys and devices, and for the policy file where it has none of its own.
const CLIENT: ClientNames = ClientNames {
    id: "M8TRX_TAILSCALE_CLIENT_ID",
    secret_file: "M8TRX_TAILSCALE_CLIENT_SECRET_FILE",
    section: "tailscale",
};

/// For the policy file alone.
const POLICY_CLIENT: ClientNames = ClientNames {
    id: "M8TRX_TAILSCALE_POLICY_CLIENT_ID",
    secret_file: "M8TRX_TAILSCALE_POLICY_CLIENT_SECRET_FILE",
    section: "tailscale.policy",
};

/// The settings of the API; `None` where no OAuth client is configured.
pub(super) fn api(
    file: &TailscaleFile,
    environment: Environment<'_>,
    path: &Path,
) -> Result<Option<TailnetSettings>, ConfigError> {
    let sources = Sources { environment, path };
    let api_url = match sources.text(API_URL, "tailscale.api_url", &file.api_url) {
        None => endpoint("the default", DEFAULT_API_URL)?,
        Some((origin, text)) => {
            let url = endpoint(&origin, &text)?;
            if url.scheme() != "https" && !is_loopback(&url) {
                return refuse(
                    origin,
                    "it must begin with https://: tokens and keys are sent there",
                );
            }
            if !url.username().is_empty() || url.password().is_some() {
                return refuse(origin, "no user or password belongs there");
            }
            url
        }
    };
    let client = sources.client(&CLIENT, &file.client_id, &file.client_secret_file)?;
    let policy = &file.policy;
    let policy_client = sources.client(
        &POLICY_CLIENT,
        &policy.client_id,
        &policy.client_secret_file,
    )?;
    let client = match (client, &policy_client) {
        (Some(client), _) => client,
        (None, None) => return Ok(None),
        (None, Some(_)) => {
            return refuse(
                format!("[{}]", POLICY_CLIENT.section),
                format!(
                    "it is for the policy file alone; keys and devices need an OAuth client of their own, in {} or `{}.client_id`",
                    CLIENT.id, CLIENT.section
                ),
            );
        }
    };
    let tailnet = match sources.text(TAILNET, "tailscale.tailnet", &file.tailnet) {
        None => DEFAULT_TAILNET.to_owned(),
        Some((_, name)) if name.bytes().all(|b| b.is_ascii_graphic() && b != b'/') => name,
        Some((origin, _)) => {
            return refuse(
                origin,
                "it is not the name of a tailnet, which looks like `example.com`, or `-` for the OAuth client's own",
            );
        }
    };
    Ok(Some(TailnetSettings {
        api_url,
        client,
        policy_client,
        tailnet,
        answer_timeout: DEFAULT_ANSWER_TIMEOUT,
    }))
}

fn refuse<T>(origin: String, reason: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Value {
        origin,
        reason: reason.into(),
    })
}

/// The environment before the file.
struct Sources<'s> {
    environment: Environment<'s>,
    path: &'s Path,
}

impl Sources<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    fn in_file(&self, key: &str) -> String {
        format!("{key} in {}", self.path.display())
    }

    /// A text and where it came from.
    fn text(&self, name: &str, key: &str, in_file: &Option<String>) -> Option<(String, String)> {
        self.variable(name)
            .map(|value| (name.to_owned(), value))
            .or_else(|| in_file.clone().map(|value| (self.in_file(key), value)))
    }

    /// An OAuth client: an id and a file with its secret, or neither.
    fn client(
        &self,
        names: &ClientNames,
        id: &Option<String>,
        secret_file_given: &Option<PathBuf>,
    ) -> Result<Option<OAuthClient>, ConfigError> {
        let section = names.section;
        let id = self.text(names.id, &format!("{section}.client_id"), id);
        let secret = self
            .variable(names.secret_file)
            .map(|value| (names.secret_file.to_owned(), PathBuf::from(value)))
            .or_else(|| {
                let given = secret_file_given.as_ref()?;
                let beside = self.path.parent();
                let beside = beside.map_or(given.clone(), |directory| directory.join(given));
                Some((
                    self.in_file(&format!("{section}.client_secret_file")),
                    beside,
                ))
            });
        let ((id_origin, id), (secret_origin, secret_path)) = match (id, secret) {
            (None, None) => return Ok(None),
            (Some(id), Some(secret)) => (id, secret),
            (Some((origin, _)), None) => {
                return refuse(
                    origin,
                    format!(
                        "an OAuth client has an id and a secret; name the file with its secret in {} or `{section}.client_secret_file`",
                        names.secret_file
                    ),
                );
            }
            (None, Some((origin, _))) => {
                return refuse(
                    origin,
                    format!(
                        "an OAuth client has an id and a secret; give its id in {} or `{section}.client_id`",
                        names.id
                    ),
                );
            }
        };
        if !id.chars().all(|c| c.is_ascii_alphanumeric()) {
            return refuse(
                id_origin,
                "it is not the id of an OAuth client, which consists of letters and digits",
            );
        }
        let secret = secret_file(&secret_origin, &secret_path)?;
        let form = secret.expose_secret();
        if !form.starts_with("tskey-client-") || !form.bytes().all(|b| b.is_ascii_graphic()) {
            return refuse(
                secret_origin,
                format!(
                    "{} holds no secret of an OAuth client, which is one line that begins with `tskey-client-`",
                    secret_path.display()
                ),
            );
        }
        Ok(Some(OAuthClient { id, secret }))
    }
}
