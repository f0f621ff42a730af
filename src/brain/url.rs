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

    /// A path of the brain's interface below this URL; `path` begins with `/`.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }
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
