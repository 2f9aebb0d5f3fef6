//! Which probes a cluster calls for: every kind of the contract, in each family that it has. Values only.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::Probe;
use crate::options::{Family, Mode};
use crate::report::{ProbeKind, Transport};
use crate::topology::{ECHO_PORT, NodePlan, Topology, address_of, is_of};

/// The addresses that pods were given, node by node: each pod's name, addresses, and host port.
pub(crate) type Inhabitants = Vec<Vec<(String, Vec<IpAddr>, Option<u16>)>>;

/// A pod in one family.
#[derive(Clone, Debug)]
struct Pod<'a> {
    name: &'a str,
    ip: IpAddr,
    host_port: Option<u16>,
}

/// A node in one family.
#[derive(Clone, Debug)]
struct Node<'a> {
    plan: &'a NodePlan,
    ip: IpAddr,
    pods: Vec<Pod<'a>>,
}

/// Every probe.
pub(crate) fn matrix(topology: &Topology, pods: &Inhabitants) -> Vec<Probe> {
    topology.families.each().iter().flat_map(|family| of_family(topology, pods, *family)).collect()
}

/// Whom a pod of a node probes as soon as it is attached: its node (the gateway), a pod there, and a pod elsewhere,
/// as far as they are there already.
pub(crate) fn first_targets(topology: &Topology, pods: &Inhabitants, number: u8) -> Vec<Target> {
    let nodes = topology.nodes.len().max(1);
    let (own, next) = (usize::from(number) - 1, usize::from(number) % nodes);
    let mut targets = Vec::new();
    for family in topology.families.each() {
        let mut add = |kind, name: &str, ips: &[IpAddr]| {
            let ip = ips.iter().copied().find(|ip| is_of(*family, *ip));
            targets.extend(ip.map(|ip| Target { kind, family: *family, name: name.to_owned(), ip }));
        };
        let first_pod = |node: usize| pods.get(node).and_then(|pods| pods.first());
        if let Some(node) = topology.nodes.get(own) {
            add(ProbeKind::PodNode, &node.name, &node.internal.iter().map(IpNet::addr).collect::<Vec<_>>());
        }
        if let Some((name, ips, _)) = first_pod(own) {
            add(ProbeKind::PodPodSame, name, ips);
        }
        if let Some((name, ips, _)) = first_pod(next).filter(|_| next != own) {
            add(ProbeKind::PodPodRemote, name, ips);
        }
    }
    targets
}

/// Whom a pod is to probe that has no address yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    kind: ProbeKind,
    family: Family,
    name: String,
    ip: IpAddr,
}

impl Target {
    /// The probe, once the pod has its addresses.
    pub(crate) fn probed_from(&self, pod: &str, ips: &[IpAddr]) -> Option<Probe> {
        let own = ips.iter().copied().find(|ip| is_of(self.family, *ip))?;
        Some(datagram(self.kind, self.family, (pod, own), (&self.name, self.ip)))
    }
}

fn of_family(topology: &Topology, inhabitants: &Inhabitants, family: Family) -> Vec<Probe> {
    let nodes: Vec<_> = topology
        .nodes
        .iter()
        .zip(inhabitants)
        .filter_map(|(plan, pods)| {
            let pods = pods.iter().filter_map(|(name, ips, host_port)| {
                let ip = ips.iter().copied().find(|ip| is_of(family, *ip))?;
                Some(Pod { name, ip, host_port: *host_port })
            });
            Some(Node { plan, ip: address_of(&plan.internal, family)?, pods: pods.collect() })
        })
        .collect();
    let mut probes = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        // Each node is the remote one of another, however few there are.
        let next = nodes.get((at + 1) % nodes.len()).filter(|next| next.plan != node.plan);
        among_pods(&mut probes, family, node, &probed_peers(at, &nodes));
        between_pods_and_nodes(&mut probes, topology.mode, family, node, next);
        host_ports(&mut probes, topology, family, node);
        egress_and_mtu(&mut probes, topology, family, node, next);
    }
    probes
}

