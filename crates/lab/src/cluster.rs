//! The lab while it lives: nodes, the outside host, pods, and whoever answers probes. Built step by step; dropped, the
//! threads end, and all else ends with the process namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use kernel::link::Mac;
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::netns::NetNs;
use kernel::route::{Hop, Route};
use kernel::{address, route};

use crate::conflist::Conflist;
use crate::lan;
use crate::node::{Node, root_of};
use crate::nodes_file::{LeftOut, config_yaml, nodes_yaml};
use crate::options::Sabotage;
use crate::place::{self, Place};
use crate::policy_rule::{self, PolicyRule};
use crate::probe::{self, Inhabitants, Server, first_targets};
use crate::report::ProbeReport;
use crate::router::{self, Router};
use crate::runtime::{self, Pod};
use crate::topology::{HOST_PORT, NodePlan, Topology, UPLINK};
use crate::{LabError, Options, dhcp, foreign, root_folder, ruleset};

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
    /// By the places' names.
    servers: BTreeMap<String, Server>,
    /// The index of the LAN's bridge.
    pub(crate) bridge: u32,
    /// What lends the pods' addresses, in a lab that is kept.
    pub(crate) dhcp_server: Option<dhcp::Server>,
    /// What announces the LAN's IPv6 prefix.
    _router: Option<Router>,
}

impl Cluster {
    /// The LAN and everybody on it; no agent runs yet. The calling thread is in the LAN's network namespace.
    pub(crate) fn build(options: &Options) -> Result<Self, LabError> {
        let topology = Topology::new(options);
        let bridge = lan::create_bridge()?;
        let outside_root = root_of("outside");
        root_folder::furnish_node(&outside_root)?;
        let outside = Place::create("outside", outside_root)?;
        lan::plug_in(&outside, bridge, UPLINK, None)?;
        let addresses = topology.outside.lan.clone();
        outside.run(move || lan::configure_uplink("outside", UPLINK, &addresses, &[]))?;
        let (unmasqueraded, nodes) = (topology.outside.unmasqueraded.clone(), topology.nodes.clone());
        outside.run(move || answer_unmasqueraded(&unmasqueraded, &nodes))?;
        let is_silent =
            options.restarts.and_then(|restarts| restarts.sabotage) == Some(Sabotage::SilentRouter);
        let router = match topology.announced().filter(|_| !is_silent) {
            Some(prefix) => Some(Router::start(&outside, UPLINK, prefix)?),
            None => None,
        };
        let mut cluster = Self {
            topology,
            outside,
            nodes: Vec::new(),
            pods: Vec::new(),
            conflists: Vec::new(),
            servers: BTreeMap::new(),
            bridge,
            dhcp_server: None,
            _router: router,
        };
        for plan in cluster.topology.nodes.clone() {
            let node = Node::create(&plan)?;
            cluster.plug_in(&node, None)?;
            cluster.nodes.push(node);
        }
        Ok(cluster)
    }

    /// Puts a node on the LAN, and gives its uplink addresses and default routes.
    pub(crate) fn plug_in(&self, node: &Node, mac: Option<Mac>) -> Result<(), LabError> {
        let mac = mac.or_else(|| self.topology.slaac.then(|| node.plan.mac()));
        lan::plug_in(&node.place, self.bridge, UPLINK, mac)?;
        let name = node.plan.name.clone();
        // What a router announces is learnt.
        let is_learnt = |ip: &IpAddr| self.topology.slaac && ip.is_ipv6();
        let routers: Vec<IpAddr> = self.routers().into_iter().filter(|router| !is_learnt(router)).collect();
        let (learnt, addresses): (Vec<IpNet>, Vec<IpNet>) =
            node.plan.internal.iter().partition(|internal| is_learnt(&internal.addr()));
        let link = self.topology.node_link();
        node.place.run(move || {
            if link != UPLINK {
                lan::bridge_uplink(&name, UPLINK, link)?;
            }
            lan::configure_uplink(&name, link, &addresses, &routers)?;
            learnt.into_iter().try_for_each(|address| router::await_formed(&name, address))
        })
    }

    /// The nodes' default routers, one in each family.
    pub(crate) fn routers(&self) -> Vec<IpAddr> {
        self.topology.outside.lan.iter().map(IpNet::addr).collect()
    }

