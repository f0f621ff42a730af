//! The brain's URL, as it is stored for hosts to read.

use std::fmt;
use std::str::FromStr;

use ::url::Url;

/// `http://host[:port][/prefix]` or https, without a trailing slash, a query, a fragment or a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrainUrl {
    text: String,
    url: Url,
}

/// Why a text is not a brain URL. Shows the text only where it can hold no password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBrainUrl {
    /// Nothing was given.
    #[error("the brain URL is empty; it looks like `http://brain:8080`")]
    Empty,
    /// It cannot be parsed.
    #[error("`{text}` is not a URL ({reason}); the brain's looks like `http://brain:8080`")]
    Unparsable {
        /// As given, control characters escaped.
        text: String,
        /// The parser's words.
        reason: String,
    },
    /// Another scheme.
    #[error("a brain URL begins with http:// or https://, not {0}:")]
    Scheme(String),
    /// A user or password inside.
    #[error("a brain URL holds no user or password: hosts authenticate with their brain keys")]
    Credentials,
    /// `?…` or `#…`.
    #[error("a brain URL has no `?` or `#` part: paths such as /v1/events are added to it")]
    Query,
    /// `{{`, a quote, a space or another character that has no place in a stored URL.
    #[error(
        "the brain URL holds {0:?}, which cannot stand in a URL that is stored and read by scripts"
    )]
    Character(char),
    /// A host name or a path that bootstrap.sh would not take.
    #[error("the {0} of the brain URL holds characters other than {1}")]
    Part(&'static str, &'static str),
    /// Longer than anything a host accepts.
    #[error("the brain URL has {0} characters; at most 2048 are allowed")]
    TooLong(usize),
}

impl BrainUrl {
    /// The port behind it: the one it names, or that of its scheme.
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(80)
    }
}

impl FromStr for BrainUrl {
    type Err = InvalidBrainUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const MAX_LENGTH: usize = 2048;
        let text = text.trim().trim_end_matches('/');
        if text.is_empty() {
            return Err(InvalidBrainUrl::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(InvalidBrainUrl::TooLong(text.len()));
        }
        let unusual = |c: char| {
            !c.is_ascii_graphic()
                || matches!(c, '{' | '}' | '"' | '\'' | '\\' | '`' | '$' | '<' | '>')
        };
        if let Some(character) = text.chars().find(|c| unusual(*c)) {
            return Err(InvalidBrainUrl::Character(character));
        }
        let url = Url::parse(text).map_err(|e| InvalidBrainUrl::Unparsable {
            text: if text.contains('@') {
                "…".to_owned()
            } else {
                text.to_owned()
            },
            reason: e.to_string(),
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidBrainUrl::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidBrainUrl::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidBrainUrl::Query);
        }
        // The same as `URL_PATTERN` of bootstrap.sh, which a test holds this against.
        let rest = text.split_once("://").map_or("", |(_, rest)| rest);
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let is_ipv6 = matches!(url.host(), Some(::url::Host::Ipv6(_)));
        let in_authority = |c: char| {
            c.is_ascii_alphanumeric()
                || matches!(c, '.' | '-' | ':')
                || (is_ipv6 && matches!(c, '[' | ']'))
        };
        if !authority.chars().all(in_authority) || authority.is_empty() || authority.ends_with(':')
        {
            return Err(InvalidBrainUrl::Part(
                "host",
                "letters, digits, `.` and `-`",
            ));
        }
        let in_path = |c: char| c.is_ascii_alphanumeric() || "._~%/-".contains(c);
        if !path.chars().all(in_path) {
            return Err(InvalidBrainUrl::Part(
                "path",
                "letters, digits and `._~%/-`",
            ));
        }
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Err(InvalidBrainUrl::Scheme(
                text.split(':').next().unwrap_or_default().to_owned(),
            ));
        }
        Ok(Self {
            text: text.to_owned(),
            url,
        })
    }
}

