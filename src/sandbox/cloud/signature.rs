//! Verification of AWS Signature Version 4.
//!
//! Source: "Signature Version 4 for API requests" in the IAM user guide.

use std::time::{Duration, SystemTime};

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::error::{ApiError, Service};
use crate::http::{Request, header};
use crate::random::hexadecimal;

/// Farthest a request's date may be from the service's clock, either way.
const MAX_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// The parts of an `Authorization` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authorization {
    pub access_key: String,
    /// `yyyymmdd` of the credential scope.
    pub date: String,
    pub region: String,
    pub service: String,
    pub signed_headers: Vec<String>,
    pub signature: String,
}

impl Authorization {
    /// Reads `AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`; none when it is another scheme or broken.
    pub fn parse(header: &str) -> Option<Self> {
        let fields = header.strip_prefix("AWS4-HMAC-SHA256")?;
        let mut credential = None;
        let mut signed_headers = None;
        let mut signature = None;
        for field in fields.split(',') {
            match field.trim().split_once('=')? {
                ("Credential", value) => credential = Some(value),
                ("SignedHeaders", value) => signed_headers = Some(value),
                ("Signature", value) => signature = Some(value),
                _ => return None,
            }
        }
        let mut scope = credential?.split('/');
        let authorization = Self {
            access_key: scope.next()?.to_owned(),
            date: scope.next()?.to_owned(),
            region: scope.next()?.to_owned(),
            service: scope.next()?.to_owned(),
            signed_headers: signed_headers?.split(';').map(str::to_owned).collect(),
            signature: signature?.to_owned(),
        };
        (scope.next() == Some("aws4_request") && scope.next().is_none()).then_some(authorization)
    }

    /// Whether the request was signed with this secret, over all that must be signed, at about `now`.
    pub fn verify(
        &self,
        service: Service,
        request: &Request,
        secret: &str,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let amz_date = header(request, "x-amz-date").ok_or_else(|| ApiError::unsigned(service))?;
        let time = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", amz_date)
            .and_then(|parsed| parsed.to_datetime())
            .and_then(|datetime| jiff::tz::TimeZone::UTC.to_timestamp(datetime))
            .map_err(|_| {
                let message = format!(
                    "Date must be in ISO-8601 'basic format'. Got '{amz_date}'. See http://en.wikipedia.org/wiki/ISO_8601"
                );
                ApiError::signature(service, message)
            })?;
        if !amz_date.starts_with(&self.date) {
            return Err(ApiError::signature(
                service,
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP",
            ));
        }
        if now.duration_since(time).abs() > MAX_SKEW {
            let message = if time < now {
                format!(
                    "Signature expired: {amz_date} is more than 5 minutes earlier than the service's clock"
                )
            } else {
                format!(
                    "Signature not yet current: {amz_date} is more than 5 minutes later than the service's clock"
                )
            };
            return Err(ApiError::stale_signature(service, message));
        }
        // AWS insists on these being part of what is signed.
        for name in ["host", "x-amz-date", "x-amz-security-token", "x-amz-target"] {
            let present = request.headers().contains_key(name);
            if present && !self.signed_headers.iter().any(|signed| signed == name) {
                return Err(ApiError::signature(
                    service,
                    format!("'{name}' must be a 'SignedHeader' in the AWS Authorization."),
                ));
            }
        }

        let scope = format!(
            "{}/{}/{}/aws4_request",
            self.date, self.region, self.service
        );
        let canonical = self.canonical_request(request);
        let text = format!(
            "AWS4-HMAC-SHA256\n{amz_date}\n{scope}\n{}",
            hexadecimal(&Sha256::digest(canonical.as_bytes()))
        );
        let seconds = u64::try_from(time.as_second()).unwrap_or_default();
        let signed_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let key = generate_signing_key(secret, signed_at, &self.region, &self.service);
        if !same(&calculate_signature(key, text.as_bytes()), &self.signature) {
            return Err(ApiError::signature(
                service,
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
                 Access Key and signing method. Consult the service documentation for details.",
            ));
        }
        Ok(())
    }

    fn canonical_request(&self, request: &Request) -> String {
        let mut query: Vec<(String, String)> =
            form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
                .map(|(name, value)| (encode(&name), encode(&value)))
                .collect();
        query.sort_unstable();
        let query: Vec<String> = query
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut text = format!(
            "{}\n{}\n{}\n",
            request.method(),
            // The path is encoded a second time, except in S3.
            request
                .uri()
                .path()
                .split('/')
                .map(encode)
                .collect::<Vec<_>>()
                .join("/"),
            query.join("&"),
        );
        for name in &self.signed_headers {
            let values: Vec<String> = request
                .headers()
                .get_all(name)
                .iter()
                .map(|value| {
                    let value = String::from_utf8_lossy(value.as_bytes());
                    value.split_whitespace().collect::<Vec<_>>().join(" ")
                })
                .collect();
            text.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        text.push('\n');
        text.push_str(&self.signed_headers.join(";"));
        text.push('\n');
        text.push_str(&hexadecimal(&Sha256::digest(request.body())));
        text
    }
}

fn encode(text: &str) -> String {
    const RESERVED: percent_encoding::AsciiSet = percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    percent_encoding::utf8_percent_encode(text, &RESERVED).to_string()
}

/// Equality in a time that does not depend on where the texts differ.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && a.bytes()
            .zip(b.bytes())
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
}
