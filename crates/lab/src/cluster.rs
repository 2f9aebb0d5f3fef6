//! The lab while it lives: nodes, the outside host, pods, and whoever answers probes. Built step by step; dropped, the
//! threads end, and all else ends with the process namespace.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::netns::NetNs;
use kernel::route::{Hop, Route};
use kernel::{address, route};

use crate::conflist::Conflist;
use crate::lan;
use crate::node::{Node, root_of};
use crate::nodes_file::{config_yaml, nodes_yaml};
use crate::place::{self, Place};
use crate::policy_rule::{self, PolicyRule};
use crate::probe::{self, Inhabitants, Server, first_targets};
use crate::report::{ProbeKind, ProbeReport};
use crate::runtime::{self, Pod};
use crate::topology::{HOST_PORT, NodePlan, Topology, UPLINK};
use crate::{LabError, Options, foreign, root_folder};

/// The outside host's table of routes to pods, for its unmasqueraded addresses only.
const UNMASQUERADED_TABLE: u32 = 100;

/// A lab that was built.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) topology: Topology,
    pub(crate) outside: Place,
    pub(crate) nodes: Vec<Node>,
    /// Node by node.
    pub(crate) pods: Vec<Vec<Pod>>,
    /// The configuration that each agent announced.
    pub(crate) conflists: Vec<Conflist>,
    servers: Vec<Server>,
}

impl Cluster {
    /// The LAN and everybody on it; no agent runs yet. The calling thread is in the LAN's network namespace.
    pub(crate) fn build(options: &Options) -> Result<Self, LabError> {
        let topology = Topology::new(options);
        let bridge = lan::create_bridge()?;
        let outside_root = root_of("outside");
        root_folder::furnish_node(&outside_root)?;
        let outside = Place::create("outside", outside_root)?;
        lan::plug_in(&outside, bridge)?;
        let addresses = topology.outside.lan.clone();
        outside.run(move || lan::configure_uplink("outside", &addresses, &[]))?;
        let (unmasqueraded, nodes) = (topology.outside.unmasqueraded.clone(), topology.nodes.clone());
        outside.run(move || answer_unmasqueraded(&unmasqueraded, &nodes))?;
        let mut cluster = Self {
            topology,
            outside,
            nodes: Vec::new(),
            pods: Vec::new(),
            conflists: Vec::new(),
            servers: Vec::new(),
        };
        for plan in cluster.topology.nodes.clone() {
            let node = Node::create(&plan)?;
            lan::plug_in(&node.place, bridge)?;
            let (name, routers) = (plan.name.clone(), cluster.routers());
            node.place.run(move || lan::configure_uplink(&name, &plan.internal, &routers))?;
            cluster.nodes.push(node);
        }
        Ok(cluster)
    }

    fn routers(&self) -> Vec<IpAddr> {
        self.topology.outside.lan.iter().map(IpNet::addr).collect()
    }

    /// Plants what others would have configured, and lists it, node by node.
    pub(crate) fn plant_foreign(&self) -> Result<Vec<BTreeSet<String>>, LabError> {
        let (families, routers) = (self.topology.families.each(), self.routers());
        self.on_each_node(|node| {
            let (name, routers) = (node.plan.name.clone(), routers.clone());
            node.place.run(move || {
                foreign::plant(&name, families, &routers)?;
                foreign::snapshot(&name)
            })
        })
    }

    /// Starts every agent and waits until each announced its node; gives how long each took.
    pub(crate) fn start_agents(
        &mut self,
        fault: Option<ProbeKind>,
        deadline: Instant,
    ) -> Result<Vec<Duration>, LabError> {
        let config = config_yaml(&self.topology, fault == Some(ProbeKind::EgressNomasq));
        let nodes = nodes_yaml(&self.topology.nodes);
        for node in &mut self.nodes {
            node.configure(&config)?;
            node.set_nodes(&nodes)?;
            node.start_agent()?;
        }
        let mut took = Vec::new();
        for node in &mut self.nodes {
            let (conflist, duration) = node.wait_until_ready(deadline)?;
            self.conflists.push(conflist);
            took.push(duration);
        }
        Ok(took)
    }

    /// Attaches every pod as a runtime does, nodes side by side. Each node's last pod comes when the others answer
    /// already, and probes them as soon as its ADD returned: gives what came of these first packets.
    pub(crate) fn attach_pods(&mut self) -> Result<Vec<ProbeReport>, LabError> {
        let outside = &self.topology.outside;
        let ips: Vec<_> = outside.lan.iter().chain(&outside.unmasqueraded).map(IpNet::addr).collect();
        self.servers.push(Server::start("outside", &self.outside.netns(), &ips)?);
        for node in &self.nodes {
            let ips: Vec<_> = node.plan.internal.iter().map(IpNet::addr).collect();
            self.servers.push(Server::start(&node.plan.name, &node.place.netns(), &ips)?);
        }
        self.pods = self.on_each_node(|node| {
            let (conflist, mut names) = (self.conflist_of(node)?, node.plan.pod_names());
            names.pop();
            let host_port = |number| (number == 0).then_some(HOST_PORT);
            node.place.run(move || {
                let numbered = names.iter().enumerate();
                numbered.map(|(number, name)| runtime::add(&conflist, name, host_port(number))).collect()
            })
        })?;
        for pod in self.pods.iter().flatten() {
            self.servers.push(Server::start(&pod.name, &pod.netns, &pod.ips)?);
        }
        let last = self.on_each_node(|node| self.attach_last_pod(node))?;
        let mut reports = Vec::new();
        for ((pod, of_pod), pods) in last.into_iter().zip(&mut self.pods) {
            self.servers.push(Server::start(&pod.name, &pod.netns, &pod.ips)?);
            reports.extend(of_pod);
            pods.push(pod);
        }
        self.pods.iter().flatten().try_for_each(|pod| place::publish_pod(&pod.name, &pod.netns))?;
        Ok(reports)
    }

