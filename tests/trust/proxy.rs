//! A proxy on loopback between the command and AWS, the brain and Tailscale's API: it counts the calls that change
//! something, and does to the n-th what a bad day would.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whom the command talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    Aws,
    Brain,
    Tailscale,
}

const PARTIES: [Party; 3] = [Party::Aws, Party::Brain, Party::Tailscale];

/// What is done to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The command is killed, and the call never arrives.
    KillBefore,
    /// The command is killed once the call was carried out, before its answer.
    KillAfter,
    /// Carried out; the connection ends without an answer.
    Lost,
    /// Carried out; half the answer comes.
    Cut,
    /// Carried out; a web page answers with 200.
    Page,
    /// Carried out; a 500 answers.
    Failed,
    /// Not carried out; a 503 answers.
    Unavailable,
    /// Not carried out; too many calls.
    Throttled,
    /// Not carried out; a redirect to somewhere else answers.
    Redirect,
    /// Not carried out; a web page answers with 200, as a captive portal's.
    Portal,
    /// Not carried out; the session has expired.
    Expired,
    /// Not carried out; the clock is said to be off.
    Skewed,
    /// Carried out after a pause.
    Late(Duration),
}

impl Fault {
    /// In a word, for the table and for the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillBefore => "killed before",
            Self::KillAfter => "killed after",
            Self::Lost => "answer lost",
            Self::Cut => "answer cut",
            Self::Page => "applied, a page answers",
            Self::Failed => "applied, 500",
            Self::Unavailable => "503",
            Self::Throttled => "throttled",
            Self::Redirect => "redirect",
            Self::Portal => "captive portal",
            Self::Expired => "expired session",
            Self::Skewed => "clock off",
            Self::Late(_) => "late",
        }
    }
}

/// One call that passed.
#[derive(Debug, Clone)]
pub struct Call {
    /// `PutParameter /m8trx/cust_a/brain-key`, `POST /v1/keys`.
    pub what: String,
    pub changes: bool,
    pub fault: Option<Fault>,
}

/// What is decided about a call: its number among those that change something (from 1) where it is one.
type Decide = dyn Fn(&Call, Option<usize>) -> Option<Fault> + Send + Sync;

struct Inner {
    upstream: [SocketAddr; 3],
    own: [SocketAddr; 3],
    decide: Box<Decide>,
    calls: Mutex<Vec<Call>>,
    secrets: Mutex<Vec<String>>,
    child: AtomicI32,
    stop: AtomicBool,
}

