//! A small HTTP/1.1 server: a listener, plain or TLS, and a function from request to response.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A request whose body was read.
pub(crate) type Request = http::Request<Bytes>;
/// A response with its whole body.
pub(crate) type Response = http::Response<Full<Bytes>>;
/// What answers the requests of one listener.
pub(crate) type Handler = Arc<dyn Fn(Request) -> BoxFuture<'static, Response> + Send + Sync>;
/// Whether a new connection is served now; otherwise it is reset.
pub(crate) type Gate = Arc<dyn Fn() -> bool + Send + Sync>;

/// Larger than any request the sandbox knows: 16 KB of user-data, base64 and URL-encoded, with room to spare.
const MAX_BODY_LENGTH: usize = 1024 * 1024;

/// How long a connection may take to send its request's head, or to finish a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A running server. Dropping it ends the listener and every connection at once.
pub(crate) struct Server {
    address: SocketAddr,
    shutdown: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

/// How a listener is served.
#[derive(Default, Clone)]
pub(crate) struct Options {
    /// Serve TLS with this acceptor.
    pub tls: Option<TlsAcceptor>,
    /// Reset new connections while this says no.
    pub gate: Option<Gate>,
}

impl Server {
    /// Serves a listener until the server is shut down or dropped. Needs a tokio runtime.
    pub fn start(listener: TcpListener, options: Options, handler: Handler) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (shutdown, receiver) = watch::channel(false);
        let accepting = tokio::spawn(accept(listener, options, handler, receiver));
        Ok(Self {
            address,
            shutdown,
            accepting,
        })
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more, lets running requests finish for at most `grace`, then ends them.
    pub async fn shutdown(mut self, grace: Duration) {
        self.shutdown.send_replace(true);
        let _ = tokio::time::timeout(grace, &mut self.accepting).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The connections live in a `JoinSet` of this task, so they end with it.
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    options: Options,
    handler: Handler,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, options.clone(), handler.clone(), shutdown.clone()));
                }
                // Out of file descriptors, most likely: the listener recovers when connections end.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
            _ = shutdown.changed() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    options: Options,
    handler: Handler,
    shutdown: watch::Receiver<bool>,
) {
    if options.gate.is_some_and(|gate| !gate()) {
        // A reset instead of an orderly end, so that the client sees a failed connection and not an empty answer.
        let _ = stream.set_zero_linger();
        return;
    }
    let _ = stream.set_nodelay(true);
    match options.tls {
        None => exchange(stream, handler, shutdown).await,
        Some(acceptor) => {
            let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
            if let Ok(Ok(stream)) = handshake.await {
                exchange(stream, handler, shutdown).await;
            }
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    handler: Handler,
    mut shutdown: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(answer(request, handler).await) }
    });
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

async fn answer(request: http::Request<hyper::body::Incoming>, handler: Handler) -> Response {
    let (head, body) = request.into_parts();
    // Refused at once when it is announced, not only when it has arrived.
    if body.size_hint().lower() > MAX_BODY_LENGTH as u64 {
        return too_large();
    }
    match Limited::new(body, MAX_BODY_LENGTH).collect().await {
        Ok(body) => handler(http::Request::from_parts(head, body.to_bytes())).await,
        Err(error) if error.is::<http_body_util::LengthLimitError>() => too_large(),
        Err(_) => plain(
            StatusCode::BAD_REQUEST,
            "the request's body could not be read\n",
        ),
    }
}

fn too_large() -> Response {
    plain(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large\n")
}

/// A response of a status, a content type and a body.
pub(crate) fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response {
    let mut response = http::Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A response of plain text.
pub(crate) fn plain(status: StatusCode, body: impl Into<String>) -> Response {
    response(status, "text/plain", body.into())
}

/// A response of JSON.
pub(crate) fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    response(status, "application/json", body.to_string())
}

/// The header as text; none when it is missing or not text.
pub(crate) fn header<'a, B>(request: &'a http::Request<B>, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn echo() -> Handler {
        Arc::new(|request| {
            Box::pin(async move { response(StatusCode::OK, "text/plain", request.into_body()) })
        })
    }

    async fn exchange_text(address: SocketAddr, text: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn serves_limits_and_stops() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::start(listener, Options::default(), echo()).unwrap();
        let address = server.address();
        let request =
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 4\r\n\r\nabcd";
        let answer = exchange_text(address, request).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("abcd"),
            "{answer}"
        );

        let large = format!(
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            MAX_BODY_LENGTH + 1
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(large.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 413");

        server.shutdown(Duration::from_secs(1)).await;
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_closed_gate_resets_connections() {
        let open = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gate: Gate = {
            let open = open.clone();
            Arc::new(move || open.load(Ordering::SeqCst))
        };
        let options = Options {
            tls: None,
            gate: Some(gate),
        };
        let server = Server::start(listener, options, echo()).unwrap();
        let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let refused = exchange_text(server.address(), request).await;
        assert!(refused.is_err(), "{refused:?}");
        open.store(true, Ordering::SeqCst);
        let answer = exchange_text(server.address(), request).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
