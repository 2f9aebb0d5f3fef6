//! Links with their addresses.

use std::collections::BTreeMap;

use kernel::KernelError;
use kernel::address::{self, Address, DADFAILED, PERMANENT, TENTATIVE};
use kernel::link::{self, LOOPBACK, Link};
use kernel::route::Route;
use link_name::LinkName;
use node_network::desired::Sysctl;
use node_network::observed::{LinkKind, ObservedAddress, ObservedLink};
use node_network::{Family, POD_LINK_PREFIX};

use super::Kernel;
use super::seen::ROUTER_ADVERTISEMENT;

/// Every link by its index.
pub(super) fn links(
    kernel: &mut Kernel,
    routes: &[Route],
) -> Result<BTreeMap<u32, ObservedLink>, KernelError> {
    let addresses = address::dump(&mut kernel.route)?;
    let mut links = BTreeMap::new();
    let all = link::dump(&mut kernel.route)?;
    for link in all.iter().cloned() {
        let held: Vec<&Address> = addresses.iter().filter(|address| address.index == link.index).collect();
        let learns = may_learn(&link, &held, &all, routes) && kernel_listens(kernel, &link)?;
        let observed = ObservedLink {
            index: link.index,
            kind: kind(&link),
            up: link.is_up(),
            mtu: link.mtu,
            master: link.master,
            addresses: held.into_iter().map(observed_address).collect(),
            learns_from_router_advertisements: learns,
            name: link.name,
        };
        links.insert(observed.index, observed);
    }
    Ok(links)
}

fn kind(link: &Link) -> LinkKind {
    if link.flags & LOOPBACK != 0 {
        return LinkKind::Loopback;
    }
    match link.kind.as_deref() {
        Some("veth") => LinkKind::Veth,
        Some("bridge") => LinkKind::Bridge,
        Some("dummy") => LinkKind::Dummy,
        Some("wireguard") => LinkKind::Wireguard,
        Some("tun") => LinkKind::Tun,
        Some("vrf") => LinkKind::Vrf,
        _ => LinkKind::Other,
    }
}

fn observed_address(address: &Address) -> ObservedAddress {
    let usable = address.flags & (TENTATIVE | DADFAILED) == 0;
    ObservedAddress { address: address.ip, usable, stable: address.is_stable() }
}

/// A link to a network on which a router may speak, at any time: once the node forwards, the kernel would not listen.
/// What containers and VMs say is not to be listened to: a veth counts only with an address in a network, as an uplink
/// has (a routed pod's link has the gateway's as a host prefix), and a bridge only with a port that is no container's.
fn may_learn(link: &Link, addresses: &[&Address], all: &[Link], routes: &[Route]) -> bool {
    let in_network = |held: &&Address| held.scope == 0 && held.ip.prefix_len() < held.ip.max_prefix_len();
    let mut ports = all.iter().filter(|port| port.master == Some(link.index));
    let to_network = match kind(link) {
        LinkKind::Veth => addresses.iter().copied().any(|held| in_network(&held)),
        LinkKind::Bridge => ports.any(|port| !matches!(kind(port), LinkKind::Veth | LinkKind::Tun)),
        // What comes to a shaping link was redirected there, and is heard by the link to which it came.
        LinkKind::Other => link.kind.as_deref() != Some("ifb"),
        LinkKind::Loopback | LinkKind::Dummy | LinkKind::Vrf | LinkKind::Wireguard | LinkKind::Tun => false,
    };
    let of_pods = link.name.starts_with(POD_LINK_PREFIX);
    // A router's words reach the bridge or bond, not its port; those to a link in a VRF reach the link.
    let is_port = matches!(link.port_kind.as_deref(), Some("bridge" | "bond" | "team"));
    !of_pods && (!is_port && to_network || has_learnt(link, addresses, routes))
}

/// Somebody has learnt a route or an address from router advertisements on this link: the kernel, or a program that
/// marks what it learns in the same way.
fn has_learnt(link: &Link, addresses: &[&Address], routes: &[Route]) -> bool {
    let route = |route: &Route| {
        route.protocol == ROUTER_ADVERTISEMENT && route.hops.iter().any(|hop| hop.index == Some(link.index))
    };
    let address = |address: &&Address| {
        address.ip.addr().is_ipv6() && address.flags & PERMANENT == 0 && address.scope == 0
    };
    link.flags & LOOPBACK == 0 && (addresses.iter().any(address) || routes.iter().any(route))
}

/// networkd and NetworkManager set `accept_ra` to 0 and listen themselves; what they learn is theirs to keep.
fn kernel_listens(kernel: &Kernel, link: &Link) -> Result<bool, KernelError> {
    let Ok(name) = LinkName::new(link.name.as_str()) else { return Ok(false) };
    Ok(kernel.sysctls.read(&Sysctl::AcceptRa(name).path())?.as_deref() == Some("1"))
}

/// The sysctls of the links on which the kernel learns.
pub(super) fn accept_ra_sysctls(links: &BTreeMap<u32, ObservedLink>) -> Vec<Sysctl> {
    let learning = links.values().filter(|link| link.learns_from_router_advertisements);
    learning.filter_map(|link| LinkName::new(link.name.as_str()).ok()).map(Sysctl::AcceptRa).collect()
}

/// How links that may lead to a LAN answer for others.
pub(super) fn answering_sysctls(links: &BTreeMap<u32, ObservedLink>) -> Vec<Sysctl> {
    let to_network = |link: &&ObservedLink| {
        !link.is_pod_link() && link.kind != LinkKind::Loopback && !link.addresses.is_empty()
    };
    let names = links.values().filter(to_network).filter_map(|link| LinkName::new(link.name.as_str()).ok());
    names
        .flat_map(|name| {
            let delays = Family::BOTH.map(|family| Sysctl::ProxyDelay(family, name.clone()));
            delays.into_iter().chain([Sysctl::ProxyNdp(name)])
        })
        .collect()
}