    /// Plants what others would have configured, and lists it, node by node.
    pub(crate) fn plant_foreign(&self) -> Result<Vec<BTreeSet<String>>, LabError> {
        self.on_each_node(|node| plant_foreign_on(node, &self.topology, self.routers()))
    }

    /// The same on one node, which was booted anew.
    pub(crate) fn plant_foreign_again(&self, at: usize) -> Result<BTreeSet<String>, LabError> {
        plant_foreign_on(self.node(at)?, &self.topology, self.routers())
    }

    /// Where the agents move the uplinks, what is not ours on a node stands elsewhere from then on; `before` it was there.
    pub(crate) fn follow_uplink(&self, at: usize, before: &mut BTreeSet<String>) -> Result<(), LabError> {
        if self.topology.agents_join {
            let node = self.node(at)?;
            let name = node.plan.name.clone();
            let now = node.place.run(move || foreign::snapshot(&name))?;
            *before = foreign::moved(before, now);
        }
        Ok(())
    }

    /// A node by its place in the order.
    pub(crate) fn node(&self, at: usize) -> Result<&Node, LabError> {
        self.nodes.get(at).ok_or_else(|| no_node(at))
    }

    /// The same, to be changed.
    pub(crate) fn node_mut(&mut self, at: usize) -> Result<&mut Node, LabError> {
        self.nodes.get_mut(at).ok_or_else(|| no_node(at))
    }

    /// Changes what a node is to be, for all who ask.
    pub(crate) fn replan(&mut self, at: usize, change: impl Fn(&mut NodePlan)) -> Result<(), LabError> {
        change(self.topology.nodes.get_mut(at).ok_or_else(|| no_node(at))?);
        change(&mut self.node_mut(at)?.plan);
        Ok(())
    }

    /// Starts every agent and waits until each announced its node; gives how long each took.
    pub(crate) fn start_agents(
        &mut self,
        left_out: Option<LeftOut>,
        deadline: Instant,
    ) -> Result<Vec<Duration>, LabError> {
        let config = config_yaml(&self.topology, left_out);
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
    pub(crate) fn attach_pods(&mut self, patience: Duration) -> Result<Vec<ProbeReport>, LabError> {
        let outside = &self.topology.outside;
        let ips: Vec<_> = outside.lan.iter().chain(&outside.unmasqueraded).map(IpNet::addr).collect();
        self.servers.insert("outside".to_owned(), Server::start("outside", &self.outside.netns(), &ips)?);
        (0..self.nodes.len()).try_for_each(|at| self.serve_node(at))?;
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
            self.servers.insert(pod.name.clone(), Server::start(&pod.name, &pod.netns, &pod.ips)?);
        }
        let last = self.on_each_node(|node| self.attach_last_pod(node, patience))?;
        let mut reports = Vec::new();
        for ((pod, of_pod), pods) in last.into_iter().zip(&mut self.pods) {
            self.servers.insert(pod.name.clone(), Server::start(&pod.name, &pod.netns, &pod.ips)?);
            reports.extend(of_pod);
            pods.push(pod);
        }
        self.pods.iter().flatten().try_for_each(|pod| place::publish_pod(&pod.name, &pod.netns))?;
        Ok(reports)
    }

    /// Answers probes on a node's addresses as they are now.
    pub(crate) fn serve_node(&mut self, at: usize) -> Result<(), LabError> {
        let node = self.node(at)?;
        let ips: Vec<_> = node.plan.internal.iter().map(IpNet::addr).collect();
        let (name, netns) = (node.plan.name.clone(), node.place.netns());
        // The one before holds the ports where addresses are the same.
        self.servers.remove(&name);
        self.servers.insert(name.clone(), Server::start(&name, &netns, &ips)?);
        Ok(())
    }

    /// Answers probes in a pod that is none of the cluster's own.
    pub(crate) fn serve_pod(&mut self, pod: &Pod) -> Result<(), LabError> {
        self.servers.insert(pod.name.clone(), Server::start(&pod.name, &pod.netns, &pod.ips)?);
        Ok(())
    }

    /// Answers no more there.
    pub(crate) fn stop_serving(&mut self, pod: &str) {
        self.servers.remove(pod);
    }

