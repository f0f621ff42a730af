//! The sandbox's host, for real: namespaces, private files, the boot, systemd's and apt's stand-ins, and that nothing is left behind.

mod boots;
mod isolation;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use m8trx_sandbox::host::{Console, Host, HostConditions, HostSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// The program that becomes the host; the test below that runs as another user gets a copy it can reach.
fn binary() -> PathBuf {
    std::env::var_os("M8TRX_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_m8trx").into(), PathBuf::from)
}

fn spec(conditions: HostConditions) -> HostSpec {
    let metadata = SocketAddr::from(([169, 254, 169, 254], 80));
    let brain = SocketAddr::from(([127, 0, 0, 1], 4801));
    HostSpec {
        instance_id: "i-0123456789abcdef0".into(),
        hostname: "ip-172-31-0-10".into(),
        hosts: vec![("127.0.0.3".parse().unwrap(), "tailscale.com".into())],
        addresses: vec![
            [169, 254, 169, 254].into(),
            [127, 0, 0, 2].into(),
            [10, 9, 8, 7].into(),
        ],
        listeners: vec![("metadata", metadata), ("brain", brain)],
        ca_certificate_pem: "-----BEGIN CERTIFICATE-----\nprivate\n-----END CERTIFICATE-----\n"
            .into(),
        conditions,
    }
}

/// A metadata service with just what cloud-init asks for.
async fn metadata(listener: TcpListener, user_data: String) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            return;
        };
        let mut request = [0; 4096];
        let length = stream.read(&mut request).await.unwrap_or(0);
        let request = String::from_utf8_lossy(&request[..length]).into_owned();
        let authorised = request.contains("X-aws-ec2-metadata-token: secret-token\r\n");
        let (status, body) = match request.split(' ').nth(1).unwrap_or_default() {
            "/latest/api/token" if request.starts_with("PUT ") => {
                ("200 OK", "secret-token".to_owned())
            }
            _ if !authorised => ("401 Unauthorized", String::new()),
            "/latest/meta-data/instance-id" => ("200 OK", "i-0123456789abcdef0".to_owned()),
            "/latest/user-data" => ("200 OK", user_data.clone()),
            _ => ("404 Not Found", String::new()),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

struct Booted {
    host: Host,
    console: Console,
    _stage: tempfile::TempDir,
}

async fn boot_with(user_data: &str, conditions: HostConditions) -> Booted {
    let stage = tempfile::tempdir().unwrap();
    let mut host = Host::start_from(spec(conditions), stage.path(), &binary())
        .await
        .unwrap();
    let listener = host.take_listener("metadata").unwrap();
    tokio::spawn(metadata(listener, format!("#!/bin/bash\n{user_data}\n")));
    host.boot().unwrap();
    Booted {
        console: host.console(),
        host,
        _stage: stage,
    }
}

async fn boot(user_data: &str) -> Booted {
    boot_with(user_data, HostConditions::default()).await
}

impl Booted {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.console.bytes()).into_owned()
    }

    /// Waits until the console holds `words`, and returns all of it.
    async fn until(&self, words: &str) -> String {
        let start = Instant::now();
        while !self.text().contains(words) {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "no {words:?} in:\n{}",
                self.text()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.text()
    }

    /// What the script printed after `name=`.
    async fn result(&self) -> impl Fn(&str) -> String + use<> {
        let text = self.until(" finished at ").await;
        move |name: &str| {
            let key = format!("]: {name}=");
            let value = text
                .split(&key)
                .nth(1)
                .unwrap_or_else(|| panic!("no {name} in:\n{text}"));
            value.split("\r\n").next().unwrap_or_default().to_owned()
        }
    }
}

/// Process ids whose command line holds `mark`.
fn processes_with(mark: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    pids.filter(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
    })
    .collect()
}
