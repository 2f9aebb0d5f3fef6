//! The contents of the table `inet hostgw`: masquerading, anti-spoofing, and restricted forwarding.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::address_ranges::AddressRanges;
use super::census::Census;
use super::nft_table::{BaseChain, ChainKind, Hook, Match, NftTable, Rule, SetName, Verdict};
use crate::POD_LINK_PREFIX;
use crate::cluster::ClusterNode;
use crate::family::{Family, net};
use crate::observed::HostFacts;
use crate::settings::Settings;

/// `NF_IP_PRI_RAW`: before connection tracking, so that a spoofed packet costs no entry there.
const RAW: i32 = -300;
/// `NF_IP_PRI_FILTER`.
const FILTER: i32 = 0;
/// `NF_IP_PRI_NAT_SRC`.
const SRCNAT: i32 = 100;

/// ICMPv6 router advertisement (RFC 4861).
const ROUTER_ADVERTISEMENT: u8 = 134;

/// The table for a node whose pods have addresses in `pod_prefixes`.
pub(super) fn nft_table(
    this: &ClusterNode,
    census: &Census<'_>,
    settings: &Settings,
    host: &HostFacts,
    pod_prefixes: &[IpNet],
) -> NftTable {
    let mut sets = BTreeMap::new();
    let mut set = |name: fn(Family) -> SetName, addresses: &mut AddressRanges| {
        sets.extend(Family::BOTH.map(|family| (name(family), addresses.prefixes(family))));
    };
    let mut own = AddressRanges::default();
    own.extend(pod_prefixes.iter().copied());
    set(SetName::PodCidrs, &mut own);
    let mut cluster = census.claimed.ranges();
    cluster.extend(settings.masquerade.cluster_cidrs.iter().chain(pod_prefixes).copied());
    if settings.forwarding.restrict_to_pods {
        set(SetName::ClusterPods, &mut cluster);
    }
    if settings.masquerade.enabled {
        census.add_node_addresses(&mut cluster);
        cluster.extend(never_masquerade(settings));
        set(SetName::NeverMasquerade, &mut cluster);
    }
    let mut chains = Vec::new();
    if settings.forwarding.restrict_to_pods {
        chains.push(forward_chain());
    }
    if settings.masquerade.enabled {
        chains.push(postrouting_chain(this, host));
    }
    if settings.anti_spoof {
        chains.push(prerouting_chain(settings, host));
    }
    NftTable { sets, chains }
}

/// Beside pods and nodes.
fn never_masquerade(settings: &Settings) -> impl Iterator<Item = IpNet> {
    let multicast_and_link_local = [
        net(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
        net(IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
        net(IpAddr::V4(Ipv4Addr::BROADCAST), 32),
        net(IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
        LINK_LOCAL_V6,
    ];
    multicast_and_link_local
        .into_iter()
        .chain(settings.masquerade.never_masquerade.iter().copied())
        // Its hosts know pods by their own addresses.
        .chain(settings.lan.subnets.iter().copied())
}

const LINK_LOCAL_V6: IpNet = net(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10);
const UNSPECIFIED_V6: IpNet = net(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128);

/// Two rules a family. Where the outgoing link holds the node's internal address, that address is named: IPv6
/// masquerade may choose a temporary one, and a link may hold several.
fn postrouting_chain(this: &ClusterNode, host: &HostFacts) -> BaseChain {
    let mut rules = Vec::new();
    for family in Family::BOTH {
        let leaves_the_cluster = [
            Match::SaddrInSet(SetName::PodCidrs(family)),
            Match::DaddrNotInSet(SetName::NeverMasquerade(family)),
        ];
        let internal =
            this.internal_ips.get(family).and_then(|ip| Some((*ip, host.local_addresses.get(ip)?)));
        if let Some((address, link)) = internal {
            let mut matches = leaves_the_cluster.to_vec();
            matches.push(Match::Oifname(link.clone()));
            rules.push(Rule {
                name: "masquerade as the internal address",
                matches,
                verdict: Verdict::Snat(address),
            });
        }
        let matches = leaves_the_cluster.to_vec();
        rules.push(Rule { name: "masquerade elsewhere", matches, verdict: Verdict::Masquerade });
    }
    BaseChain { name: "postrouting", kind: ChainKind::Nat, hook: Hook::Postrouting, priority: SRCNAT, rules }
}

/// From pods: no router advertisements, and no source address that does not lead back to the pod. Link-local and
/// unspecified sources are neighbour discovery.
fn prerouting_chain(settings: &Settings, host: &HostFacts) -> BaseChain {
    // What a bridge's other ports bring is not from pods.
    let bridge = settings.pod_bridge().filter(|_| host.bridge_fault.is_none());
    let bridge = bridge.map(|name| Match::Iifname(name.to_owned()));
    let pod_links = std::iter::once(Match::IifnamePrefix(POD_LINK_PREFIX)).chain(bridge);
    let rule = |name, pod_link: &Match, matched, verdict| Rule {
        name,
        matches: vec![pod_link.clone(), matched],
        verdict,
    };
    let rules = pod_links.flat_map(|link| {
        let advertisement = Match::Icmpv6Type(ROUTER_ADVERTISEMENT);
        [
            rule("no router advertisements from pods", &link, advertisement, Verdict::Drop),
            rule("link-local is neighbour discovery", &link, Match::SaddrIn(LINK_LOCAL_V6), Verdict::Accept),
            rule(
                "unspecified is neighbour discovery",
                &link,
                Match::SaddrIn(UNSPECIFIED_V6),
                Verdict::Accept,
            ),
            rule("no foreign source from pods", &link, Match::SourceNotBehindIif, Verdict::Drop),
        ]
    });
    BaseChain {
        name: "prerouting",
        kind: ChainKind::Filter,
        hook: Hook::Prerouting,
        priority: RAW,
        rules: rules.collect(),
    }
}

/// The node is a router for pods only.
fn forward_chain() -> BaseChain {
    let mut rules = vec![Rule {
        name: "answers follow their flow",
        matches: vec![Match::Established],
        verdict: Verdict::Accept,
    }];
    for family in Family::BOTH {
        let set = SetName::ClusterPods(family);
        for matched in [Match::SaddrInSet(set), Match::DaddrInSet(set)] {
            rules.push(Rule { name: "pods are forwarded", matches: vec![matched], verdict: Verdict::Accept });
        }
    }
    rules.push(Rule { name: "nothing else is forwarded", matches: Vec::new(), verdict: Verdict::Drop });
    BaseChain { name: "forward", kind: ChainKind::Filter, hook: Hook::Forward, priority: FILTER, rules }
}

#[cfg(test)]
mod tests;
