//! HTTPS as a program on the host does it: names from its `/etc/hosts`, trust from its certificate bundle.

use std::error::Error;
use std::fs;
use std::time::Duration;

const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    Name,
    Certificate,
    Connect,
    TimedOut,
}

/// Sends `body` and returns status and answer.
pub(super) fn post(
    url: &str,
    headers: Vec<(String, String)>,
    body: String,
    limit: Duration,
) -> Result<(u16, String), NoAnswer> {
    // Set already when this process has asked before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|_| NoAnswer::Connect)?;
    runtime.block_on(async {
        let bundle = fs::read(BUNDLE).unwrap_or_default();
        let certificates =
            reqwest::Certificate::from_pem_bundle(&bundle).map_err(|_| NoAnswer::Certificate)?;
        let client = reqwest::Client::builder()
            .tls_certs_only(certificates)
            .no_proxy()
            .timeout(limit)
            .build()
            .map_err(|_| NoAnswer::Certificate)?;
        let mut request = client.post(url).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.map_err(|error| classify(&error))?;
        let status = answer.status().as_u16();
        let text = answer.text().await.map_err(|error| classify(&error))?;
        Ok((status, text))
    })
}

fn classify(error: &reqwest::Error) -> NoAnswer {
    if error.is_timeout() {
        return NoAnswer::TimedOut;
    }
    let mut text = String::new();
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        text.push_str(&error.to_string());
        cause = error.source();
    }
    if text.contains("dns error") || text.contains("failed to lookup") {
        NoAnswer::Name
    } else if text.contains("certificate") {
        NoAnswer::Certificate
    } else {
        NoAnswer::Connect
    }
}
