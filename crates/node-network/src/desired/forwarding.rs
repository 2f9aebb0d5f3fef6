//! Forwarding: the sysctls that turn it on, and what others' FORWARD chains must let through.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use link_name::LinkName;

use crate::cluster::ClusterNode;
use crate::family::{Family, PerFamily, net};
use crate::observed::HostFacts;
use crate::settings::{Mode, Settings};

/// A sysctl that we may write. The order of the variants is the order in which they are written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sysctl {
    /// `net.ipv6.conf.LINK.accept_ra`: 2 keeps a link learning from router advertisements although it forwards.
    AcceptRa(LinkName),
    /// `net.ipv4.ip_forward`. Global, because a packet's outgoing link is not known beforehand; writing it also
    /// resets other per-link sysctls to a router's defaults (RFC 1812), so it is written only when it is 0.
    Ipv4Forward,
    /// `net.ipv6.conf.all.forwarding`.
    Ipv6Forwarding,
    /// `net.ipv6.conf.LINK.proxy_ndp`: the node answers there for its pods' addresses.
    ProxyNdp(LinkName),
    /// `net.FAMILY.neigh.LINK.proxy_delay`: by default such an answer waits for up to 0.8 s.
    ProxyDelay(Family, LinkName),
}

impl Sysctl {
    /// Path below `/proc/sys`.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::AcceptRa(link) => format!("net/ipv6/conf/{link}/accept_ra"),
            Self::Ipv4Forward => "net/ipv4/ip_forward".to_owned(),
            Self::Ipv6Forwarding => "net/ipv6/conf/all/forwarding".to_owned(),
            Self::ProxyNdp(link) => format!("net/ipv6/conf/{link}/proxy_ndp"),
            Self::ProxyDelay(Family::Ipv4, link) => format!("net/ipv4/neigh/{link}/proxy_delay"),
            Self::ProxyDelay(Family::Ipv6, link) => format!("net/ipv6/neigh/{link}/proxy_delay"),
        }
    }

    /// The link whose setting it is; none where it is the node's.
    #[must_use]
    pub const fn link(&self) -> Option<&LinkName> {
        match self {
            Self::AcceptRa(link) | Self::ProxyNdp(link) | Self::ProxyDelay(_, link) => Some(link),
            Self::Ipv4Forward | Self::Ipv6Forwarding => None,
        }
    }

    /// The sysctl that turns forwarding on in a family.
    #[must_use]
    pub const fn forwarding(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self::Ipv4Forward,
            Family::Ipv6 => Self::Ipv6Forwarding,
        }
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// A sysctl and the value that it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedSysctl {
    /// Which.
    pub sysctl: Sysctl,
    /// Its value.
    pub value: &'static str,
}

/// Which address of a packet is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Packets from the prefix.
    From,
    /// Packets to the prefix.
    To,
}

/// "Accept what comes from, or goes to, these pods", in a chain of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForwardAccept {
    /// The pods.
    pub prefix: IpNet,
    /// From or to them.
    pub direction: Direction,
}

impl fmt::Display for ForwardAccept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::From => "from",
            Direction::To => "to",
        };
        write!(f, "accept {direction} {}", self.prefix)
    }
}

/// Forwarding for each family of which this node has pods.
pub(super) fn sysctls(pod_prefixes: &[IpNet], settings: &Settings) -> Vec<WantedSysctl> {
    let forwards = |family: &Family| settings.forwarding.enabled && has_pods_of(pod_prefixes, *family);
    let families = Family::BOTH.into_iter().filter(forwards);
    families.map(|family| WantedSysctl { sysctl: Sysctl::forwarding(family), value: "1" }).collect()
}

/// On the link to the LAN, for each family of which this node has pods there: to answer for them, at once.
pub(super) fn answering(
    this: &ClusterNode,
    slices: &PerFamily<IpNet>,
    settings: &Settings,
    host: &HostFacts,
) -> Vec<WantedSysctl> {
    let mut sysctls = Vec::new();
    for (family, _) in slices.iter() {
        let own = || this.internal_ips.get(family).and_then(|ip| host.local_addresses.get(ip));
        let named = settings.lan.uplink.as_ref().map(|uplink| uplink.as_str().to_owned());
        let Some(link) = named.or_else(|| own().cloned()).and_then(|name| LinkName::new(name).ok()) else {
            continue;
        };
        if family == Family::Ipv6 {
            sysctls.push(WantedSysctl { sysctl: Sysctl::ProxyNdp(link.clone()), value: "1" });
        }
        sysctls.push(WantedSysctl { sysctl: Sysctl::ProxyDelay(family, link), value: "0" });
    }
    sysctls
}

pub(super) fn forward_accepts(pod_prefixes: &[IpNet], settings: &Settings) -> BTreeSet<ForwardAccept> {
    if !settings.forwarding.foreign_rules {
        return BTreeSet::new();
    }
    let both = |prefix: &IpNet| {
        [Direction::From, Direction::To].map(|direction| ForwardAccept { prefix: *prefix, direction })
    };
    let mut accepts: BTreeSet<_> = pod_prefixes.iter().flat_map(both).collect();
    if settings.mode == Mode::L2 {
        let of_link =
            LINK_SCOPE.iter().filter(|(prefix, _)| has_pods_of(pod_prefixes, Family::of_net(prefix)));
        accepts.extend(
            of_link.map(|(prefix, direction)| ForwardAccept { prefix: *prefix, direction: *direction }),
        );
    }
    accepts
}

/// What hosts of one link say to all, or by their link-local addresses: no router forwards it, so that a FORWARD chain sees
/// it only of a bridge's frames, under `br_netfilter`. Without it nobody finds the other by neighbour discovery, or hears
/// the LAN's broadcasts.
const LINK_SCOPE: [(IpNet, Direction); 5] = [
    (net(IpAddr::V4(Ipv4Addr::BROADCAST), 32), Direction::To),
    (net(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 24), Direction::To),
    (net(IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0)), 16), Direction::To),
    (net(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10), Direction::From),
    (net(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10), Direction::To),
];

fn has_pods_of(pod_prefixes: &[IpNet], family: Family) -> bool {
    pod_prefixes.iter().any(|prefix| Family::of_net(prefix) == family)
}
