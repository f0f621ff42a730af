//! The machines beneath the cloud: a host for each instance, and the services on its listeners.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::brain::Brain;
use super::cloud::{Cloud, Down, HostView, MachineCommand};
use super::fault::Fault;
use super::host::{AptFault, Host, HostConditions, HostSpec};
use super::http::{Gate, Handler, Options, Server};
use super::tailnet::Tailnet;
use super::tls::Authority;
use super::{http, metadata};

const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const AWS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const TAILSCALE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// An address where nothing listens: connections are refused at once.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);

/// How long EC2 takes to give up on an instance under [`Fault::InstanceTerminated`].
const REVOKED_AFTER: Duration = Duration::from_millis(400);

/// What every machine needs.
pub(crate) struct Surroundings {
    pub cloud: Cloud,
    pub brain: Brain,
    pub tailnet: Tailnet,
    pub authority: Authority,
    pub stage: PathBuf,
    pub host_binary: PathBuf,
    pub brain_port: u16,
    pub faults: Vec<Fault>,
    pub heartbeat_every: Option<Duration>,
    pub pauses_pass: bool,
}

/// The running machines. Dropping it ends them without waiting.
pub(crate) struct Machines {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Machines {
    /// Carries out the cloud's commands from here on.
    pub fn start(surroundings: Surroundings, commands: UnboundedReceiver<MachineCommand>) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self {
            stop: Some(stop),
            task: tokio::spawn(run(Arc::new(surroundings), commands, stopped)),
        }
    }

    /// Ends every machine and waits until they are gone.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = (&mut self.task).await;
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    surroundings: Arc<Surroundings>,
    mut commands: UnboundedReceiver<MachineCommand>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut switches: HashMap<String, oneshot::Sender<()>> = HashMap::new();
    let mut machines = JoinSet::new();
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(MachineCommand::Boot { region, instance }) => {
                    let (switch, off) = oneshot::channel();
                    switches.insert(instance.clone(), switch);
                    machines.spawn(machine(surroundings.clone(), region, instance, off));
                }
                Some(MachineCommand::ShutDown { region, instance }) => {
                    // The machine itself says when it is down; one that is down already cannot.
                    let told = switches
                        .remove(&instance)
                        .is_some_and(|switch| switch.send(()).is_ok());
                    if !told {
                        surroundings.cloud.host_down(&region, &instance, Down::Off);
                    }
                }
                None => break,
            },
            Some(_) = machines.join_next() => {}
            _ = &mut stopped => break,
        }
    }
    for (_, switch) in switches {
        let _ = switch.send(());
    }
    while machines.join_next().await.is_some() {}
}

async fn machine(
    surroundings: Arc<Surroundings>,
    region: String,
    instance: String,
    mut off: oneshot::Receiver<()>,
) {
    let cloud = &surroundings.cloud;
    if surroundings.faults.contains(&Fault::InstanceTerminated) {
        let _ = tokio::time::timeout(REVOKED_AFTER, off).await;
        cloud.host_down(&region, &instance, Down::Revoked);
        return;
    }
    let down = match start(&surroundings, &region, &instance).await {
        Err(why) => Down::Failed(why),
        Ok((mut host, servers)) => {
            let booted = host.boot();
            if booted.is_ok() {
                cloud.host_booted(&region, &instance);
                tokio::select! {
                    () = host.exited() => {}
                    _ = &mut off => {}
                }
            }
            host.stop().await;
            drop(servers);
            surroundings.tailnet.instance_gone(&instance);
            match booted {
                Ok(()) => Down::Off,
                Err(error) => Down::Failed(chain(&error)),
            }
        }
    };
    cloud.host_down(&region, &instance, down);
}

async fn start(
    surroundings: &Surroundings,
    region: &str,
    instance: &str,
) -> Result<(Host, Vec<Server>), String> {
    let view = surroundings
        .cloud
        .host_view(region, instance)
        .ok_or_else(|| "the instance does not exist".to_owned())?;
    let spec = surroundings.spec(region, &view);
    let mut host = Host::start_from(spec, &surroundings.stage, &surroundings.host_binary)
        .await
        .map_err(|error| chain(&error))?;
    surroundings
        .cloud
        .attach_console(region, instance, host.console());
    match surroundings.serve(region, instance, &mut host) {
        Ok(servers) => Ok((host, servers)),
        Err(why) => {
            host.stop().await;
            Err(why)
        }
    }
}