/// The proxy; its listeners end with it.
pub struct Proxy(Arc<Inner>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// A proxy before these servers, in the order AWS, brain, Tailscale.
    pub fn before(
        upstream: [SocketAddr; 3],
        decide: impl Fn(&Call, Option<usize>) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        let listeners = PARTIES.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let own = [0, 1, 2].map(|i: usize| listeners[i].local_addr().unwrap());
        let inner = Arc::new(Inner {
            upstream,
            own,
            decide: Box::new(decide),
            calls: Mutex::default(),
            secrets: Mutex::default(),
            child: AtomicI32::new(0),
            stop: AtomicBool::new(false),
        });
        for (party, listener) in PARTIES.into_iter().zip(listeners) {
            let inner = Arc::clone(&inner);
            std::thread::spawn(move || {
                for connection in listener.incoming() {
                    if inner.stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(connection) = connection else { continue };
                    let inner = Arc::clone(&inner);
                    std::thread::spawn(move || inner.serve(party, connection));
                }
            });
        }
        Self(inner)
    }

    /// Where the command finds a server.
    pub fn url(&self, party: Party) -> String {
        format!("http://{}", self.0.own[party as usize])
    }

    /// The process that is killed where a kill is due.
    pub fn watch(&self, child: u32) {
        self.0
            .child
            .store(i32::try_from(child).unwrap(), Ordering::SeqCst);
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Call> {
        locked(&self.0.calls).clone()
    }

    /// Every key that was handed out: none of them may be seen anywhere.
    pub fn secrets(&self) -> Vec<String> {
        locked(&self.0.secrets).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
        for address in self.0.own {
            // Wakes the listener, which looks at the flag.
            drop(TcpStream::connect(address));
        }
    }
}

/// A request or an answer: its head without the blank line, and its body.
pub struct Message {
    pub head: String,
    pub body: Vec<u8>,
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Reads one message; `None` where the other side ends before a whole one.
    fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 * 1024];
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => bytes.extend_from_slice(&buffer[..count]),
                _ => return None,
            }
        };
        let mut message = Self {
            head: String::from_utf8_lossy(&bytes[..end]).into_owned(),
            body: bytes.split_off(end + 4),
        };
        let length = message
            .header("content-length")
            .and_then(|text| text.parse().ok());
        let is_request = !message.head.starts_with("HTTP/");
        loop {
            match length {
                Some(length) if message.body.len() >= length => break,
                None if is_request => break,
                _ => {}
            }
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => message.body.extend_from_slice(&buffer[..count]),
                _ if length.is_none() => break,
                _ => return None,
            }
        }
        Some(message)
    }

    /// The message with one length and an end of the connection.
    fn bytes(&self, body: &[u8]) -> Vec<u8> {
        let mut text = String::new();
        for line in self.head.lines() {
            let name = line.split(':').next().unwrap_or_default();
            let is_framing = ["content-length", "transfer-encoding", "connection"]
                .iter()
                .any(|header| name.eq_ignore_ascii_case(header));
            if !is_framing {
                text.push_str(line);
                text.push_str("\r\n");
            }
        }
        text.push_str(&format!(
            "Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        ));
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }
}

/// Sends a request to a server and reads the whole answer.
pub fn exchange(server: SocketAddr, request: &Message) -> Option<Message> {
    let mut stream = TcpStream::connect(server).ok()?;
    stream.write_all(&request.bytes(&request.body)).ok()?;
    Message::read(&mut stream)
}

fn answer(status: &str, content_type: &str, body: &str) -> Message {
    Message {
        head: format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}"),
        body: body.as_bytes().to_vec(),
    }
}

const PAGE: &str =
    "<!doctype html><html><body><h1>Sign in to the hotel's network</h1></body></html>";

impl Inner {
    fn serve(&self, party: Party, mut connection: TcpStream) {
        let Some(request) = Message::read(&mut connection) else {
            return;
        };
        let mut call = call_of(party, &request);
        let fault = {
            let mut calls = locked(&self.calls);
            let number = calls.iter().filter(|call| call.changes).count() + 1;
            let fault = (self.decide)(&call, call.changes.then_some(number));
            call.fault = fault;
            calls.push(call.clone());
            fault
        };
        let refused = match fault {
            Some(Fault::KillBefore) => return self.kill(),
            Some(Fault::Late(pause)) => {
                std::thread::sleep(pause);
                None
            }
            Some(Fault::Unavailable) => Some(answer(
                "503 Service Unavailable",
                "text/plain",
                "no upstream",
            )),
            Some(Fault::Throttled) => Some(throttled(party, &request)),
            Some(Fault::Redirect) => Some(Message {
                head: "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/elsewhere".to_owned(),
                body: Vec::new(),
            }),
            Some(Fault::Portal) => Some(answer("200 OK", "text/html", PAGE)),
            Some(Fault::Expired) => Some(refusal(
                party,
                &request,
                "ExpiredToken",
                "The security token included in the request is expired",
            )),
            Some(Fault::Skewed) => Some(refusal(
                party,
                &request,
                "SignatureDoesNotMatch",
                "Signature expired: 20261124T100000Z is now earlier than 20261124T105500Z (20261124T110000Z - 5 min.)",
            )),
            _ => None,
        };
        if let Some(refused) = refused {
            let _ = connection.write_all(&refused.bytes(&refused.body));
            return;
        }
        let Some(mut answered) = exchange(self.upstream[party as usize], &request) else {
            return;
        };
        self.note_secrets(party, &request, &answered);
        if party == Party::Aws {
            self.point_at_the_proxy(&mut answered);
        }
        let whole = answered.bytes(&answered.body);
        let send = match fault {
            Some(Fault::KillAfter) => return self.kill(),
            Some(Fault::Lost) => return,
            Some(Fault::Cut) => whole[..whole.len() - answered.body.len().div_ceil(2)].to_vec(),
            Some(Fault::Page) => {
                let page = answer("200 OK", "text/html", PAGE);
                page.bytes(&page.body)
            }
            Some(Fault::Failed) => {
                let failed = answer("500 Internal Server Error", "text/plain", "it broke");
                failed.bytes(&failed.body)
            }
            _ => whole,
        };
        let _ = connection.write_all(&send);
    }