/// One datagram from a place to a place that answers under its own address.
fn datagram(kind: ProbeKind, family: Family, from: (&str, IpAddr), to: (&str, IpAddr)) -> Probe {
    Probe {
        from: from.0.to_owned(),
        to: to.0.to_owned(),
        family,
        kind,
        transport: Transport::Udp,
        target: SocketAddr::new(to.1, ECHO_PORT),
        responder: to.0.to_owned(),
        sources: vec![from.1],
    }
}

/// The other nodes whose pods a node's pods probe: all, or in a large cluster the next few. All namespaces of a machine
/// share one neighbour table of 1,024 entries (`net.ipv4.neigh.default.gc_thresh3`), and a full mesh would overflow it.
fn probed_peers<'a>(at: usize, nodes: &'a [Node<'a>]) -> Vec<&'a Node<'a>> {
    let peers = if nodes.len() <= MESH { nodes.len().saturating_sub(1) } else { PEERS };
    nodes.iter().cycle().skip(at + 1).take(peers).collect()
}

/// Up to so many nodes, pods probe those of every other.
const MESH: usize = 9;
/// In a larger cluster, those of so many others.
const PEERS: usize = 2;

/// Every pair on the node, and every pod to the pod of its number on other nodes.
fn among_pods(probes: &mut Vec<Probe>, family: Family, node: &Node<'_>, peers: &[&Node<'_>]) {
    for (number, from) in node.pods.iter().enumerate() {
        for to in node.pods.iter().filter(|to| to.ip != from.ip) {
            probes.push(datagram(ProbeKind::PodPodSame, family, (from.name, from.ip), (to.name, to.ip)));
        }
        for to in peers.iter().filter_map(|peer| peer.pods.get(number)) {
            probes.push(datagram(ProbeKind::PodPodRemote, family, (from.name, from.ip), (to.name, to.ip)));
        }
    }
}

fn between_pods_and_nodes(
    probes: &mut Vec<Probe>,
    mode: Mode,
    family: Family,
    node: &Node<'_>,
    next: Option<&Node<'_>>,
) {
    for pod in &node.pods {
        for other in [Some(node), next].into_iter().flatten() {
            let to = (other.plan.name.as_str(), other.ip);
            probes.push(datagram(ProbeKind::PodNode, family, (pod.name, pod.ip), to));
            let mut back =
                datagram(ProbeKind::NodePod, family, (&other.plan.name, other.ip), (pod.name, pod.ip));
            if mode == Mode::Bridge && other.plan == node.plan {
                // A bridge has an address of the pods' subnet, and the kernel prefers it towards that.
                back.sources.extend(gateway(node.plan, family));
            }
            probes.push(back);
        }
    }
}

/// The first address of a node's pod CIDR.
fn gateway(node: &NodePlan, family: Family) -> Option<IpAddr> {
    let cidr = node.pod_cidrs.iter().find(|cidr| is_of(family, cidr.addr()))?;
    cidr.hosts().find(|host| *host != cidr.network())
}

fn host_ports(probes: &mut Vec<Probe>, topology: &Topology, family: Family, node: &Node<'_>) {
    let Some(outside) = address_of(&topology.outside.lan, family) else { return };
    // On a bridge with the LAN, the answer would take the short way: the node puts its own address in front of it, but
    // where br_netfilter makes the bridge track flows.
    let from_outside = if topology.mode == Mode::L2 { vec![outside, node.ip] } else { vec![outside] };
    for (pod, port) in node.pods.iter().filter_map(|pod| Some((pod, pod.host_port?))) {
        for transport in [Transport::Udp, Transport::Tcp] {
            let mut to_host_port = |kind, from: &str, sources: &[IpAddr]| {
                probes.push(Probe {
                    from: from.to_owned(),
                    to: format!("{}:{port}", node.plan.name),
                    family,
                    kind,
                    transport,
                    target: SocketAddr::new(node.ip, port),
                    responder: pod.name.to_owned(),
                    sources: sources.to_vec(),
                });
            };
            to_host_port(ProbeKind::HostportOutside, "outside", &from_outside);
            to_host_port(ProbeKind::HostportNode, &node.plan.name, &[node.ip]);
            to_host_port(ProbeKind::HostportHairpin, pod.name, &[node.ip]);
        }
    }
}

