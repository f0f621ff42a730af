//! A customer host in namespaces of its own. (Placeholder of the cloud branch, to be replaced by the real one.)
#![allow(missing_docs)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

pub struct HostSpec {
    pub instance_id: String,
    pub hostname: String,
    pub hosts: Vec<(IpAddr, String)>,
    pub addresses: Vec<Ipv4Addr>,
    pub listeners: Vec<(&'static str, SocketAddr)>,
    pub ca_certificate_pem: String,
    pub conditions: HostConditions,
}
#[derive(Default, Clone, serde::Serialize, serde::Deserialize)]
pub struct HostConditions {
    pub apt: Option<AptFault>,
    pub systemd_fails: bool,
    pub user_data_never_runs: bool,
}
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub enum AptFault {
    MirrorDown,
    LockHeld,
    PackageMissing(String),
}
#[derive(Debug, thiserror::Error)]
#[error("host")]
pub struct HostError;
#[derive(Clone, Default)]
pub struct Console(Arc<Mutex<Vec<u8>>>);
impl Console {
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}
pub struct Host {
    listeners: HashMap<&'static str, tokio::net::TcpListener>,
    console: Console,
    down: tokio::sync::watch::Sender<bool>,
}
impl Host {
    pub async fn start(spec: HostSpec, _stage: &Path) -> Result<Host, HostError> {
        let mut listeners = HashMap::new();
        for (name, _) in spec.listeners {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
            listeners.insert(name, listener.map_err(|_| HostError)?);
        }
        Ok(Host {
            listeners,
            console: Console::default(),
            down: tokio::sync::watch::channel(false).0,
        })
    }
    pub fn take_listener(&mut self, name: &str) -> Option<tokio::net::TcpListener> {
        self.listeners.remove(name)
    }
    pub fn boot(&mut self) -> Result<(), HostError> {
        self.console.0.lock().unwrap().extend(b"booted\n");
        Ok(())
    }
    pub fn console(&self) -> Console {
        self.console.clone()
    }
    pub async fn exited(&mut self) {
        let mut down = self.down.subscribe();
        let _ = down.wait_for(|down| *down).await;
    }
    pub async fn stop(&mut self) {
        self.down.send_replace(true);
    }
}
