//! Tailscale's API: an OAuth client, or none.

use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;

use super::file::{TailscaleFile, secret_file};
use super::value::endpoint;
use super::{ConfigError, Environment};
use crate::http_client::is_loopback;
use crate::tailnet::TailnetSettings;
use crate::tailnet::client::{DEFAULT_ANSWER_TIMEOUT, DEFAULT_API_URL, DEFAULT_TAILNET};

const ID: &str = "M8TRX_TAILSCALE_CLIENT_ID";
const SECRET_FILE: &str = "M8TRX_TAILSCALE_CLIENT_SECRET_FILE";
const API_URL: &str = "M8TRX_TAILSCALE_API_URL";
const TAILNET: &str = "M8TRX_TAILSCALE_TAILNET";

/// The settings of the API; `None` where no OAuth client is configured.
pub(super) fn api(
    file: &TailscaleFile,
    environment: Environment<'_>,
    path: &Path,
) -> Result<Option<TailnetSettings>, ConfigError> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    let in_file = |key: &str| format!("{key} in {}", path.display());
    let from = |name: &str, key: &str, in_the_file: &Option<String>| {
        variable(name)
            .map(|value| (name.to_owned(), value))
            .or_else(|| in_the_file.clone().map(|value| (in_file(key), value)))
    };
    let refuse = |origin: String, reason: &str| {
        Err(ConfigError::Value {
            origin,
            reason: reason.to_owned(),
        })
    };
    let api_url = match from(API_URL, "tailscale.api_url", &file.api_url) {
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
    let id = from(ID, "tailscale.client_id", &file.client_id);
    let secret = variable(SECRET_FILE)
        .map(|value| (SECRET_FILE.to_owned(), PathBuf::from(value)))
        .or_else(|| {
            let beside =
                |given: &PathBuf| path.parent().map_or(given.clone(), |dir| dir.join(given));
            let given = file.client_secret_file.as_ref()?;
            Some((in_file("tailscale.client_secret_file"), beside(given)))
        });
    let ((id_origin, id), (secret_origin, secret_path)) = match (id, secret) {
        (None, None) => return Ok(None),
        (Some(id), Some(secret)) => (id, secret),
        (Some((origin, _)), None) => {
            return refuse(
                origin,
                &format!(
                    "an OAuth client has an id and a secret; name the file with its secret in {SECRET_FILE} or `tailscale.client_secret_file`"
                ),
            );
        }
        (None, Some((origin, _))) => {
            return refuse(
                origin,
                &format!(
                    "an OAuth client has an id and a secret; give its id in {ID} or `tailscale.client_id`"
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
    let client_secret = secret_file(&secret_origin, &secret_path)?;
    let form = client_secret.expose_secret();
    if !form.starts_with("tskey-client-") || !form.bytes().all(|b| b.is_ascii_graphic()) {
        return refuse(
            secret_origin,
            &format!(
                "{} holds no secret of an OAuth client, which is one line that begins with `tskey-client-`",
                secret_path.display()
            ),
        );
    }
    let tailnet = match from(TAILNET, "tailscale.tailnet", &file.tailnet) {
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
        client_id: id,
        client_secret,
        tailnet,
        answer_timeout: DEFAULT_ANSWER_TIMEOUT,
    }))
}