fn egress_and_mtu(
    probes: &mut Vec<Probe>,
    topology: &Topology,
    family: Family,
    node: &Node<'_>,
    next: Option<&Node<'_>>,
) {
    let outside = address_of(&topology.outside.lan, family);
    for pod in &node.pods {
        if let Some(outside) = outside {
            if topology.mode.is_of_lan() {
                let (own, host) = ((pod.name, pod.ip), ("outside", outside));
                probes.push(datagram(ProbeKind::LanPod, family, host, own));
                probes.push(datagram(ProbeKind::EgressNomasq, family, own, host));
            } else {
                let masqueraded = (pod.name, node.ip);
                probes.push(datagram(ProbeKind::EgressMasq, family, masqueraded, ("outside", outside)));
            }
        }
        if let Some(unmasqueraded) = address_of(&topology.outside.unmasqueraded, family) {
            let own = (pod.name, pod.ip);
            probes.push(datagram(ProbeKind::EgressNomasq, family, own, ("outside", unmasqueraded)));
        }
    }
    let Some(first) = node.pods.first() else { return };
    let remote =
        next.and_then(|next| next.pods.first()).map(|pod| ((first.name, first.ip), (pod.name, pod.ip)));
    // A cluster of one node has no farther place than the outside.
    let seen_as = if topology.mode.is_of_lan() { first.ip } else { node.ip };
    let alone = outside.map(|outside| ((first.name, seen_as), ("outside", outside)));
    if let Some((from, to)) = remote.or(alone) {
        probes.push(datagram(ProbeKind::Mtu, family, from, to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Families;
    use crate::topology::HOST_PORT;
    use crate::topology::tests::options;

    fn probes(nodes: u8, pods: u8, families: Families) -> Vec<Probe> {
        let topology = Topology::new(&options(nodes, pods, families));
        let inhabitants = topology.nodes.iter().map(|node| {
            let pods = node.pod_names().into_iter().enumerate().map(|(number, name)| {
                let ips = node.pod_cidrs.iter().filter_map(|cidr| cidr.hosts().nth(number + 2)).collect();
                (name, ips, (number == 0).then_some(HOST_PORT))
            });
            pods.collect()
        });
        matrix(&topology, &inhabitants.collect())
    }

    #[test]
    fn every_kind_of_the_contract_is_probed_in_every_family() {
        for families in [Families::Dual, Families::Ipv4, Families::Ipv6] {
            let probes = probes(3, 2, families);
            for kind in ProbeKind::ALL.into_iter().filter(|kind| kind.is_of(Mode::Ptp)) {
                for family in families.each() {
                    assert!(
                        probes.iter().any(|probe| probe.kind == kind && probe.family == *family),
                        "{kind:?}"
                    );
                }
            }
            assert!(probes.iter().all(|probe| families.each().contains(&probe.family)));
        }
    }

    #[test]
    fn on_the_lan_pods_and_hosts_are_seen_with_their_own_addresses_both_ways() {
        let topology =
            Topology::new(&crate::Options { mode: Mode::L2Routed, ..options(2, 1, Families::Dual) });
        let first = |node: &NodePlan| node.pod_cidrs.iter().map(IpNet::network).collect();
        let pods: Inhabitants =
            topology.nodes.iter().map(|node| vec![(node.pod_names().remove(0), first(node), None)]).collect();
        let probes = matrix(&topology, &pods);
        assert!(probes.iter().all(|probe| probe.kind.is_of(Mode::L2Routed)));
        let seen = |kind, from: &str| -> Vec<String> {
            let of_kind = probes.iter().filter(|probe| probe.kind == kind && probe.from == from);
            of_kind.map(|probe| format!("{} from {:?}", probe.target.ip(), probe.sources)).collect()
        };
        let to_pods = seen(ProbeKind::LanPod, "outside");
        assert_eq!(to_pods.len(), 4);
        assert_eq!(to_pods[0], "10.10.1.0 from [10.10.0.2]");
        assert!(
            seen(ProbeKind::EgressNomasq, "node1/pod1").contains(&"10.10.0.2 from [10.10.1.0]".to_owned())
        );
    }

    #[test]
    fn a_new_pod_first_probes_its_node_a_pod_there_and_a_pod_elsewhere() {
        let topology = Topology::new(&options(2, 2, Families::Ipv4));
        let pods: Inhabitants = (1..=2)
            .map(|node| {
                vec![(
                    format!("node{node}/pod1"),
                    vec![format!("10.244.{node}.2").parse().unwrap()],
                    Some(HOST_PORT),
                )]
            })
            .collect();
        let own = "10.244.2.3".parse().unwrap();
        let probes: Vec<_> = first_targets(&topology, &pods, 2)
            .iter()
            .filter_map(|target| target.probed_from("node2/pod2", &[own]))
            .map(|probe| (probe.kind, probe.responder, probe.sources))
            .collect();
        let wanted = [
            (ProbeKind::PodNode, "node2"),
            (ProbeKind::PodPodSame, "node2/pod1"),
            (ProbeKind::PodPodRemote, "node1/pod1"),
        ];
        assert_eq!(probes, wanted.map(|(kind, to)| (kind, to.to_owned(), vec![own])));
    }

    #[test]
    fn every_node_and_pod_takes_part_in_every_kind_that_concerns_it() {
        let probes = probes(4, 3, Families::Dual);
        let from = |kind, place: &str| {
            probes.iter().filter(|probe| probe.kind == kind && probe.from == place).count()
        };
        for node in 1..=4 {
            for pod in 1..=3 {
                let pod = format!("node{node}/pod{pod}");
                assert_eq!(from(ProbeKind::PodPodSame, &pod), 2 * 2);
                assert_eq!(from(ProbeKind::PodPodRemote, &pod), 3 * 2);
                assert_eq!(from(ProbeKind::PodNode, &pod), 2 * 2);
                assert_eq!(from(ProbeKind::EgressMasq, &pod), 2);
            }
        }
        assert_eq!(from(ProbeKind::HostportOutside, "outside"), 4 * 2 * 2);
    }

    #[test]
    fn a_large_cluster_is_probed_without_a_full_mesh() {
        let probes = probes(32, 1, Families::Ipv4);
        for node in 1..=32 {
            let pod = format!("node{node}/pod1");
            let remote = |probe: &&Probe| probe.kind == ProbeKind::PodPodRemote;
            assert_eq!(probes.iter().filter(remote).filter(|probe| probe.from == pod).count(), PEERS);
            assert_eq!(probes.iter().filter(remote).filter(|probe| probe.to == pod).count(), PEERS);
        }
    }

    #[test]
    fn what_is_masqueraded_must_be_seen_with_the_nodes_address_and_all_else_with_the_pods() {
        for probe in probes(2, 1, Families::Ipv4) {
            let wanted = match (probe.kind, probe.from.as_str()) {
                (ProbeKind::HostportOutside, _) => "192.0.2.2",
                (ProbeKind::EgressMasq | ProbeKind::HostportHairpin, "node1/pod1") | (_, "node1") => {
                    "192.0.2.11"
                }
                (ProbeKind::EgressMasq | ProbeKind::HostportHairpin, _) | (_, "node2") => "192.0.2.12",
                (_, "node1/pod1") => "10.244.1.3",
                _ => "10.244.2.3",
            };
            assert_eq!(probe.sources, [wanted.parse::<IpAddr>().unwrap()], "{probe:?}");
        }
    }

    #[test]
    fn a_cluster_of_one_pod_is_still_probed_as_far_as_it_goes() {
        let kinds: std::collections::BTreeSet<_> =
            probes(1, 1, Families::Dual).iter().map(|probe| probe.kind).collect();
        let of_mode = ProbeKind::ALL.into_iter().filter(|kind| kind.is_of(Mode::Ptp));
        let absent: Vec<_> = of_mode.filter(|kind| !kinds.contains(kind)).collect();
        assert_eq!(absent, [ProbeKind::PodPodSame, ProbeKind::PodPodRemote]);
    }
}
