//! The lab as a plan: who is there, and which addresses each has. Values only; nothing is built here.
//!
//! ```text
//!   outside ──┐
//!   node1   ──┤ lan0 (a bridge: the virtual LAN)
//!   node2   ──┘
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use kernel::link::Mac;

use crate::options::{Families, Family, Mode, Options};

/// Payload of a frame on the LAN. Not 1500, so that a pod's MTU that does not follow its node's uplink is noticed.
pub(crate) const LAN_MTU: u32 = 1460;
/// The node's link to the LAN.
pub(crate) const UPLINK: &str = "eth0";
/// The node's bridge to the LAN, in mode `l2`.
pub(crate) const LAN_BRIDGE: &str = "br0";
/// The pod's link.
pub(crate) const POD_LINK: &str = "eth0";
/// Where every place answers probes, over UDP and TCP.
pub(crate) const ECHO_PORT: u16 = 7007;
/// The host port of each node's first pod, UDP and TCP.
pub(crate) const HOST_PORT: u16 = 18080;

/// A whole lab.
#[derive(Clone, Debug)]
pub(crate) struct Topology {
    /// How pods are attached.
    pub(crate) mode: Mode,
    /// The families that the cluster has.
    pub(crate) families: Families,
    /// The nodes, in order.
    pub(crate) nodes: Vec<NodePlan>,
    /// The host that is not of the cluster.
    pub(crate) outside: OutsidePlan,
    /// The nodes drop by policy what they forward.
    pub(crate) drops_forwarded: bool,
    /// The agents move the nodes' uplinks into their bridges; else that is done before they come.
    pub(crate) agents_join: bool,
    /// A DHCP server lends the pods' addresses, and no node has a pod CIDR.
    pub(crate) dhcp: bool,
    /// What the LAN's router announces is all that nodes know of IPv6: nodes and pods form addresses of it, and no node has a
    /// slice.
    pub(crate) slaac: bool,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodePlan {
    /// Counted from 1.
    pub(crate) number: u8,
    /// `node1`, ….
    pub(crate) name: String,
    /// Its address in each family, with the LAN's prefix.
    pub(crate) internal: Vec<IpNet>,
    /// Its pods' addresses in each family.
    pub(crate) pod_cidrs: Vec<IpNet>,
    /// How many pods it is to have.
    pub(crate) pods: u8,
}

/// The host beyond the cluster, which is also the nodes' default router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutsidePlan {
    /// Its addresses on the LAN. It has no route back to pods: it can answer only what was masqueraded.
    pub(crate) lan: Vec<IpNet>,
    /// Its addresses in [`Topology::never_masquerade`]; from these it has a route back to pods.
    pub(crate) unmasqueraded: Vec<IpNet>,
}

/// Whether `ip` is of `family`.
#[must_use]
pub(crate) fn is_of(family: Family, ip: IpAddr) -> bool {
    ip.is_ipv4() == (family == Family::Ipv4)
}

/// The one of `nets` that is of `family`.
#[must_use]
pub(crate) fn address_of(nets: &[IpNet], family: Family) -> Option<IpAddr> {
    nets.iter().map(IpNet::addr).find(|ip| is_of(family, *ip))
}

/// The number as the digits of an IPv6 group, so that people read the same number in both families: 32 is `:32`.
fn digits(number: u8) -> u16 {
    u16::from(number / 100) * 0x100 + u16::from(number / 10 % 10) * 0x10 + u16::from(number % 10)
}

/// An address with a prefix that is known to be in range.
fn net(ip: impl Into<IpAddr>, prefix_len: u8) -> IpNet {
    let ip = ip.into();
    IpNet::new(ip, prefix_len).unwrap_or_else(|_| IpNet::from(ip))
}

/// A host on the LAN: RFC 5737 and RFC 3849 prefixes, which no real network has.
fn lan_address(family: Family, host: u8) -> IpNet {
    match family {
        Family::Ipv4 => net(Ipv4Addr::new(192, 0, 2, host), 24),
        Family::Ipv6 => net(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, digits(host)), 64),
    }
}

/// The LAN that nodes and pods share in the modes for that: wide enough for a slice a node.
fn shared_lan_address(family: Family, host: u8) -> IpNet {
    match family {
        Family::Ipv4 => net(Ipv4Addr::new(10, 10, 0, host), 16),
        Family::Ipv6 => lan_address(family, host),
    }
}

