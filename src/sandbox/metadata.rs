//! The instance metadata service (IMDSv2) of one instance.
//!
//! Source: "Use instance metadata" in the EC2 user guide. Everything is read from the cloud at the moment of the request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use http::{Method, StatusCode};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::json;

use crate::customer::TAG_KEY;

use super::cloud::{ACCOUNT, Cloud, HostCredentials, HostView};
use super::fault::Fault;
use super::http::{Handler, Request, Response, header, plain, response};
use super::random;

/// Longest life of a session token.
const MAX_TOKEN_SECONDS: u64 = 21_600;

struct Service {
    cloud: Cloud,
    region: String,
    instance: String,
    /// Session tokens and when they end.
    tokens: Mutex<HashMap<String, Instant>>,
}

/// What answers an instance's requests to 169.254.169.254.
pub(crate) fn handler(cloud: Cloud, region: String, instance: String) -> Handler {
    let service = Arc::new(Service {
        cloud,
        region,
        instance,
        tokens: Mutex::default(),
    });
    Arc::new(move |request| {
        let service = service.clone();
        Box::pin(async move { service.answer(&request) })
    })
}

fn error(status: StatusCode) -> Response {
    let reason = status.canonical_reason().unwrap_or_default();
    let code = status.as_u16();
    let page = format!(
        "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n<html>\n <head>\n  <title>{code} - {reason}</title>\n </head>\n <body>\n  \
         <h1>{code} - {reason}</h1>\n </body>\n</html>\n"
    );
    response(status, "text/html", page)
}

impl Service {
    fn answer(&self, request: &Request) -> Response {
        let Some(view) = self.cloud.host_view(&self.region, &self.instance) else {
            return error(StatusCode::NOT_FOUND);
        };
        if !view.options.endpoint_enabled {
            return error(StatusCode::FORBIDDEN);
        }
        let path = request.uri().path();
        if path == "/latest/api/token" {
            return self.token(request);
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return error(StatusCode::METHOD_NOT_ALLOWED);
        }
        let allowed = match header(request, "x-aws-ec2-metadata-token") {
            Some(token) => self.is_valid(token),
            None => !view.options.tokens_required,
        };
        if !allowed {
            return error(StatusCode::UNAUTHORIZED);
        }
        self.data(path, &view)
            .unwrap_or_else(|| error(StatusCode::NOT_FOUND))
    }

