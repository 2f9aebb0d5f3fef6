//! What is said of obstacles that are not ours to remove.

use ipnet::IpNet;

use crate::condition::{Condition, ForwardingCondition, LanCondition};
use crate::desired::OwnNetwork;
use crate::family::Family;
use crate::observed::{Obstacle, ObstacleHook};

/// The conditions of the obstacles that concern this node's pods.
pub(super) fn conditions<'a>(
    own: &'a OwnNetwork,
    obstacles: &'a [Obstacle],
) -> impl Iterator<Item = Condition> + 'a {
    obstacles.iter().filter_map(|obstacle| condition(own, obstacle))
}

fn condition(own: &OwnNetwork, obstacle: &Obstacle) -> Option<Condition> {
    match obstacle {
        Obstacle::Chain { family, table, chain, hook } if own.has_pods_of(*family) => {
            Some(Condition::Forwarding(ForwardingCondition::ForeignChainMayDrop {
                table: table.clone(),
                chain: chain.clone(),
                family: *family,
                filtered: match hook {
                    ObstacleHook::Forward => "what is forwarded",
                    ObstacleHook::Input => "what is for this node (its DNS, its API server)",
                },
                prefixes: text(&prefixes(own, *family)),
            }))
        }
        Obstacle::LegacyForward { family, from, to } => {
            legacy(&prefixes(own, *family), *family, from, to).map(Condition::Forwarding)
        }
        Obstacle::LinkNotForwarding { sysctl } => {
            Some(Condition::Forwarding(ForwardingCondition::LinkNotForwarding { sysctl: sysctl.clone() }))
        }
        Obstacle::BridgeUnfiltered { family, loaded } if own.has_pods_of(*family) => {
            Some(Condition::Lan(LanCondition::BridgeUnfiltered { family: *family, loaded: *loaded }))
        }
        Obstacle::Chain { .. } | Obstacle::BridgeUnfiltered { .. } => None,
    }
}

/// The commands that are still to be run, as somebody would type them.
fn legacy(prefixes: &[IpNet], family: Family, from: &[IpNet], to: &[IpNet]) -> Option<ForwardingCondition> {
    let program = match family {
        Family::Ipv4 => "iptables-legacy",
        Family::Ipv6 => "ip6tables-legacy",
    };
    let accepted = |accepts: &[IpNet], prefix: &IpNet| accepts.iter().any(|accept| accept.contains(prefix));
    let mut commands = Vec::new();
    for prefix in prefixes {
        for (option, accepts) in [("-s", from), ("-d", to)] {
            if !accepted(accepts, prefix) {
                commands.push(format!("{program} -I FORWARD {option} {prefix} -j ACCEPT"));
            }
        }
    }
    let commands = commands.join("; ");
    (!commands.is_empty()).then_some(ForwardingCondition::LegacyForwardDrops { family, commands })
}

fn prefixes(own: &OwnNetwork, family: Family) -> Vec<IpNet> {
    own.pod_prefixes.iter().copied().filter(|prefix| Family::of_net(prefix) == family).collect()
}

fn text(prefixes: &[IpNet]) -> String {
    prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_legacy_chain_accepts_already_is_not_asked_for_again() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let pods = [net("10.244.1.0/24")];
        let all = [net("10.244.0.0/16")];
        let Some(ForwardingCondition::LegacyForwardDrops { commands, .. }) =
            legacy(&pods, Family::Ipv4, &all, &[])
        else {
            panic!("nothing accepts what is to the pods");
        };
        assert_eq!(commands, "iptables-legacy -I FORWARD -d 10.244.1.0/24 -j ACCEPT");
        assert_eq!(legacy(&pods, Family::Ipv4, &all, &all), None);
        assert_eq!(legacy(&[], Family::Ipv6, &[], &[]), None);
    }
}
