//! Heartbeats read from the brain's PostgreSQL.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{Client, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{BrainError, Heartbeat, ToolCall};
use crate::customer::CustomerId;
use crate::secret::{ExposeSecret, SecretString};

/// A connection to the brain's database.
pub struct Database {
    client: Client,
    connection: tokio::task::JoinHandle<()>,
}

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
    BrainError::Database(text)
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
            config.connect_timeout(Duration::from_secs(10));
        }
        let (client, connection) = config.connect(tls()).await.map_err(|e| failed(&e))?;
        let connection = tokio::spawn(async move {
            // Its error also fails the query that waits on it, where it is told.
            let _ = connection.await;
        });
        Ok(Self { client, connection })
    }

    /// The customer's newest heartbeat at or after `since`.
    pub async fn latest_heartbeat(
        &self,
        customer: &CustomerId,
        since: Timestamp,
    ) -> Result<Option<Heartbeat>, BrainError> {
        let query = "select coalesce(payload->>'hostname', ''), ts from events \
                     where customer_id = $1 and event_type = 'heartbeat' and ts >= $2 \
                     order by ts desc limit 1";
        let found = self.latest(query, customer, since).await?;
        Ok(found.map(|(hostname, ts)| Heartbeat { hostname, ts }))
    }

    /// The customer's newest call of a tool at or after `since`.
    pub async fn latest_tool_call(
        &self,
        customer: &CustomerId,
        since: Timestamp,
    ) -> Result<Option<ToolCall>, BrainError> {
        let query = "select coalesce(payload->>'tool_name', ''), ts from events \
                     where customer_id = $1 and event_type = 'tool_call' and ts >= $2 \
                     order by ts desc limit 1";
        let found = self.latest(query, customer, since).await?;
        Ok(found.map(|(tool_name, ts)| ToolCall { tool_name, ts }))
    }

    /// Whether events of one customer are found without reading all.
    pub async fn has_index(&self) -> Result<bool, BrainError> {
        // A question about the table itself, so that one that is missing or closed to this user is told.
        self.query("select 1 from events limit 1", &[]).await?;
        let query = "select 1 from pg_indexes where tablename = 'events' and indexdef like '%(customer_id%'";
        Ok(!self.query(query, &[]).await?.is_empty())
    }

    /// A text and a time, of the one row of a query.
    async fn latest(
        &self,
        query: &str,
        customer: &CustomerId,
        since: Timestamp,
    ) -> Result<Option<(String, Timestamp)>, BrainError> {
        let since = system_time(since)?;
        let row = self
            .client
            .query_opt(query, &[&customer.as_str(), &since])
            .await
            .map_err(|e| failed(&e))?;
        let Some(row) = row else { return Ok(None) };
        let ts: SystemTime = column(&row, 1)?;
        Ok(Some((
            column(&row, 0)?,
            Timestamp::try_from(ts).map_err(impossible)?,
        )))
    }

    /// The rows of a query.
    pub(super) async fn query(
        &self,
        query: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, BrainError> {
        let rows = self.client.query(query, values).await;
        rows.map_err(|e| failed(&e))
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