    /// Forgets a node's pods, which went with its namespaces.
    pub(crate) fn forget_pods(&mut self, at: usize) -> Result<(), LabError> {
        let Some(pods) = self.pods.get_mut(at) else { return Ok(()) };
        for pod in std::mem::take(pods) {
            self.servers.remove(&pod.name);
            place::unpublish_pod(&pod.name)?;
        }
        Ok(())
    }

    /// Attaches all pods of one node, as a kubelet does after a boot.
    pub(crate) fn attach_pods_again(&mut self, at: usize) -> Result<(), LabError> {
        let node = self.node(at)?;
        let (conflist, names) = (node.conflist()?, node.plan.pod_names());
        let pods = node.place.run({
            let conflist = conflist.clone();
            move || {
                let port = |number| (number == 0).then_some(HOST_PORT);
                let numbered = names.iter().enumerate();
                numbered
                    .map(|(number, name)| runtime::add(&conflist, name, port(number)))
                    .collect::<Result<Vec<_>, _>>()
            }
        })?;
        for pod in &pods {
            self.servers.insert(pod.name.clone(), Server::start(&pod.name, &pod.netns, &pod.ips)?);
            place::publish_pod(&pod.name, &pod.netns)?;
        }
        if let (Some(own), Some(list)) = (self.pods.get_mut(at), self.conflists.get_mut(at)) {
            (*own, *list) = (pods, conflist);
        }
        Ok(())
    }

    /// Lets the outside host reach pods over their nodes' addresses as they are now.
    pub(crate) fn reroute_outside(&self) -> Result<(), LabError> {
        let nodes = self.topology.nodes.clone();
        self.outside.run(move || {
            let reroute = || {
                let mut socket = Socket::open(Protocol::Route)?;
                let mut batch = Batch::new();
                let uplink = lan::index_of(&mut socket, UPLINK)?;
                routes_to_pods(&nodes, uplink).iter().for_each(|route| route::replace(&mut batch, route));
                socket.execute_all(&mut batch)
            };
            reroute().map_err(LabError::kernel("outside"))
        })
    }

    fn attach_last_pod(&self, node: &Node, patience: Duration) -> Result<(Pod, Vec<ProbeReport>), LabError> {
        let conflist = self.conflist_of(node)?;
        let targets = first_targets(&self.topology, &self.inhabitants(), node.plan.number);
        let name = node.plan.pod_names().pop().unwrap_or_default();
        let host_port = (node.plan.pods == 1).then_some(HOST_PORT);
        node.place.run(move || {
            let pod = runtime::add(&conflist, &name, host_port)?;
            let probes = targets.iter().filter_map(|target| target.probed_from(&pod.name, &pod.ips));
            let reports = probes.map(|probe| probe::send_first(&probe, &pod.netns, patience)).collect();
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
        routes_to_pods(nodes, uplink).iter().for_each(|route| route::add(&mut batch, route));
        socket.execute_all(&mut batch)
    };
    configure().map_err(LabError::kernel("outside"))
}

/// The outside host's routes to every node's pods.
fn routes_to_pods(nodes: &[NodePlan], uplink: u32) -> Vec<Route> {
    let ways = nodes.iter().flat_map(|node| node.pod_cidrs.iter().zip(&node.internal));
    let route = |(cidr, internal): (&IpNet, &IpNet)| {
        let hops = vec![Hop { gateway: Some(internal.addr()), index: Some(uplink), ..Hop::default() }];
        Route { table: UNMASQUERADED_TABLE, hops, ..Route::to(*cidr) }
    };
    ways.map(route).collect()
}

fn plant_foreign_on(
    node: &Node,
    topology: &Topology,
    routers: Vec<IpAddr>,
) -> Result<BTreeSet<String>, LabError> {
    let (link, families, drops) = (topology.node_link(), topology.families.each(), topology.drops_forwarded);
    let name = node.plan.name.clone();
    node.place.run(move || {
        foreign::plant(&name, link, families, &routers)?;
        if drops {
            ruleset::plant_dropping_forward().map_err(LabError::kernel(&*name))?;
        }
        foreign::snapshot(&name)
    })
}

fn no_node(at: usize) -> LabError {
    LabError::Inner { message: format!("there is no node {}", at + 1), exit: 1 }
}
