//! Whether the kernel's table of neighbours holds every peer. It is one for all network namespaces of the machine: pods, and
//! the node's own entries of them, take of it too.

use crate::condition::Condition;
use crate::family::Family;
use crate::observed::{LinkKind, ObservedNode};

/// Room for each peer: one for itself, and as much again for pods and for entries that are about to go.
const ROOM: usize = 2;

/// What an operator should know of the limits.
pub(super) fn conditions(observed: &ObservedNode) -> impl Iterator<Item = Condition> + '_ {
    observed.neighbour_limits.iter().filter_map(|(family, limit)| {
        let peers = neighbours(observed, family);
        let wanted = (ROOM * peers).next_power_of_two();
        let fits = usize::try_from(*limit).is_ok_and(|limit| ROOM * peers <= limit);
        (!fits).then_some(Condition::FewNeighbours { family, peers, limit: *limit, wanted })
    })
}

/// Peers for whose link-layer address somebody is asked; tunnels ask nobody.
fn neighbours(observed: &ObservedNode, family: Family) -> usize {
    let asks = |link: &u32| {
        let kind = observed.links.get(link).map(|link| &link.kind);
        !matches!(kind, Some(LinkKind::Wireguard | LinkKind::Tun))
    };
    let of_family = observed.next_hops.iter().filter(|(hop, _)| Family::of(**hop) == family);
    of_family
        .filter(|(_, found)| {
            found.as_ref().is_ok_and(|found| found.legs.first().is_some_and(|leg| asks(&leg.link)))
        })
        .count()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::sync::Arc;

    use super::*;
    use crate::family::host_prefix;
    use crate::observed::{FibLookup, FibMatch, Leg, ObservedLink, RouteKind};

    const NIC: u32 = 2;
    const TUNNEL: u32 = 3;

    fn link(index: u32, kind: LinkKind) -> (u32, ObservedLink) {
        let link = ObservedLink {
            index,
            name: format!("link{index}"),
            kind,
            up: true,
            mtu: 1500,
            master: None,
            addresses: Vec::new(),
            learns_from_router_advertisements: false,
        };
        (index, link)
    }

    /// A node with so many IPv4 peers behind `link`, and a few of IPv6.
    fn node(peers: u32, link_to_them: u32, limit: u32) -> ObservedNode {
        let found = |hop: IpAddr, link: u32| -> (IpAddr, FibLookup) {
            let leg = Leg { via: None, link };
            let found = FibMatch {
                dst: host_prefix(hop),
                table: 254,
                protocol: 2,
                kind: RouteKind::Unicast,
                metric: 0,
                legs: vec![leg],
            };
            (hop, Ok(Arc::new(found)))
        };
        let v4 = (0..peers).map(|n| found(Ipv4Addr::from_bits(0x0a00_0001 + n).into(), link_to_them));
        let v6 = (0..3_u16).map(|n| found(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n + 1).into(), NIC));
        let mut observed = ObservedNode {
            links: [link(NIC, LinkKind::Other), link(TUNNEL, LinkKind::Wireguard)].into(),
            next_hops: v4.chain(v6).collect(),
            ..ObservedNode::default()
        };
        for family in Family::BOTH {
            observed.neighbour_limits.insert(family, limit);
        }
        observed
    }

    #[test]
    fn five_thousand_peers_do_not_fit_into_the_kernels_default_and_five_hundred_do() {
        let told: Vec<String> = conditions(&node(5_000, NIC, 1024)).map(|told| told.to_string()).collect();
        insta::assert_snapshot!(told.join("\n"), @"5000 nodes are reached directly by IPv4, and this machine keeps 1024 neighbours, those of its pods among them: set net.ipv4.neigh.default.gc_thresh3 to 16384 and gc_thresh2 to 8192 where it boots; what finds no room is lost");
        assert_eq!(conditions(&node(512, NIC, 1024)).count(), 0);
        assert_eq!(conditions(&node(513, NIC, 1024)).count(), 1);
        assert_eq!(conditions(&node(5_000, NIC, 16_384)).count(), 0);
    }

    #[test]
    fn peers_behind_a_tunnel_and_limits_that_nobody_sees_are_no_matter() {
        assert_eq!(conditions(&node(5_000, TUNNEL, 1024)).count(), 0);
        let mut unseen = node(5_000, NIC, 1024);
        unseen.neighbour_limits = Default::default();
        assert_eq!(conditions(&unseen).count(), 0);
    }

    #[test]
    fn what_is_asked_for_is_enough() {
        for peers in [4, 513, 1_000, 5_000, 15_000, 20_000] {
            let Some(Condition::FewNeighbours { wanted, .. }) = conditions(&node(peers, NIC, 1)).next()
            else {
                panic!("{peers} peers fit into a table of one");
            };
            let wanted = u32::try_from(wanted).unwrap();
            assert!(conditions(&node(peers, NIC, wanted)).next().is_none(), "{peers} peers, {wanted}");
        }
    }
}
