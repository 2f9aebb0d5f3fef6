//! What trials are made of: servers that come and go, pods of the first node, and its agent.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use kernel::link::{self, Mac};
use kernel::netlink::{Protocol, Socket};

use super::server::{Make, Pool, Server};
use super::{Failure, MAIN, PATIENCE};
use crate::LabError;
use crate::cluster::Cluster;
use crate::conflist::Conflist;
use crate::lan;
use crate::node::root_of;
use crate::options::{DhcpServers, Family, Sabotage};
use crate::place::Place;
use crate::probe::{self, Probe};
use crate::report::{ProbeKind, Transport};
use crate::root_folder;
use crate::runtime::{self, Pod};
use crate::topology::{ECHO_PORT, UPLINK, address_of};

/// The place of a second server, and its address.
const SECOND_PLACE: &str = "lan2";
const SECOND_ADDRESS: &str = "10.10.0.3/16";
/// Of the network that the agents announce.
const LEASES: &str = "/var/lib/hostgw/leases/hostgw";
const RECORDS: &str = "/run/hostgw/ipam/hostgw/records";
const STATE: &str = "/run/hostgw/state.json";
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// For an answer to one datagram.
const ANSWER: Duration = Duration::from_secs(10);

/// Where trials are made: on the cluster's first node.
pub(super) struct Stage<'a> {
    pub(super) cluster: &'a mut Cluster,
    servers: &'a DhcpServers,
    server: Option<Server>,
    second: Option<Server>,
    second_place: Option<Place>,
    /// Of the trial, to be deleted after it.
    pods: Vec<Pod>,
    /// What others have on the node since it was booted anew.
    pub(super) planted: Option<BTreeSet<String>>,
    deadline: Instant,
}

/// Fails a trial unless something holds.
pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::Found(otherwise())) }
}