impl fmt::Display for BrainUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl BrainUrl {
    /// The URL as stored.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The URL, parsed.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Whether a host that was launched with `first` follows the brain here: into the tailnet, or within the domain of the first
    /// brain. Whoever can write the parameter must not get the hosts' keys. `tailnet` is its name, where it is known. The same
    /// rule as `may_follow` of the heartbeat script; one table holds them together.
    pub fn is_followed_from(&self, first: &Self, tailnet: Option<&str>) -> bool {
        let (first, host) = (first.host_as_written(), self.host_as_written());
        let within = |domain: &str| {
            let rest = host.strip_suffix(domain);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        within(own_domain(&first)) || tailnet.is_some_and(within) || is_in_tailnet(&host)
    }

    /// The name of the tailnet that the URL is in, by its own word: `tail1234.ts.net`.
    pub fn tailnet(&self) -> Option<String> {
        let host = self.host_as_written();
        let name = host.strip_suffix(".ts.net")?.rsplit('.').next()?.to_owned();
        Some(format!("{name}.ts.net"))
    }

    /// The host as hosts read it, who resolve no other notation of an address.
    fn host_as_written(&self) -> String {
        let rest = self.text.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or_default();
        let host = match authority.find(']') {
            Some(end) => &authority[..=end],
            None => authority.split(':').next().unwrap_or_default(),
        };
        host.to_ascii_lowercase()
    }

    /// A path of the brain's interface below this URL; `path` begins with `/`.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }
}

/// Where anyone can have a name: a host there follows to the same name only.
const SHARED: [&str; 7] = [
    "amazonaws",
    "cloudfront",
    "fly",
    "herokuapp",
    "on",
    "run",
    "ts",
];

/// The part of a host's name in which strangers have no names: its registered domain, or all of it.
fn own_domain(host: &str) -> &str {
    let labels: Vec<&str> = host.split('.').collect();
    let [.., second, top] = labels[..] else {
        return host;
    };
    let is_name = top.starts_with(|c: char| c.is_ascii_lowercase());
    if !is_name || labels.len() > 2 && SHARED.contains(&second) {
        return host;
    }
    // `co.uk` and its like: a country's second level.
    let is_suffix = top.len() == 2 && second.len() <= 3 && labels.len() > 2;
    let length: usize = labels
        .iter()
        .rev()
        .take(if is_suffix { 3 } else { 2 })
        .map(|label| label.len() + 1)
        .sum();
    &host[host.len() - (length - 1)..]
}

/// Whether a host is in the tailnet whatever that is called: a name of one label, or an address of Tailscale's.
fn is_in_tailnet(host: &str) -> bool {
    if let Ok(address) = host.parse::<std::net::Ipv4Addr>() {
        let [first, second, ..] = address.octets();
        return first == 100 && (64..128).contains(&second);
    }
    // What begins with a digit may be an address in another notation.
    let is_label = host.starts_with(|c: char| c.is_ascii_lowercase()) && !host.contains('.');
    is_label || host.starts_with("[fd7a:115c:a1e0:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_stored_without_trailing_slash() {
        let url: BrainUrl = " http://brain.tail1234.ts.net:8080/ ".parse().unwrap();
        assert_eq!(url.as_str(), "http://brain.tail1234.ts.net:8080");
        assert_eq!(
            url.join("/v1/events"),
            "http://brain.tail1234.ts.net:8080/v1/events"
        );
    }

    #[test]
    fn what_a_host_could_not_use_is_refused() {
        for (text, words) in [
            ("", "empty"),
            ("brain:8080", "begins with http:// or https://"),
            ("ftp://brain", "not ftp:"),
            ("http://", "not a URL"),
            ("http://user:hunter2@brain", "no user or password"),
            ("http://brain?x=1", "no `?` or `#`"),
            // The parser of URLs forgives a third slash; the host's does not.
            ("http:///brain", "the host"),
            ("http://brain/{{x}}", "'{'"),
            ("http://brain/$(id)", "'$'"),
            ("http://brain/a b", "' '"),
            ("http://brain\nhttp://other", "'\\n'"),
        ] {
            let error = text.parse::<BrainUrl>().unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
            assert!(!error.contains("hunter2"));
        }
    }
}