    fn kill(&self) {
        let child = self.child.load(Ordering::SeqCst);
        assert!(child > 0, "nobody to kill");
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(child),
            nix::sys::signal::Signal::SIGKILL,
        );
    }

    fn note_secrets(&self, party: Party, request: &Message, answered: &Message) {
        let mints = request.head.starts_with("POST ") && request.head.contains("/keys");
        if party == Party::Aws || !mints {
            return;
        }
        let body: serde_json::Value = serde_json::from_slice(&answered.body).unwrap_or_default();
        if let Some(key) = body["key"].as_str() {
            locked(&self.secrets).push(key.to_owned());
        }
    }

    /// Hosts read where the brain is from Parameter Store itself; the command is told the proxy's address.
    fn point_at_the_proxy(&self, answered: &mut Message) {
        let real = self.upstream[Party::Brain as usize].to_string();
        let text = String::from_utf8_lossy(&answered.body);
        if text.contains(&real) && text.contains("brain-url") {
            let own = self.own[Party::Brain as usize].to_string();
            answered.body = text.replace(&real, &own).into_bytes();
        }
    }
}

fn call_of(party: Party, request: &Message) -> Call {
    let mut words = request.head.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default().to_owned();
    if party != Party::Aws {
        let asks = method == "GET"
            || path.ends_with("/oauth/token")
            || path.ends_with("/acl/validate")
            // Asks whether it is a brain, under a key that is none.
            || (party == Party::Brain && path == "/v1/events");
        return Call {
            what: format!("{method} {path}"),
            changes: !asks,
            fault: None,
        };
    }
    let body = String::from_utf8_lossy(&request.body);
    let target = request.header("x-amz-target");
    let action = match target.and_then(|target| target.split('.').nth(1)) {
        Some(action) => action.to_owned(),
        None => body
            .split('&')
            .find_map(|pair| pair.strip_prefix("Action="))
            .unwrap_or_default()
            .to_owned(),
    };
    let json: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let about = ["Name", "ResourceId"]
        .iter()
        .find_map(|field| json[*field].as_str())
        .unwrap_or_default();
    let asks = ["Get", "List", "Describe", "Simulate"]
        .iter()
        .any(|start| action.starts_with(start))
        || body.contains("&DryRun=true");
    Call {
        what: format!("{action} {about}").trim_end().to_owned(),
        changes: !asks,
        fault: None,
    }
}

/// A refusal in the form of the protocol that asked.
fn refusal(party: Party, request: &Message, code: &str, message: &str) -> Message {
    if party != Party::Aws {
        let body = serde_json::json!({ "error": message, "message": message }).to_string();
        return answer("401 Unauthorized", "application/json", &body);
    }
    if request.header("x-amz-target").is_some() {
        let body = serde_json::json!({ "__type": code, "message": message }).to_string();
        return answer("400 Bad Request", "application/x-amz-json-1.1", &body);
    }
    let body = String::from_utf8_lossy(&request.body);
    let text = if body.contains("Version=2016-11-15") {
        format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>r</RequestID></Response>"
        )
    } else {
        format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>r</RequestId></ErrorResponse>"
        )
    };
    answer("403 Forbidden", "text/xml", &text)
}

fn throttled(party: Party, request: &Message) -> Message {
    let mut refused = refusal(party, request, "ThrottlingException", "Rate exceeded");
    if party != Party::Aws {
        let (_, rest) = refused.head.split_once("\r\n").unwrap();
        refused.head = format!("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\n{rest}");
    }
    refused
}
