//! The client's flags and tags, checked as it checks them.

use std::time::Duration;

use crate::host::systemd::span;

/// Flags of `up` and `set`: a name, and whether it takes a value.
const FLAGS: [(&str, bool); 27] = [
    ("accept-dns", false),
    ("accept-risk", true),
    ("accept-routes", false),
    ("advertise-connector", false),
    ("advertise-exit-node", false),
    ("advertise-routes", true),
    ("advertise-tags", true),
    ("auth-key", true),
    ("authkey", true),
    ("auto-update", false),
    ("client-id", true),
    ("client-secret", true),
    ("exit-node", true),
    ("exit-node-allow-lan-access", false),
    ("force-reauth", false),
    ("hostname", true),
    ("json", false),
    ("login-server", true),
    ("netfilter-mode", true),
    ("operator", true),
    ("qr", false),
    ("reset", false),
    ("shields-up", false),
    ("snat-subnet-routes", false),
    ("ssh", false),
    ("stateful-filtering", false),
    ("timeout", true),
];

pub(super) type Flags = Vec<(&'static str, String)>;

/// Go's flag syntax: one or two dashes, `=value` or the next word, and no value word for a yes-or-no flag.
pub(super) fn flags(arguments: &[String]) -> Result<Flags, String> {
    let mut flags = Flags::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let Some(name) = argument
            .strip_prefix("--")
            .or_else(|| argument.strip_prefix('-'))
        else {
            return Err(format!("too many non-flag arguments: {argument:?}"));
        };
        let (name, value) = name
            .split_once('=')
            .map_or((name, None), |(name, value)| (name, Some(value.to_owned())));
        let Some((name, takes_value)) = FLAGS.iter().find(|(known, _)| *known == name) else {
            return Err(format!("flag provided but not defined: -{name}"));
        };
        let value = match value {
            Some(value) => value,
            None if *takes_value => arguments
                .next()
                .cloned()
                .ok_or(format!("flag needs an argument: -{name}"))?,
            None => "true".to_owned(),
        };
        if !takes_value && !["true", "false", "1", "0", "t", "f"].contains(&value.as_str()) {
            return Err(format!(
                "invalid boolean value {value:?} for -{name}: parse error"
            ));
        }
        flags.push((name, value));
    }
    Ok(flags)
}

pub(super) fn get<'a>(flags: &'a Flags, name: &str) -> Option<&'a str> {
    flags
        .iter()
        .rev()
        .find(|(flag, _)| *flag == name)
        .map(|(_, value)| value.as_str())
}

pub(super) fn is_set(flags: &Flags, name: &str) -> bool {
    get(flags, name).is_some_and(|value| matches!(value, "true" | "1" | "t"))
}

/// The client's own check of a tag, before anything reaches the network.
pub(super) fn check_tag(tag: &str) -> Result<(), String> {
    let problem = match tag.strip_prefix("tag:") {
        None => "tags must start with 'tag:'",
        Some("") => "tag names must not be empty",
        Some(name) if !name.starts_with(|first: char| first.is_ascii_alphabetic()) => {
            "tag names must start with a letter, after 'tag:'"
        }
        Some(name)
            if !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') =>
        {
            "tag names can only contain numbers, letters, or dashes"
        }
        Some(_) => return Ok(()),
    };
    Err(format!("tag: {tag:?}: {problem}"))
}

/// Go's durations (`90s`, `1m30s`); 0 means no limit.
pub(super) fn timeout(flags: &Flags) -> Result<Duration, String> {
    let Some(text) = get(flags, "timeout") else {
        return Ok(Duration::MAX);
    };
    let bare = text.bytes().all(|byte| byte.is_ascii_digit());
    match span::parse(text).filter(|_| !bare || text == "0") {
        Some(Duration::ZERO) => Ok(Duration::MAX),
        Some(limit) => Ok(limit),
        None => Err(format!(
            "invalid value {text:?} for flag -timeout: parse error"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        let flags_of = |line: &str| flags(&words(line));
        let all =
            flags_of("--auth-key=file:/run/k --ssh -advertise-tags tag:a,tag:b --timeout=60s")
                .unwrap();
        assert_eq!(get(&all, "auth-key"), Some("file:/run/k"));
        assert!(is_set(&all, "ssh"));
        assert_eq!(get(&all, "advertise-tags"), Some("tag:a,tag:b"));
        assert_eq!(timeout(&all), Ok(Duration::from_secs(60)));
        assert_eq!(
            timeout(&flags_of("--timeout=0").unwrap()),
            Ok(Duration::MAX)
        );
        assert!(timeout(&flags_of("--timeout=60").unwrap()).is_err());
        assert_eq!(
            flags_of("--tags=x").unwrap_err(),
            "flag provided but not defined: -tags"
        );
        assert_eq!(
            flags_of("--ssh=maybe").unwrap_err(),
            "invalid boolean value \"maybe\" for -ssh: parse error"
        );
    }

    #[test]
    fn tags_are_checked_by_the_client() {
        assert_eq!(check_tag("tag:m8trx-cust-b4-smoke"), Ok(()));
        assert_eq!(
            check_tag("tag:b4_smoke").unwrap_err(),
            "tag: \"tag:b4_smoke\": tag names can only contain numbers, letters, or dashes"
        );
        for bad in ["b4", "tag:", "tag:4b", "tag:é"] {
            assert!(check_tag(bad).is_err(), "{bad}");
        }
    }
}
