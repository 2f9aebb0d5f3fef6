//! What became of each peer's route: as planned, and then as the kernel uses it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize, Serializer};

use crate::cluster::NodeName;
use crate::condition::Condition;
use crate::family::Family;
use crate::observed::FibLookup;

/// A peer's pod CIDR and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerReport {
    /// The peer.
    pub node: NodeName,
    /// Its pods.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: IpNet,
    /// Its address.
    pub next_hop: Option<IpAddr>,
    /// The link that leads to it.
    #[serde(serialize_with = "as_text")]
    pub link: Option<Arc<str>>,
    /// What became of it.
    pub state: PeerState,
}

fn as_text<S: Serializer>(name: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    name.as_deref().serialize(serializer)
}

/// What became of a peer's route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// Installed, or to be installed by this plan.
    Routed,
    /// Installed, but the kernel uses another route.
    Shadowed,
    /// Could not be confirmed; what is installed stays.
    Held,
    /// No route.
    Refused,
}

impl PeerState {
    /// As it stands in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Routed => "routed",
            Self::Shadowed => "shadowed",
            Self::Held => "held",
            Self::Refused => "refused",
        }
    }
}

/// Judges, after a plan was applied, whether the kernel uses the routes, and marks those that it does not:
/// `look_up` answers for one address of a peer's pods, and with nothing where it is known already that they are.
pub fn judge_effective(
    peers: &mut [PeerReport],
    mut look_up: impl FnMut(IpAddr) -> Option<FibLookup>,
) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for peer in peers.iter_mut().filter(|peer| peer.state == PeerState::Routed) {
        let probed = probe_of(peer.pod_cidr);
        let winner = look_up(probed).and_then(|found| other_winner(peer, found));
        let Some(winner) = winner else { continue };
        peer.state = PeerState::Shadowed;
        conditions.push(Condition::RouteNotEffective { pod_cidr: peer.pod_cidr, probed, winner });
    }
    conditions
}

/// How many peers of a family are also looked up as a pod's packet would be: a policy rule rarely spares one of them.
const LOOKED_UP_FOR_PODS: usize = 16;

/// Judges the same by a pod's packets: rules may choose by source and incoming link. `look_up` answers with the pod
/// that asked, and nothing where there is none.
pub fn judge_effective_for_pods(
    peers: &mut [PeerReport],
    mut look_up: impl FnMut(IpAddr) -> Option<(IpAddr, FibLookup)>,
) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for family in Family::BOTH {
        let of_family = peers
            .iter_mut()
            .filter(|peer| peer.state == PeerState::Routed && Family::of_net(&peer.pod_cidr) == family);
        for peer in of_family.take(LOOKED_UP_FOR_PODS) {
            let probed = probe_of(peer.pod_cidr);
            let Some((pod, found)) = look_up(probed) else { break };
            if let Some(winner) = other_winner(peer, found) {
                peer.state = PeerState::Shadowed;
                let winner = format!("{winner}, for packets of pod {pod}");
                conditions.push(Condition::RouteNotEffective { pod_cidr: peer.pod_cidr, probed, winner });
            }
        }
    }
    conditions
}

/// The address of a peer's pods that [`judge_effective`] asks about. Not the first one: that is often an anycast address
/// or a gateway.
#[must_use]
pub fn probe_of(pod_cidr: IpNet) -> IpAddr {
    pod_cidr.hosts().nth(1).unwrap_or(pod_cidr.addr())
}

/// What wins in the place of our route.
fn other_winner(peer: &PeerReport, found: FibLookup) -> Option<String> {
    match found {
        Ok(found) if found.protocol == crate::NODE_ROUTE_PROTOCOL && found.dst == peer.pod_cidr => None,
        // A pod from before this node's CIDR changed; its own route rightly wins.
        Ok(found) if found.protocol == crate::POD_ROUTE_PROTOCOL => None,
        Ok(found) => Some(format!("{} of protocol {} in table {}", found.dst, found.protocol, found.table)),
        Err(error) => Some(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::three_nodes::{ThreeNodes, found};

    #[test]
    fn an_installed_route_that_does_not_win_is_reported() {
        let mut plan = ThreeNodes::new().plan();
        let conditions = judge_effective(&mut plan.peers, |address| {
            Some(match address.to_string().as_str() {
                "10.244.2.2" => found("10.0.0.0/8", 3, None, 9),
                "10.244.3.2" => found("10.244.3.0/24", 104, Some("192.0.2.13"), 2),
                "fd00:10:244:2::2" => Err("no route".to_owned()),
                _ => found("fd00:10:244:3::/64", 104, None, 2),
            })
        });
        let shown: Vec<_> = conditions.iter().map(ToString::to_string).collect();
        assert_eq!(plan.peers.iter().filter(|peer| peer.state == PeerState::Shadowed).count(), 2);
        insta::assert_snapshot!(shown.join("\n"), @r"
        packets to 10.244.2.0/24 do not take our route: a look-up of 10.244.2.2 finds 10.0.0.0/8 of protocol 3 in table 254; check `ip rule`, VPNs and VRFs
        packets to fd00:10:244:2::/64 do not take our route: a look-up of fd00:10:244:2::1 finds fd00:10:244:3::/64 of protocol 104 in table 254; check `ip rule`, VPNs and VRFs
        ");
    }
}
