//! Heartbeats read from the brain's PostgreSQL.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{Client, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::BrainError;
use super::events::{BrainEvent, HEARTBEAT, When};
use super::heartbeat::{Heartbeat, Heartbeats, Host, SKEW};
use crate::customer::CustomerId;
use crate::secret::{ExposeSecret, SecretString};

/// A connection to the brain's database.
pub struct Database {
    client: Client,
    connection: tokio::task::JoinHandle<()>,
    patience: Duration,
    /// Set once a question got no answer.
    lost: AtomicBool,
}

/// How long the database is given to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// And to be connected to, in all: also by a server that takes the connection and then says nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Newest first of each kind. A host without an id in its heartbeats is told by its name, in [`super::heartbeat`].
const HEARTBEATS: &str = "\
with of_customer as (
  select ts, payload::text as payload, coalesce(payload->>'instance_id', '') as host,
         ts > now() + make_interval(secs => $4) as ahead
  from events
  where customer_id = $1 and event_type = 'heartbeat' and ts >= $2 and ts < 'infinity'
)
(select ts, payload, now() from of_customer where not ahead and host = any($3) order by ts desc limit 20)
union all
(select ts, payload, now() from of_customer where not ahead and host = '' order by ts desc limit 20)
union all
(select ts, payload, now() from of_customer where not ahead and host <> '' and not host = any($3) order by ts desc limit 1)
union all
(select ts, payload, now() from of_customer where ahead order by ts desc limit 1)";

impl Drop for Database {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Words of PostgreSQL, without the connection string.
fn failed(error: &tokio_postgres::Error) -> BrainError {
    let mut text = match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => error.to_string(),
    };
    if error.as_db_error().is_none()
        && let Some(cause) = std::error::Error::source(error)
    {
        text = format!("{text}: {cause}");
    }
    if is_passing(error) {
        BrainError::DatabaseAway(text)
    } else {
        BrainError::Database(text)
    }
}

/// Whether the same question may be answered a moment later: the server is away, restarts, or has no connection left.
fn is_passing(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        // Classes 08 (connection), 40 (rollback), 53 (resources) and 57P (operator intervention).
        Some(code) => ["08", "40", "53", "57P"]
            .iter()
            .any(|class| code.code().starts_with(class)),
        None => {
            error.is_closed()
                || std::error::Error::source(error)
                    .is_some_and(|cause| cause.is::<std::io::Error>())
        }
    }
}

fn silent(patience: Duration) -> BrainError {
    BrainError::DatabaseAway(format!("no answer within {} s", patience.as_secs()))
}

impl Database {
    /// Connects, with TLS where the URL or the server asks for it (`sslmode`), within ten seconds.
    pub async fn connect(url: &SecretString) -> Result<Self, BrainError> {
        let mut config: tokio_postgres::Config = url
            .expose_secret()
            .parse()
            .map_err(|_| BrainError::Database("`brain.database_url` is not a PostgreSQL URL; it looks like `postgresql://user:password@host:5432/brain`".to_owned()))?;
        config.application_name("m8trx");
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        // What the configuration limits is each address; a server that never answers would be waited for without an end.
        let connected = tokio::time::timeout(CONNECT_TIMEOUT * 2, config.connect(tls())).await;
        let connected = connected.map_err(|_| silent(CONNECT_TIMEOUT * 2))?;
        let (client, connection) = connected.map_err(|e| failed(&e))?;
        let connection = tokio::spawn(async move {
            // Its error also fails the query that waits on it, where it is told.
            let _ = connection.await;
        });
        Ok(Self {
            client,
            connection,
            patience: ANSWER_TIMEOUT,
            lost: AtomicBool::new(false),
        })
    }

    /// Gives a long answer more time.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Whether questions can still be asked on this connection.
    pub fn is_usable(&self) -> bool {
        !self.client.is_closed() && !self.lost.load(Ordering::Relaxed)
    }

    /// Whether events of one customer are found without reading all.
    pub async fn has_index(&self) -> Result<bool, BrainError> {
        // A question about the table itself, so that one that is missing or closed to this user is told.
        self.query("select 1 from events limit 1", &[]).await?;
        let query = "select 1 from pg_indexes where tablename = 'events' and indexdef like '%(customer_id%'";
        Ok(!self.query(query, &[]).await?.is_empty())
    }

    /// Whether the events can be read, without reading any.
    pub async fn check(&self) -> Result<(), BrainError> {
        let query = "select customer_id, event_type, ts, payload->>'hostname' from events limit 0";
        self.query(query, &[]).await.map(drop)
    }

    /// [`super::Feeds::heartbeats`]: the newest that may be of these hosts, the newest of another one, the newest from the future.
    pub(super) async fn heartbeats(
        &self,
        customer: &CustomerId,
        hosts: &[Host<'_>],
        since: Timestamp,
    ) -> Result<Heartbeats, BrainError> {
        let since = system_time(since)?;
        let ids: Vec<&str> = hosts.iter().map(|host| host.id).collect();
        let ahead = SKEW.as_secs() as f64;
        let rows = self
            .query(HEARTBEATS, &[&customer.as_str(), &since, &ids, &ahead])
            .await?;
        let mut now = Timestamp::now();
        let mut found = Vec::new();
        for row in rows {
            let ts: SystemTime = column(&row, 0)?;
            let payload: Option<String> = column(&row, 1)?;
            let clock: SystemTime = column(&row, 2)?;
            now = Timestamp::try_from(clock).map_err(impossible)?;
            let Ok(ts) = Timestamp::try_from(ts) else {
                continue;
            };
            found.extend(Heartbeat::of(&BrainEvent {
                ts: When::At(ts),
                event_type: HEARTBEAT.to_owned(),
                payload: payload
                    .and_then(|text| serde_json::from_str(&text).ok())
                    .unwrap_or_default(),
            }));
        }
        Ok(Heartbeats::new(found, now))
    }

    /// The rows of a query.
    pub(super) async fn query(
        &self,
        query: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, BrainError> {
        let asked = self.client.query(query, values);
        match tokio::time::timeout(self.patience, asked).await {
            Ok(rows) => rows.map_err(|e| failed(&e)),
            Err(_) => {
                self.lost.store(true, Ordering::Relaxed);
                Err(silent(self.patience))
            }
        }
    }
}

fn impossible(error: jiff::Error) -> BrainError {
    BrainError::Database(format!("a time cannot be represented: {error}"))
}

/// A time as PostgreSQL takes it.
pub(super) fn system_time(time: Timestamp) -> Result<SystemTime, BrainError> {
    SystemTime::try_from(time).map_err(impossible)
}

/// A column of a row, or that it is of another type.
pub(super) fn column<'r, T: FromSql<'r>>(row: &'r Row, index: usize) -> Result<T, BrainError> {
    row.try_get(index).map_err(|e| failed(&e))
}

/// TLS with the machine's certificate store. Without one, only servers that need no TLS can be reached.
fn tls() -> MakeRustlsConnect {
    let _ = rustls::crypto::ring::default_provider().install_default();
    match MakeRustlsConnect::with_native_certs() {
        Ok((tls, _unreadable)) => tls,
        Err(_) => MakeRustlsConnect::new(
            rustls::ClientConfig::builder()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
        ),
    }
}
