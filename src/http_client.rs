//! What the clients of the brain and of Tailscale's API have in common.

use std::error::Error as _;
use std::sync::OnceLock;
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
    if url.scheme() == "http" || !has_root_certificates() {
        // Nothing to check a certificate with, or none to check: a server that has one is refused.
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder = builder.tls_backend_preconfigured(tls);
    }
    builder
        .build()
        .expect("the TLS provider is installed, and there are root certificates or none are needed")
}

/// What to do where TLS has nothing to check certificates with.
pub(crate) const NO_ROOT_CERTIFICATES: &str = "install them (apt-get install ca-certificates), or set SSL_CERT_FILE to a file that holds some; the sandbox and http endpoints need none";

/// Whether this machine has root certificates.
pub(crate) fn has_root_certificates() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| !rustls_native_certs::load_native_certs().certs.is_empty())
}

/// Why there was no answer, with its causes, on one line and without the URL: reqwest repeats it in its own text.
pub(crate) fn reason(error: reqwest::Error) -> String {
    let lacks_roots = error.is_connect()
        && error.url().is_some_and(|url| url.scheme() == "https")
        && !has_root_certificates();
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
    if lacks_roots {
        parts.push(format!(
            "this machine has no root certificates: {NO_ROOT_CERTIFICATES}"
        ));
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
