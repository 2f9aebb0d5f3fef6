//! WireGuard links on the way to peers. Where there is none, nothing is asked.

use std::collections::{BTreeMap, BTreeSet};

use kernel::wireguard::Wireguard;
use node_network::ObservedNode;
use node_network::observed::{LinkKind, PublicKey, WireguardPeer};

/// The peers of each WireGuard link among `hop_links`, those that look-ups found.
pub(super) fn peers(
    observed: &ObservedNode,
    hop_links: &BTreeSet<u32>,
) -> BTreeMap<u32, Result<Vec<WireguardPeer>, String>> {
    let all = observed.links.values().filter(|link| link.kind == LinkKind::Wireguard);
    let links: BTreeSet<u32> = all.map(|link| link.index).filter(|link| hop_links.contains(link)).collect();
    if links.is_empty() {
        return BTreeMap::new();
    }
    match Wireguard::open() {
        Err(error) => links.into_iter().map(|link| (link, Err(error.to_string()))).collect(),
        Ok(mut wireguard) => links.into_iter().map(|link| (link, of_link(&mut wireguard, link))).collect(),
    }
}

fn of_link(wireguard: &mut Wireguard, link: u32) -> Result<Vec<WireguardPeer>, String> {
    let peers = wireguard.peers(link).map_err(|error| error.to_string())?;
    let peer = |peer: kernel::wireguard::Peer| WireguardPeer {
        public_key: PublicKey(peer.public_key),
        allowed_ips: peer.allowed_ips,
    };
    Ok(peers.into_iter().map(peer).collect())
}
