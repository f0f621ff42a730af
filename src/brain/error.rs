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
            Self::Status { .. } | Self::Unexpected { .. } | Self::NoAnswer(_) => {
                "check that the brain URL points at the brain, and its own log".to_owned()
            }
        })
    }
}