/// What a node's kernel forms of the LAN's prefix and [`NodePlan::mac`] (RFC 4291, appendix A).
fn formed_address(node: u8) -> IpNet {
    net(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0xff, 0xfe00, digits(FIRST_NODE + node)), 64)
}

/// A node's part of it. In the middle of the subnet, 10.10.1.0 is an address as any other.
fn slice(family: Family, node: u8) -> IpNet {
    match family {
        Family::Ipv4 => net(Ipv4Addr::new(10, 10, node, 0), 24),
        Family::Ipv6 => net(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, digits(node), 0, 0, 0), 80),
    }
}

fn unmasqueraded_address(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => net(Ipv4Addr::new(198, 51, 100, 2), 24),
        Family::Ipv6 => net(Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 2), 64),
    }
}

fn pod_cidr(family: Family, node: u8) -> IpNet {
    match family {
        Family::Ipv4 => net(Ipv4Addr::new(10, 244, node, 0), 24),
        Family::Ipv6 => net(Ipv6Addr::new(0xfd00, 0x10, 0x244, digits(node), 0, 0, 0, 0), 64),
    }
}

impl Topology {
    /// The lab that the options ask for.
    #[must_use]
    pub(crate) fn new(options: &Options) -> Self {
        let families = options.family.each();
        let shared = options.mode.is_of_lan();
        let slaac = options.restarts.is_some_and(|restarts| restarts.slaac);
        let sliced = |family: Family| !(slaac && family == Family::Ipv6);
        let of_each = |of: &dyn Fn(Family) -> IpNet| families.iter().map(|family| of(*family)).collect();
        let nodes = (1..=options.nodes)
            .map(|number| NodePlan {
                number,
                name: format!("node{number}"),
                internal: match shared {
                    true => of_each(&|family| match sliced(family) {
                        true => shared_lan_address(family, FIRST_NODE + number),
                        false => formed_address(number),
                    }),
                    false => NodePlan::internal_ips(number, false, families),
                },
                pod_cidrs: match shared {
                    _ if options.dhcp.is_some() => Vec::new(),
                    true => {
                        let sliced = families.iter().filter(|family| sliced(**family));
                        sliced.map(|family| slice(*family, number)).collect()
                    }
                    false => NodePlan::pod_cidrs_of(number, false, families),
                },
                pods: options.pods,
            })
            .collect();
        let lan = if shared { shared_lan_address } else { lan_address };
        let outside = OutsidePlan {
            lan: of_each(&|family| lan(family, 2)),
            unmasqueraded: families.iter().map(|family| unmasqueraded_address(*family)).collect(),
        };
        let dhcp = options.dhcp.is_some();
        let drops_forwarded = options.restarts.is_some() || dhcp;
        let agents_join = options.mode == Mode::L2 && options.restarts.is_some() && !slaac;
        Self {
            mode: options.mode,
            families: options.family,
            nodes,
            outside,
            drops_forwarded,
            agents_join,
            dhcp,
            slaac,
        }
    }

    /// The link on which a node holds its addresses before its agent comes.
    #[must_use]
    pub(crate) fn node_link(&self) -> &'static str {
        if self.mode == Mode::L2 && !self.agents_join { LAN_BRIDGE } else { UPLINK }
    }

    /// The LAN's subnets.
    #[must_use]
    pub(crate) fn lan_subnets(&self) -> Vec<IpNet> {
        self.outside.lan.iter().map(IpNet::trunc).collect()
    }

    /// The IPv6 prefix that the LAN's router announces, if it does.
    #[must_use]
    pub(crate) fn announced(&self) -> Option<Ipv6Net> {
        self.lan_subnets().into_iter().find_map(|subnet| match subnet {
            IpNet::V6(prefix) if self.slaac => Some(prefix),
            _ => None,
        })
    }

    /// The CIDRs towards which the agents are told never to masquerade.
    #[must_use]
    pub(crate) fn never_masquerade(&self) -> Vec<IpNet> {
        self.outside.unmasqueraded.iter().map(IpNet::trunc).collect()
    }
}

/// The nodes' addresses on the LAN follow this one.
const FIRST_NODE: u8 = 10;

