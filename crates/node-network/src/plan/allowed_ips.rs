//! Next hops behind WireGuard: it sends a packet to the peer whose AllowedIPs name its destination, whatever the route's
//! next hop is, so that a node's pods must be named there as the node itself is.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::cluster::NodeName;
use crate::family::host_prefix;
use crate::observed::{PublicKey, WireguardPeer};

/// "This peer is allowed these pods, too."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedIpsChange {
    /// Index of the WireGuard link.
    pub link: u32,
    /// Its name.
    pub link_name: String,
    /// The peer that is the node.
    pub peer: PublicKey,
    /// The node's pods.
    pub pod_cidr: IpNet,
    /// The node.
    pub node: NodeName,
}

/// Why packets for a node's pods do not reach it through a WireGuard link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllowedIpsFault {
    /// Nobody knows.
    #[error("its AllowedIPs cannot be read ({0}): make sure that the node's peer is allowed them")]
    Unreadable(String),
    /// None of the peers is the node.
    #[error(
        "no peer of it is allowed the node's address {0}: add that, and the pods, to the peer's AllowedIPs"
    )]
    NoPeer(IpAddr),
    /// The node's peer is not allowed its pods.
    #[error("its peer {0} is not allowed them: add them to the AllowedIPs, or set routes.maintainAllowedIPs")]
    Missing(PublicKey),
    /// Another peer is.
    #[error("its peer {0}, which is not that node's, is allowed {1}: take that away from it")]
    OtherPeer(PublicKey, IpNet),
}

/// Why packets to `pod_cidr` do not go to the peer that has `next_hop`.
pub(super) fn fault(next_hop: IpAddr, pod_cidr: IpNet, peers: &[WireguardPeer]) -> Option<AllowedIpsFault> {
    let Some((node, _)) = most_specific(host_prefix(next_hop), peers) else {
        return Some(AllowedIpsFault::NoPeer(next_hop));
    };
    // A part of the pods that another peer has is lost, too.
    let allowed = peers.iter().flat_map(|peer| peer.allowed_ips.iter().map(move |net| (peer, net)));
    let within = |net: &IpNet| *net != pod_cidr && pod_cidr.contains(net);
    if let Some((thief, net)) =
        allowed.clone().find(|(peer, net)| within(net) && peer.public_key != node.public_key)
    {
        return Some(AllowedIpsFault::OtherPeer(thief.public_key, *net));
    }
    match most_specific(pod_cidr, peers) {
        Some((peer, _)) if peer.public_key == node.public_key => None,
        Some((thief, net)) if net == pod_cidr => Some(AllowedIpsFault::OtherPeer(thief.public_key, net)),
        // What covers more than the pods, such as everything, gives way to what is more specific.
        _ => Some(AllowedIpsFault::Missing(node.public_key)),
    }
}

/// The peer that gets what is sent to `net`, and by which of its AllowedIPs.
fn most_specific(net: IpNet, peers: &[WireguardPeer]) -> Option<(&WireguardPeer, IpNet)> {
    let all = peers.iter().flat_map(|peer| peer.allowed_ips.iter().map(move |allowed| (peer, *allowed)));
    all.filter(|(_, allowed)| allowed.contains(&net)).max_by_key(|(_, allowed)| allowed.prefix_len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(number: u8, allowed: &[&str]) -> WireguardPeer {
        let allowed_ips = allowed.iter().map(|net| net.parse().unwrap()).collect();
        WireguardPeer { public_key: PublicKey([number; 32]), allowed_ips }
    }

    fn of_node2(peers: &[WireguardPeer]) -> Option<AllowedIpsFault> {
        fault("10.8.0.2".parse().unwrap(), "10.244.2.0/24".parse().unwrap(), peers)
    }

    #[test]
    fn pods_that_go_to_their_node_are_well_by_whatever_prefix() {
        assert_eq!(of_node2(&[peer(2, &["10.8.0.2/32", "10.244.2.0/24"]), peer(3, &["0.0.0.0/0"])]), None);
        assert_eq!(of_node2(&[peer(2, &["10.8.0.2/32", "10.244.0.0/16"])]), None);
        assert_eq!(of_node2(&[peer(2, &["0.0.0.0/0"])]), None);
    }

    #[test]
    fn each_way_to_lose_packets_is_told_apart() {
        let missing = AllowedIpsFault::Missing(PublicKey([2; 32]));
        assert_eq!(of_node2(&[peer(2, &["10.8.0.2/32"])]), Some(missing.clone()));
        assert_eq!(of_node2(&[peer(2, &["10.8.0.2/32"]), peer(3, &["0.0.0.0/0"])]), Some(missing));
        let no_peer = AllowedIpsFault::NoPeer("10.8.0.2".parse().unwrap());
        assert_eq!(of_node2(&[peer(3, &["10.8.0.3/32", "10.244.2.0/24"])]), Some(no_peer));
        for stolen in ["10.244.2.0/24", "10.244.2.128/25"] {
            let peers = [peer(2, &["10.8.0.2/32", "10.244.2.0/23"]), peer(3, &["10.8.0.3/32", stolen])];
            let thief = AllowedIpsFault::OtherPeer(PublicKey([3; 32]), stolen.parse().unwrap());
            assert_eq!(of_node2(&peers), Some(thief), "{stolen}");
        }
    }

    proptest! {
        /// What the kernel does with the change: the address is the peer's, and nobody else's.
        #[test]
        fn an_addition_mends_what_is_missing_and_takes_nothing_from_others(
            nets in proptest::collection::vec((0_u8..3, 0_u8..4, 8_u8..=32), 0..8),
        ) {
            let mut peers = vec![peer(0, &["10.8.0.2/32"]), peer(1, &[]), peer(2, &[])];
            for (owner, third, length) in nets {
                let net = IpNet::new(IpAddr::from([10, 244, third, 0]), length).unwrap().trunc();
                if !peers.iter().any(|peer| peer.allowed_ips.contains(&net)) {
                    peers[usize::from(owner)].allowed_ips.push(net);
                }
            }
            if let Some(AllowedIpsFault::Missing(key)) = of_node2(&peers) {
                let pods: IpNet = "10.244.2.0/24".parse().unwrap();
                prop_assert_eq!(key, peers[0].public_key);
                prop_assert!(!peers.iter().any(|peer| peer.allowed_ips.contains(&pods)));
                peers[0].allowed_ips.push(pods);
                prop_assert_eq!(of_node2(&peers), None);
            }
        }
    }
}
