//! What goes wrong between this program and the brain.

use crate::customer::CustomerId;

/// A question to the brain that got no useful answer.
#[derive(Debug, thiserror::Error)]
pub enum BrainError {
    /// No connection, or no answer in time.
    #[error("the brain at {url} does not answer: {reason}")]
    Unreachable {
        /// Its URL.
        url: String,
        /// The causes, outermost first.
        reason: String,
        /// Whether the request may have arrived.
        sent: bool,
    },
    /// A web page: a gateway, a proxy or a captive portal answers in the brain's place.
    #[error("a web page answers at {url} ({status}), and not the brain")]
    Page {
        /// The URL.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// More than any answer of a brain.
    #[error("the brain at {url} answers more than {most} bytes")]
    TooLong {
        /// Its URL.
        url: String,
        /// What was read at most.
        most: usize,
    },
    /// The answer to the request for a key was lost.
    #[error("{cause}; a key labelled `{label}` may have been minted, which nobody knows")]
    KeyLost {
        /// What the key is labelled.
        label: String,
        /// What was answered.
        cause: Box<BrainError>,
    },
    /// The brain says that a key is revoked, and takes it.
    #[error("the brain at {url} answers that the key {id} is revoked, and still accepts it")]
    NotRevoked {
        /// Its URL.
        url: String,
        /// What it calls the key.
        id: String,
    },
    /// Nothing came in the time that was left.
    #[error("the brain gave no answer within {0} s")]
    NoAnswer(u64),
    /// Something answers there, but with an error of its own.
    #[error("the brain at {url} answers {status} to {request}{}", detail(.message))]
    Status {
        /// Its URL.
        url: String,
        /// `GET /v1/events`
        request: &'static str,
        /// The HTTP status.
        status: u16,
        /// The brain's words, shortened and masked.
        message: String,
    },
    /// Something answers there, and not as a brain does.
    #[error(
        "what answers at {url} is no brain: it answers {status} to an event under a key that is none, where a brain answers 401"
    )]
    NoBrain {
        /// The URL.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// 401 or 403 to a key.
    #[error("the brain at {url} refuses the {what}")]
    Refused {
        /// Its URL.
        url: String,
        /// `brain key of cust_acme` or `admin token`.
        what: String,
    },
    /// The brain has no route to read events.
    #[error(
        "the brain at {url} has no route GET /v1/events (it answers {status}), so heartbeats cannot be read over HTTP"
    )]
    NoEventsRoute {
        /// Its URL.
        url: String,
        /// 404 or 405.
        status: u16,
    },
    /// The brain has no route to mint keys.
    #[error("the brain at {url} has no route POST /v1/keys (it answers {status})")]
    NoKeysRoute {
        /// Its URL.
        url: String,
        /// 404 or 405.
        status: u16,
    },
    /// An answer that is not what the contract says.
    #[error(
        "the brain at {url} answered {request} with something else than the contract says: {reason}"
    )]
    Unexpected {
        /// Its URL.
        url: String,
        /// `GET /v1/events`
        request: &'static str,
        /// What is wrong with it, without the answer itself.
        reason: String,
    },
    /// The brain answered with another customer's event: isolation is broken.
    #[error("the brain answered a question with the key of {asked} with an event of {answered}")]
    OtherCustomer {
        /// Whose key was used.
        asked: CustomerId,
        /// Whose event came.
        answered: String,
    },
    /// The mint command failed, or printed something else than a key.
    #[error("the mint command `{command}` {reason}")]
    Mint {
        /// Its words.
        command: String,
        /// What happened, masked.
        reason: String,
    },
    /// The brain's database cannot be asked.
    #[error("the brain's database cannot be asked: {0}")]
    Database(String),
    /// The brain's database does not answer, or not now.
    #[error("the brain's database does not answer: {0}")]
    DatabaseAway(String),
}

fn detail(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

impl BrainError {
    /// Whether it may be away for a moment, so that a wait goes on: no connection, an error of a gateway, a restart.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NoAnswer(_) | Self::DatabaseAway(_) => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreachable { url, .. } => format!(
                "the brain is reachable over the tailnet only: check `tailscale status` on this machine, then `curl -sS {url}/v1/events`; a wrong one is corrected with `m8trx brain-url set`, or --brain-url where none is stored yet"
            ),
            Self::NoBrain { url, .. } => format!(
                "check host, port and path: `curl -sS -X POST {url}/v1/events` shows what answers there"
            ),
            Self::NoEventsRoute { .. } => {
                "set `brain.database_url` (or `brain.database_url_file`) in the configuration file, and heartbeats are read from the brain's PostgreSQL".to_owned()
            }
            Self::NoKeysRoute { .. } => {
                "mint with the brain's own script: --mint-command 'node bin/mint-key.js', or `brain.mint_command` in the configuration file".to_owned()
            }
            Self::Refused { what, .. } if what.contains("admin") => {
                "check the file named by `brain.admin_token_file` or M8TRX_BRAIN_ADMIN_TOKEN_FILE".to_owned()
            }
            Self::Refused { .. } => {
                "the key was revoked, or belongs to another brain: mint a new one".to_owned()
            }
            Self::Mint { .. } => {
                "run the command by hand where the brain's script is, then give its key with --brain-key-file; or set --mint-command".to_owned()
            }
            Self::OtherCustomer { .. } => {
                "stop here: the brain's customer scoping does not hold; tell whoever runs the brain".to_owned()
            }
            Self::Database(_) | Self::DatabaseAway(_) => {
                "check `brain.database_url` and that this machine may reach it (psql with the same URL)".to_owned()
            }
            Self::Page { url, .. } => format!(
                "sign in to the network, or take the proxy out of the way, until `curl -sS {url}/v1/events` shows the brain's own answer"
            ),
            Self::KeyLost { .. } => {
                "run the same command again: it revokes such a key once its own is stored, where the brain lists its keys; else look there for the label".to_owned()
            }
            Self::NotRevoked { id, .. } => {
                format!("revoke {id} where the brain runs, then run the same command again")
            }
            Self::Status { .. }
            | Self::TooLong { .. }
            | Self::Unexpected { .. }
            | Self::NoAnswer(_) => {
                "check that the brain URL points at the brain, and its own log".to_owned()
            }
        })
    }
}
