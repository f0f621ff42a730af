//! Single values: endpoint URLs, regions, commands, durations.

use std::time::Duration;

use url::Url;

use super::ConfigError;
use crate::brain::BrainUrl;

pub(super) fn endpoint(origin: &str, text: &str) -> Result<Url, ConfigError> {
    let refuse = |reason: &str| ConfigError::Value {
        origin: origin.to_owned(),
        reason: format!("`{}` is not an endpoint URL: {reason}", text.escape_debug()),
    };
    let url = Url::parse(text.trim()).map_err(|e| refuse(&e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse("it must begin with http:// or https://"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refuse("it names no host"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("it must end before any `?` or `#`"));
    }
    Ok(url)
}

pub(super) fn check_account(origin: &str, account: &str) -> Result<(), ConfigError> {
    if account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(());
    }
    Err(ConfigError::Value {
        origin: origin.to_owned(),
        reason: format!(
            "`{}` is not an AWS account; it has 12 digits, like `123456789012`",
            account.escape_debug()
        ),
    })
}

pub(super) fn check_region(origin: &str, region: &str) -> Result<(), ConfigError> {
    let well_formed = !region.is_empty()
        && region
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && region.contains('-');
    if well_formed {
        Ok(())
    } else {
        Err(ConfigError::Value {
            origin: origin.to_owned(),
            reason: format!(
                "`{}` is not a region; it looks like `eu-central-1`",
                region.escape_debug()
            ),
        })
    }
}

/// A region as a person types it.
pub fn parse_region(region: &str) -> Result<(), String> {
    check_region("region", region).map_err(|error| match error {
        ConfigError::Value { reason, .. } => reason,
        other => other.to_string(),
    })
}

pub(super) fn brain_url(origin: &str, text: &str) -> Result<BrainUrl, ConfigError> {
    text.parse().map_err(|e| ConfigError::Value {
        origin: origin.to_owned(),
        reason: format!("{e}"),
    })
}

pub(super) fn words(origin: &str, command: &str) -> Result<Vec<String>, ConfigError> {
    match shell_words::split(command) {
        Ok(words) if !words.is_empty() => Ok(words),
        Ok(_) => Err(ConfigError::Value {
            origin: origin.to_owned(),
            reason: "the command has no words".to_owned(),
        }),
        Err(e) => Err(ConfigError::Value {
            origin: origin.to_owned(),
            reason: format!("the command cannot be split into words: {e}"),
        }),
    }
}

/// A duration such as `90s`, `10m` or `1h30m`; longer than zero and at most a day.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = |why: &str| {
        format!(
            "`{}` {why}; write it like `90s` or `10m`",
            text.escape_debug()
        )
    };
    let span: jiff::SignedDuration = text
        .trim()
        .parse()
        .map_err(|_| refuse("is not a duration"))?;
    let duration = Duration::try_from(span).map_err(|_| refuse("is negative"))?;
    if duration.is_zero() {
        return Err(refuse("is no time at all"));
    }
    if duration > Duration::from_secs(24 * 60 * 60) {
        return Err(refuse("is longer than a day"));
    }
    Ok(duration)
}

/// How long ago something may be, such as `90s`, `1h` or `7d`; longer than zero and at most ten years.
pub fn parse_ago(text: &str) -> Result<Duration, String> {
    const DAY: u64 = 24 * 60 * 60;
    let refuse = |why: &str| {
        format!(
            "`{}` {why}; write it like `90s`, `1h` or `7d`",
            text.escape_debug()
        )
    };
    let days = text.trim().strip_suffix('d').map(str::parse::<u64>);
    let duration = match days {
        Some(Ok(days)) => Duration::from_secs(days.saturating_mul(DAY)),
        _ => {
            let span: jiff::SignedDuration = text
                .trim()
                .parse()
                .map_err(|_| refuse("is not a duration"))?;
            Duration::try_from(span).map_err(|_| refuse("is negative"))?
        }
    };
    if duration.is_zero() {
        return Err(refuse("is no time at all"));
    }
    if duration > Duration::from_secs(3650 * DAY) {
        return Err(refuse("is longer than ten years"));
    }
    Ok(duration)
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
