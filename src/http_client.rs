//! What the clients of the brain and of Tailscale's API have in common.

use std::error::Error as _;
use std::time::Duration;

use url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client for the server at `url`, which must answer within `answer_timeout`.
pub(crate) fn client_for(url: &Url, answer_timeout: Duration) -> reqwest::Client {
    // reqwest takes TLS from the process's default provider; a second call is told it is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("m8trx/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(answer_timeout)
        // A redirect could carry a key to another server.
        .redirect(reqwest::redirect::Policy::none());
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    builder
        .build()
        .expect("the TLS provider is installed and the settings are constant")
}

/// Why there was no answer, with its causes, on one line and without the URL: reqwest repeats it in its own text.
pub(crate) fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut parts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !parts.contains(&text) {
            parts.push(text);
        }
        next = cause.source();
    }
    parts.join(": ")
}

/// Whether a URL stays on this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