/// Whether a pod's address is one that a server lends from this pool.
pub(super) fn is_of(pod: &Pod, pool: Pool) -> bool {
    pod.ips.iter().any(|ip| matches!(ip, IpAddr::V4(ip) if (pool.first..=pool.last).contains(ip)))
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        cluster: &'a mut Cluster,
        servers: &'a DhcpServers,
        main: Server,
        deadline: Instant,
    ) -> Self {
        Self {
            cluster,
            servers,
            server: Some(main),
            second: None,
            second_place: None,
            pods: Vec::new(),
            planted: None,
            deadline,
        }
    }

    /// Whether trials do what is to be overcome; spoiled, they do not, and must notice that.
    pub(super) fn does_harm(&self) -> bool {
        self.servers.sabotage != Some(Sabotage::NoDamage)
    }

    /// What a server lends in a trial, or lent before where trials do no harm.
    pub(super) fn harm_or(&self, harm: Pool, before: Pool) -> Pool {
        if self.does_harm() { harm } else { before }
    }

    /// Starts a server at the LAN's router.
    pub(super) fn start_at_outside(
        cluster: &Cluster,
        servers: &DhcpServers,
        make: Make,
        pool: Pool,
        memory: &str,
    ) -> Result<Server, LabError> {
        let router = match address_of(&cluster.topology.outside.lan, Family::Ipv4) {
            Some(IpAddr::V4(router)) => router,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        Server::start(&cluster.outside, servers, make, (router, pool), memory)
    }

    /// Ends whatever serves.
    pub(super) fn close(&mut self) {
        self.server = None;
        self.second = None;
    }

    /// Ends the LAN's first server; a second goes on.
    pub(super) fn close_first(&mut self) {
        self.server = None;
    }

    /// Another server in the place of those that serve.
    pub(super) fn replace(&mut self, make: Make, pool: Pool, memory: &str) -> Result<(), LabError> {
        self.close();
        self.server = Some(Self::start_at_outside(self.cluster, self.servers, make, pool, memory)?);
        Ok(())
    }

    /// The cluster's own server.
    pub(super) fn serve_main(&mut self) -> Result<(), LabError> {
        self.replace(Make::Dnsmasq, MAIN, "main")
    }

    /// The same, to be kept by the caller.
    pub(super) fn serve(mut self, make: Make, pool: Pool, memory: &str) -> Result<Server, LabError> {
        self.close();
        Self::start_at_outside(self.cluster, self.servers, make, pool, memory)
    }

    /// A second server, on another host of the LAN.
    pub(super) fn add_second(&mut self, pool: Pool) -> Result<(), LabError> {
        let place = match &self.second_place {
            Some(place) => place.clone(),
            None => {
                let root = root_of(SECOND_PLACE);
                root_folder::furnish_node(&root)?;
                let place = Place::create(SECOND_PLACE, root)?;
                lan::plug_in(&place, self.cluster.bridge, UPLINK, None)?;
                let held = SECOND_ADDRESS.parse().map_err(|error| LabError::Inner {
                    message: format!("{SECOND_ADDRESS}: {error}"),
                    exit: 1,
                })?;
                place.run(move || lan::configure_uplink(SECOND_PLACE, UPLINK, &[held], &[]))?;
                self.second_place = Some(place.clone());
                place
            }
        };
        let router = pool.first;
        self.second = Some(Server::start(&place, self.servers, Make::Kea, (router, pool), "second")?);
        Ok(())
    }

    fn conflist(&self) -> Result<Conflist, LabError> {
        self.cluster.node(0)?.conflist()
    }

    /// Runs ADD for a pod of the first node; what came of it.
    fn attempt(&mut self, name: &str) -> Result<(Pod, Result<(), LabError>), LabError> {
        let (list, name) = (self.conflist()?, format!("node1/{name}"));
        self.cluster.node(0)?.place.run(move || {
            let mut pod = runtime::sandbox(&name, None)?;
            let outcome = runtime::attach(&list, &mut pod);
            Ok((pod, outcome))
        })
    }

    /// A pod of the first node, which answers probes.
    pub(super) fn add(&mut self, name: &str) -> Result<Pod, Failure> {
        let (pod, outcome) = self.attempt(name)?;
        self.pods.push(pod.clone());
        outcome?;
        self.cluster.serve_pod(&pod)?;
        Ok(pod)
    }

    /// The same, while the server is held for as long as is said; and after how long the pod was attached.
    pub(super) fn add_while_held(&mut self, name: &str, held: Duration) -> Result<(Pod, Duration), Failure> {
        let Some(server) = self.server.take() else {
            return Err(Failure::Found("no server runs".to_owned()));
        };
        server.hold()?;
        let began = Instant::now();
        let (pod, waited, resumed) = thread::scope(|scope| {
            let resume = scope.spawn(|| {
                thread::sleep(held.saturating_sub(began.elapsed()));
                server.go_on()
            });
            let pod = self.add(name);
            (pod, began.elapsed(), resume.join())
        });
        self.server = Some(server);
        match resumed {
            Ok(resumed) => resumed?,
            Err(_) => return Err(Failure::Found("the thread that holds the server ended early".to_owned())),
        }
        Ok((pod?, waited))
    }

    /// What the plugin says to a pod whose ADD must fail; its DEL follows, as runtimes do.
    pub(super) fn refused(&mut self, name: &str) -> Result<String, Failure> {
        let (pod, outcome) = self.attempt(name)?;
        self.pods.push(pod.clone());
        match outcome {
            Err(LabError::Plugin { output, .. }) => {
                self.delete(pod)?;
                Ok(output.replace(": ", ":"))
            }
            Err(error) => Err(error.into()),
            Ok(()) => Err(Failure::Found(format!("{name} was attached, with {:?}", pod.ips))),
        }
    }

    /// Runs DEL.
    pub(super) fn delete(&mut self, pod: Pod) -> Result<(), LabError> {
        self.pods.retain(|known| known.container_id != pod.container_id);
        self.cluster.stop_serving(&pod.name);
        let list = self.conflist()?;
        self.cluster.node(0)?.place.run(move || runtime::delete(&list, &pod))
    }

    /// Deletes what a trial made.
    pub(super) fn tidy(&mut self) -> Result<(), LabError> {
        for pod in std::mem::take(&mut self.pods) {
            self.delete(pod)?;
        }
        Ok(())
    }

    /// One datagram from a host of the LAN to the pod by its own address, and one back.
    pub(super) fn prove(&self, pod: &Pod) -> Result<(), Failure> {
        let host = address_of(&self.cluster.topology.outside.lan, Family::Ipv4);
        let (Some(host), Some(own)) = (host, pod.ips.first().copied()) else {
            return Err(Failure::Found(format!("{} has no address", pod.name)));
        };
        let outside = self.cluster.outside.netns();
        for (from, netns, to, responder, source) in [
            ("outside", &outside, own, pod.name.as_str(), host),
            (pod.name.as_str(), &pod.netns, host, "outside", own),
        ] {
            let probe = Probe {
                from: from.to_owned(),
                to: responder.to_owned(),
                family: Family::Ipv4,
                kind: ProbeKind::LanPod,
                transport: Transport::Udp,
                target: SocketAddr::new(to, ECHO_PORT),
                responder: responder.to_owned(),
                sources: vec![source],
            };
            let came = probe::send_once(&probe, netns, ANSWER);
            ensure(came.ok, || format!("{from} → {responder}: {}", came.error.clone().unwrap_or_default()))?;
        }
        Ok(())
    }

    /// Files and links that pods have on the node.
    pub(super) fn traces(&self) -> Result<BTreeSet<String>, LabError> {
        self.cluster.node(0)?.place.run(|| {
            let mut found: BTreeSet<String> = [LEASES, RECORDS]
                .iter()
                .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| !name.starts_with('.') && name != "lock")
                .collect();
            let links = Socket::open(Protocol::Route).and_then(|mut socket| link::dump(&mut socket));
            found.extend(links.map_err(LabError::kernel("node1"))?.into_iter().map(|link| link.name));
            Ok(found)
        })
    }

    /// When the pod's lease was last confirmed, in seconds since 1970.
    pub(super) fn confirmed_at(&self, pod: &Pod) -> Result<u64, Failure> {
        let file = format!("{LEASES}/{}:eth0.json", pod.container_id);
        let read = self
            .cluster
            .node(0)?
            .place
            .run(move || fs::read(&file).map_err(LabError::io(format!("read {file}"))))?;
        let lease: serde_json::Value =
            serde_json::from_slice(&read).map_err(|error| Failure::Found(format!("a lease: {error}")))?;
        Ok(lease["boundAt"].as_u64().unwrap_or_default())
    }

    /// What the agent has to say of its node.
    pub(super) fn conditions(&self) -> Result<String, LabError> {
        let state = self.cluster.node(0)?.place.run(|| Ok(fs::read(STATE).unwrap_or_default()))?;
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap_or_default();
        Ok(state["conditions"].to_string())
    }

    /// Waits until something is so.
    pub(super) fn wait(
        &self,
        patience: Duration,
        what: &str,
        mut is_so: impl FnMut(&Self) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        while !is_so(self)? {
            ensure(began.elapsed() < patience && Instant::now() < self.deadline, || {
                format!("waited in vain until {what}")
            })?;
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Kills the first node's agent, and starts another, which is held back if so is asked.
    pub(super) fn restart_agent(&mut self) -> Result<(), LabError> {
        let is_held = self.servers.sabotage == Some(Sabotage::HoldAgents);
        let node = self.cluster.node_mut(0)?;
        node.kill_agent()?;
        // Held only once it runs, it might have done its work before.
        if is_held { Ok(()) } else { node.start_agent() }
    }

    /// Boots the first node anew; its pods come back.
    pub(super) fn reboot(&mut self) -> Result<(), Failure> {
        let mac = self.mac()?;
        self.cluster.forget_pods(0)?;
        let name = self.cluster.node(0)?.plan.name.clone();
        lan::unplug(&name)?;
        self.cluster.node_mut(0)?.reboot("00000000-0000-4000-8000-000000000001")?;
        // The network card is the same.
        self.cluster.plug_in(self.cluster.node(0)?, mac)?;
        self.planted = Some(self.cluster.plant_foreign_again(0)?);
        self.cluster.serve_node(0)?;
        self.cluster.node_mut(0)?.start_agent()?;
        self.wait(PATIENCE, "the node is announced", |stage| {
            Ok(stage.cluster.node(0)?.place.run(|| Ok(fs::exists("/run/hostgw/ready").unwrap_or(false)))?)
        })?;
        if self.servers.sabotage == Some(Sabotage::LosePods) {
            return Ok(());
        }
        Ok(self.cluster.attach_pods_again(0)?)
    }

    fn mac(&self) -> Result<Option<Mac>, LabError> {
        self.cluster.node(0)?.place.run(|| {
            let found =
                Socket::open(Protocol::Route).and_then(|mut socket| link::by_name(&mut socket, UPLINK));
            Ok(found.map_err(LabError::kernel("node1"))?.and_then(|link| link.mac))
        })
    }
}