    fn token(&self, request: &Request) -> Response {
        if request.method() != Method::PUT {
            return error(StatusCode::METHOD_NOT_ALLOWED);
        }
        // A request that was forwarded comes from a misconfigured proxy: the service refuses it.
        if request.headers().contains_key("x-forwarded-for") {
            return error(StatusCode::FORBIDDEN);
        }
        let ttl = header(request, "x-aws-ec2-metadata-token-ttl-seconds")
            .and_then(|ttl| ttl.parse::<u64>().ok())
            .filter(|ttl| (1..=MAX_TOKEN_SECONDS).contains(ttl));
        let Some(ttl) = ttl else {
            return error(StatusCode::BAD_REQUEST);
        };
        let token = format!("{}==", random::mixed(54));
        let now = Instant::now();
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, ends| *ends > now);
        tokens.insert(token.clone(), now + Duration::from_secs(ttl));
        let mut answer = plain(StatusCode::OK, token);
        answer.headers_mut().insert(
            "x-aws-ec2-metadata-token-ttl-seconds",
            HeaderValue::from(ttl),
        );
        answer
    }

    fn is_valid(&self, token: &str) -> bool {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(token).is_some_and(|ends| *ends > Instant::now())
    }

    /// The data at a path; none where there is none.
    fn data(&self, path: &str, view: &HostView) -> Option<Response> {
        // Every version that the service ever had answers alike here.
        let mut parts = path.trim_start_matches('/').splitn(2, '/');
        let version = parts.next().unwrap_or_default();
        let dated = version.len() == 10 && version.starts_with("20");
        if version.is_empty() {
            return Some(plain(StatusCode::OK, "latest"));
        }
        if version != "latest" && !dated {
            return None;
        }
        let rest = parts.next().unwrap_or_default();
        match rest {
            "" => Some(plain(StatusCode::OK, "dynamic\nmeta-data\nuser-data")),
            "user-data" | "user-data/" => (!view.user_data.is_empty()).then(|| {
                response(
                    StatusCode::OK,
                    "application/octet-stream",
                    view.user_data.clone(),
                )
            }),
            "dynamic/instance-identity/document" => {
                Some(plain(StatusCode::OK, self.identity_document(view)))
            }
            "dynamic" | "dynamic/" => Some(plain(StatusCode::OK, "instance-identity/")),
            "dynamic/instance-identity" | "dynamic/instance-identity/" => {
                Some(plain(StatusCode::OK, "document"))
            }
            "meta-data" => Some(plain(StatusCode::OK, self.listing(view))),
            _ => self.meta_data(rest.strip_prefix("meta-data/")?, view),
        }
    }

    fn listing(&self, view: &HostView) -> String {
        let mut names = vec![
            "ami-id",
            "ami-launch-index",
            "hostname",
            "instance-action",
            "instance-id",
            "instance-life-cycle",
            "instance-type",
            "local-hostname",
            "local-ipv4",
            "mac",
            "placement/",
            "reservation-id",
            "services/",
        ];
        if view.profile.is_some() {
            names.push("iam/");
        }
        if view.options.tags_enabled {
            names.push("tags/");
        }
        names.sort_unstable();
        names.join("\n")
    }

    fn meta_data(&self, path: &str, view: &HostView) -> Option<Response> {
        if let Some(rest) = path.strip_prefix("iam/") {
            return self.iam(rest, view);
        }
        if let Some(rest) = path.strip_prefix("tags/") {
            return self.tags(rest, view);
        }
        let text = match path {
            "" => self.listing(view),
            "ami-id" => view.image.clone(),
            "ami-launch-index" => "0".to_owned(),
            "instance-id" => view.instance_id.clone(),
            "instance-action" => "none".to_owned(),
            "instance-life-cycle" => "on-demand".to_owned(),
            "instance-type" => view.kind.clone(),
            "hostname" | "local-hostname" => view.private_dns.clone(),
            "local-ipv4" => view.private_address.clone(),
            "mac" => view.mac.clone(),
            "reservation-id" => view.reservation.clone(),
            "placement/" => "availability-zone\nregion".to_owned(),
            "placement/region" => self.region.clone(),
            "placement/availability-zone" => view.zone.clone(),
            "services/" => "domain\npartition".to_owned(),
            "services/domain" => "amazonaws.com".to_owned(),
            "services/partition" => "aws".to_owned(),
            _ => return None,
        };
        Some(plain(StatusCode::OK, text))
    }

    fn tags(&self, path: &str, view: &HostView) -> Option<Response> {
        if !view.options.tags_enabled {
            return None;
        }
        let hidden = |key: &str| key == TAG_KEY && self.cloud.has_fault(Fault::CustomerTagMissing);
        let text = match path {
            "" => "instance/".to_owned(),
            "instance" | "instance/" => {
                let keys = view.tags.keys().filter(|key| !hidden(key));
                keys.cloned().collect::<Vec<_>>().join("\n")
            }
            _ => {
                let key = path.strip_prefix("instance/")?;
                let key = percent_encoding::percent_decode_str(key)
                    .decode_utf8()
                    .ok()?;
                view.tags
                    .get(key.as_ref())
                    .filter(|_| !hidden(&key))?
                    .clone()
            }
        };
        Some(plain(StatusCode::OK, text))
    }

    fn iam(&self, path: &str, view: &HostView) -> Option<Response> {
        let profile = view.profile.as_ref()?;
        let credentials = self.cloud.host_credentials(&self.region, &self.instance);
        let answer = match (path, credentials) {
            ("" | "/", _) => return Some(plain(StatusCode::OK, "info\nsecurity-credentials/")),
            (_, HostCredentials::None) => return None,
            ("info", HostCredentials::Ready(_)) => json!({
                "Code": "Success",
                "LastUpdated": seconds(Timestamp::now()),
                "InstanceProfileArn": profile.arn,
                "InstanceProfileId": profile.id,
            }),
            ("info", HostCredentials::NotTrusted { role }) => refusal(&role),
            ("security-credentials" | "security-credentials/", credentials) => {
                let role = match credentials {
                    HostCredentials::Ready(credentials) => credentials.role,
                    HostCredentials::NotTrusted { role } => role,
                    HostCredentials::None => return None,
                };
                return Some(plain(StatusCode::OK, role));
            }
            (path, HostCredentials::NotTrusted { role }) => {
                (path.strip_prefix("security-credentials/")? == role).then(|| refusal(&role))?
            }
            (path, HostCredentials::Ready(credentials)) => {
                if path.strip_prefix("security-credentials/")? != credentials.role {
                    return None;
                }
                json!({
                    "Code": "Success",
                    "LastUpdated": seconds(credentials.issued),
                    "Type": "AWS-HMAC",
                    "AccessKeyId": credentials.access_key,
                    "SecretAccessKey": credentials.secret.expose_secret(),
                    "Token": credentials.token.expose_secret(),
                    "Expiration": seconds(credentials.expires),
                })
            }
        };
        // The service labels its JSON as plain text.
        let text = serde_json::to_string_pretty(&answer).unwrap_or_default();
        Some(plain(StatusCode::OK, text))
    }

    fn identity_document(&self, view: &HostView) -> String {
        let document = json!({
            "accountId": ACCOUNT,
            "architecture": view.architecture,
            "availabilityZone": view.zone,
            "billingProducts": null,
            "devpayProductCodes": null,
            "marketplaceProductCodes": null,
            "imageId": view.image,
            "instanceId": view.instance_id,
            "instanceType": view.kind,
            "kernelId": null,
            "pendingTime": seconds(view.launched),
            "privateIp": view.private_address,
            "ramdiskId": null,
            "region": self.region,
            "version": "2017-09-30",
        });
        serde_json::to_string_pretty(&document).unwrap_or_default()
    }
}

fn refusal(role: &str) -> serde_json::Value {
    json!({
        "Code": "AssumeRoleUnauthorizedAccess",
        "Message": format!(
            "EC2 cannot assume the role {role}. Please see documentation at \
             https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_iam-ec2.html#troubleshoot_iam-ec2_errors-info-doc."
        ),
        "LastUpdated": seconds(Timestamp::now()),
    })
}

/// RFC 3339 in whole seconds.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests;