/// How far a node's numbers move when its address or pod CIDRs change; beyond every other node's.
const MOVED: u8 = 100;

impl NodePlan {
    /// Its addresses, or the others that it has at times.
    #[must_use]
    pub(crate) fn internal_ips(number: u8, moved: bool, families: &[Family]) -> Vec<IpNet> {
        let host = FIRST_NODE + number + if moved { MOVED } else { 0 };
        families.iter().map(|family| lan_address(*family, host)).collect()
    }

    /// Its pod CIDRs, or the others that it has at times.
    #[must_use]
    pub(crate) fn pod_cidrs_of(number: u8, moved: bool, families: &[Family]) -> Vec<IpNet> {
        let network = number + if moved { MOVED } else { 0 };
        families.iter().map(|family| pod_cidr(*family, network)).collect()
    }

    /// The Ethernet address of its uplink, where its own address follows from that.
    #[must_use]
    pub(crate) fn mac(&self) -> Mac {
        let [_, low] = digits(FIRST_NODE + self.number).to_be_bytes();
        [0x02, 0, 0, 0, 0, low]
    }

    /// The names of its pods: `node1/pod1`, ….
    #[must_use]
    pub(crate) fn pod_names(&self) -> Vec<String> {
        (1..=self.pods).map(|pod| format!("{}/pod{pod}", self.name)).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::options::MAX_NODES;

    pub(crate) fn options(nodes: u8, pods: u8, family: Families) -> Options {
        Options {
            nodes,
            pods,
            mode: Mode::Ptp,
            family,
            keep: false,
            bin_dir: "/bin".into(),
            name: "test".parse().unwrap(),
            timeout_s: 60,
            seed: 7,
            fault: None,
            chaos: None,
            uplink: None,
            restarts: None,
            dhcp: None,
        }
    }

    #[test]
    fn every_node_of_the_largest_lab_has_addresses_of_its_own() {
        let topology = Topology::new(&options(MAX_NODES, 1, Families::Dual));
        let mut internal: Vec<_> = topology.nodes.iter().flat_map(|node| node.internal.clone()).collect();
        internal.extend(topology.outside.lan.clone());
        let mut cidrs: Vec<_> = topology.nodes.iter().flat_map(|node| node.pod_cidrs.clone()).collect();
        for list in [&mut internal, &mut cidrs] {
            let all = list.len();
            list.sort();
            list.dedup();
            assert_eq!(list.len(), all);
        }
        assert!(cidrs.iter().all(|cidr| *cidr == cidr.trunc()));
    }

    #[test]
    fn of_an_announced_prefix_nodes_form_their_addresses_and_have_no_slices() {
        let mut wanted = options(2, 1, Families::Dual);
        wanted.mode = Mode::L2Routed;
        wanted.restarts = Some(crate::options::Restarts { slaac: true, sabotage: None });
        let topology = Topology::new(&wanted);
        assert_eq!(topology.announced().unwrap().to_string(), "2001:db8:0:1::/64");
        assert_eq!(topology.nodes[1].mac(), [0x02, 0, 0, 0, 0, 0x12]);
        assert_eq!(topology.nodes[1].internal[1].to_string(), "2001:db8:0:1:0:ff:fe00:12/64");
        assert_eq!(topology.nodes[1].pod_cidrs, ["10.10.2.0/24".parse().unwrap()]);
    }

    #[test]
    fn a_number_reads_the_same_in_both_families() {
        let topology = Topology::new(&options(32, 1, Families::Dual));
        let last = topology.nodes.last().unwrap();
        assert_eq!(last.internal[0].to_string(), "192.0.2.42/24");
        assert_eq!(last.internal[1].to_string(), "2001:db8:0:1::42/64");
        assert_eq!(last.pod_cidrs[0].to_string(), "10.244.32.0/24");
        assert_eq!(last.pod_cidrs[1].to_string(), "fd00:10:244:32::/64");
    }

    #[test]
    fn a_cluster_of_one_family_has_no_address_of_the_other() {
        let topology = Topology::new(&options(2, 1, Families::Ipv6));
        assert!(topology.nodes.iter().all(|node| address_of(&node.internal, Family::Ipv4).is_none()));
        assert!(topology.never_masquerade().iter().all(|cidr| cidr.addr().is_ipv6()));
    }
}