    fn attach_last_pod(&self, node: &Node) -> Result<(Pod, Vec<ProbeReport>), LabError> {
        let conflist = self.conflist_of(node)?;
        let targets = first_targets(&self.topology, &self.inhabitants(), node.plan.number);
        let name = node.plan.pod_names().pop().unwrap_or_default();
        let host_port = (node.plan.pods == 1).then_some(HOST_PORT);
        node.place.run(move || {
            let pod = runtime::add(&conflist, &name, host_port)?;
            let probes = targets.iter().filter_map(|target| target.probed_from(&pod.name, &pod.ips));
            let reports = probes.map(|probe| probe::send_first(&probe, &pod.netns)).collect();
            Ok((pod, reports))
        })
    }

    fn conflist_of(&self, node: &Node) -> Result<Conflist, LabError> {
        let missing =
            || LabError::Inner { message: format!("{} was not announced", node.plan.name), exit: 1 };
        self.conflists.get(usize::from(node.plan.number) - 1).cloned().ok_or_else(missing)
    }

    /// What the matrix of probes is made of.
    pub(crate) fn inhabitants(&self) -> Inhabitants {
        let pods = |pods: &Vec<Pod>| {
            pods.iter().map(|pod| (pod.name.clone(), pod.ips.clone(), pod.host_port)).collect()
        };
        self.pods.iter().map(pods).collect()
    }

    /// The network namespace of a place.
    pub(crate) fn netns_of(&self, place: &str) -> Option<Arc<NetNs>> {
        if place == self.outside.name() {
            return Some(self.outside.netns());
        }
        let node = self.nodes.iter().find(|node| node.plan.name == place).map(|node| node.place.netns());
        node.or_else(|| {
            self.pods.iter().flatten().find(|pod| pod.name == place).map(|pod| Arc::clone(&pod.netns))
        })
    }

    /// Runs DEL for every pod, nodes side by side.
    pub(crate) fn delete_pods(&mut self) -> Result<(), LabError> {
        self.servers.clear();
        let pods = &self.pods;
        let conflists = &self.conflists;
        self.on_each_node(|node| {
            let at = usize::from(node.plan.number) - 1;
            let (pods, conflist) = (pods.get(at).cloned().unwrap_or_default(), conflists.get(at).cloned());
            node.place.run(move || match conflist {
                Some(conflist) => pods.iter().try_for_each(|pod| runtime::delete(&conflist, pod)),
                None => Ok(()),
            })
        })?;
        self.pods.clear();
        Ok(())
    }

    /// Does the same for every node at once; gives the results in the nodes' order.
    pub(crate) fn on_each_node<T: Send>(
        &self,
        work: impl Fn(&Node) -> Result<T, LabError> + Sync,
    ) -> Result<Vec<T>, LabError> {
        thread::scope(|scope| {
            let work = &work;
            let running: Vec<_> = self.nodes.iter().map(|node| scope.spawn(move || work(node))).collect();
            let ended =
                |_| LabError::Inner { message: "a thread of the lab ended early".to_owned(), exit: 1 };
            running.into_iter().map(|thread| thread.join().map_err(ended)?).collect()
        })
    }
}

/// Gives the outside host its unmasqueraded addresses, and routes to pods for those alone.
fn answer_unmasqueraded(addresses: &[IpNet], nodes: &[NodePlan]) -> Result<(), LabError> {
    let configure = || {
        let mut socket = Socket::open(Protocol::Route)?;
        let uplink = lan::index_of(&mut socket, UPLINK)?;
        let mut batch = Batch::new();
        for net in addresses {
            address::add(&mut batch, uplink, *net, if net.addr().is_ipv6() { address::NODAD } else { 0 });
            let from = Some(IpNet::from(net.addr()));
            let rule =
                PolicyRule { priority: 100, from, table: UNMASQUERADED_TABLE, ..PolicyRule::default() };
            policy_rule::add(&mut batch, &rule);
        }
        for node in nodes {
            for (cidr, internal) in node.pod_cidrs.iter().zip(&node.internal) {
                let hops =
                    vec![Hop { gateway: Some(internal.addr()), index: Some(uplink), ..Hop::default() }];
                route::add(&mut batch, &Route { table: UNMASQUERADED_TABLE, hops, ..Route::to(*cidr) });
            }
        }
        socket.execute_all(&mut batch)
    };
    configure().map_err(LabError::kernel("outside"))
}