impl Surroundings {
    fn spec(&self, region: &str, view: &HostView) -> HostSpec {
        let mut hosts: Vec<(IpAddr, String)> = aws_names(region)
            .into_iter()
            .map(|name| (AWS.into(), name))
            .collect();
        let install = if self.faults.contains(&Fault::TailscaleInstallUnreachable) {
            NOWHERE
        } else {
            TAILSCALE
        };
        hosts.push((install.into(), "tailscale.com".to_owned()));
        for name in ["controlplane", "login", "api"] {
            hosts.push((TAILSCALE.into(), format!("{name}.tailscale.com")));
        }
        let mut addresses = vec![METADATA, AWS, TAILSCALE];
        if let Ok(own) = view.private_address.parse::<Ipv4Addr>() {
            addresses.push(own);
            hosts.push((own.into(), view.private_dns.clone()));
            hosts.push((own.into(), view.hostname.clone()));
        }
        let mut listeners = vec![
            ("metadata", SocketAddr::from((METADATA, 80))),
            ("ssm", SocketAddr::from((AWS, 443))),
            ("tailscale", SocketAddr::from((TAILSCALE, 443))),
        ];
        // Where nothing listens, connections are refused.
        if !self.faults.contains(&Fault::BrainUnreachable) {
            let brain = SocketAddr::from((Ipv4Addr::LOCALHOST, self.brain_port));
            listeners.push(("brain", brain));
        }
        HostSpec {
            instance_id: view.instance_id.clone(),
            hostname: view.hostname.clone(),
            hosts,
            addresses,
            listeners,
            ca_certificate_pem: self.authority.certificate_pem(),
            conditions: HostConditions {
                apt: self
                    .faults
                    .contains(&Fault::AptFailed)
                    .then_some(AptFault::MirrorDown),
                systemd_fails: self.faults.contains(&Fault::SystemdFailed),
                heartbeat_every: self.heartbeat_every,
                pauses_pass: self.pauses_pass,
                ..HostConditions::default()
            },
        }
    }

    /// Serves everything that the host's listeners stand for.
    fn serve(&self, region: &str, instance: &str, host: &mut Host) -> Result<Vec<Server>, String> {
        let tls = |names: Vec<String>| {
            self.authority
                .acceptor(&names)
                .map_err(|error| chain(&error))
        };
        // The real brain is reachable over the tailnet only.
        let reachable: Gate = {
            let tailnet = self.tailnet.clone();
            let instance = instance.to_owned();
            Arc::new(move || tailnet.has_joined(&instance))
        };
        let metadata =
            metadata::handler(self.cloud.clone(), region.to_owned(), instance.to_owned());
        let services: [(&'static str, Options, Handler); 4] = [
            ("metadata", Options::default(), metadata),
            (
                "ssm",
                http::Options {
                    tls: Some(tls(aws_names(region))?),
                    gate: None,
                },
                self.cloud.handler(),
            ),
            (
                "tailscale",
                Options {
                    tls: Some(tls(vec![
                        "tailscale.com".to_owned(),
                        "*.tailscale.com".to_owned(),
                    ])?),
                    gate: None,
                },
                self.tailnet.handler(instance.to_owned()),
            ),
            (
                "brain",
                Options {
                    tls: None,
                    gate: Some(reachable),
                },
                self.brain.handler(),
            ),
        ];
        services
            .into_iter()
            .filter(|(name, ..)| {
                *name != "brain" || !self.faults.contains(&Fault::BrainUnreachable)
            })
            .map(|(name, options, handler)| {
                let listener = host
                    .take_listener(name)
                    .ok_or_else(|| format!("the host made no listener for {name}"))?;
                Server::start(listener, options, handler).map_err(|error| chain(&error))
            })
            .collect()
    }
}

fn aws_names(region: &str) -> Vec<String> {
    let regional = ["ssm", "ec2", "sts"]
        .into_iter()
        .map(|service| format!("{service}.{region}.amazonaws.com"));
    let global = ["iam.amazonaws.com", "sts.amazonaws.com"].map(str::to_owned);
    regional.chain(global).collect()
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Binds a listener on a free port of loopback.
pub(crate) async fn listen() -> io::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}
