//! What stands in the way of pods' packets besides chains that we know how to open.

use std::collections::BTreeSet;

use kernel::KernelError;
use kernel::netlink::Socket;
use kernel::nftables::{Family, Hook, Policy, base_chains, rules};
use kernel::route;
use kernel::sysctl::Sysctls;
use kernel::xtables_legacy;
use node_network::Family as Version;
use node_network::desired::{Sysctl, TABLE_NAME};
use node_network::observed::{ForwardChain, ObservedNode, Obstacle, ObstacleHook};

use super::forward_chains::refuse_everything;

/// Chains that end in a drop or a rejection; `known` are those of which the plan speaks by itself.
pub(super) fn chains(socket: &mut Socket, known: &[ForwardChain]) -> Result<Vec<Obstacle>, KernelError> {
    let mut found = Vec::new();
    for (at, hook) in [(Hook::Forward, ObstacleHook::Forward), (Hook::Input, ObstacleHook::Input)] {
        for (chain, base) in base_chains(socket, at)? {
            let versions: &[Version] = match chain.table.family {
                Family::Ip => &[Version::Ipv4],
                Family::Ip6 => &[Version::Ipv6],
                Family::Inet => &Version::BOTH,
                Family::Arp | Family::Bridge | Family::Netdev => &[],
            };
            let is_ours = chain.table.name == TABLE_NAME && chain.table.family == Family::Inet;
            let is_known = |version: &Version| {
                hook == ObstacleHook::Forward
                    && known.iter().any(|known| {
                        (known.family, &known.table, &known.chain)
                            == (*version, &chain.table.name, &chain.name)
                            && (known.owned_by_iptables || known.drops)
                    })
            };
            let unknown: Vec<_> = versions.iter().filter(|version| !is_known(version)).collect();
            if is_ours || unknown.is_empty() {
                continue;
            }
            let refuses = base.policy == Policy::Drop || {
                let own = rules(socket, &chain.table, Some(&chain.name))?;
                refuse_everything(socket, &own)?
            };
            found.extend(unknown.into_iter().filter(|_| refuses).map(|version| Obstacle::Chain {
                family: *version,
                table: chain.table.name.clone(),
                chain: chain.name.clone(),
                hook,
            }));
        }
    }
    Ok(found)
}

/// FORWARD of iptables-legacy.
pub(super) fn legacy() -> Result<Vec<Obstacle>, KernelError> {
    let mut found = Vec::new();
    for (version, family) in [(Version::Ipv4, route::Family::V4), (Version::Ipv6, route::Family::V6)] {
        if let Some(chain) = xtables_legacy::forward(family)?.filter(|chain| chain.drops) {
            found.push(Obstacle::LegacyForward { family: version, from: chain.from, to: chain.to });
        }
    }
    Ok(found)
}

/// Links of pods and to peers that are told not to forward. Only IPv4 asks the incoming link; IPv6 asks the whole node.
pub(super) fn links(
    sysctls: &Sysctls,
    observed: &ObservedNode,
    hop_links: &BTreeSet<u32>,
    pod_bridge: Option<&str>,
) -> Result<Vec<Obstacle>, KernelError> {
    // Turning the whole family on turns all its links on.
    if observed.sysctls.get(&Sysctl::Ipv4Forward).map(String::as_str) != Some("1") {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let names = observed
        .links
        .values()
        .filter(|link| {
            let of_pods =
                link.is_pod_link() && link.master.is_none() || pod_bridge == Some(link.name.as_str());
            of_pods || hop_links.contains(&link.index)
        })
        .map(|link| link.name.as_str());
    // A pod's link that is yet to come gets the default.
    for name in names.chain(["default"]) {
        let sysctl = format!("net/ipv4/conf/{name}/forwarding");
        if sysctls.read(&sysctl)?.as_deref() == Some("0") {
            found.push(Obstacle::LinkNotForwarding { sysctl });
        }
    }
    Ok(found)
}

/// Families of which a bridge forwards frames past all rules (`br_netfilter`).
pub(super) fn unfiltered(sysctls: &Sysctls) -> Result<Vec<Obstacle>, KernelError> {
    let mut found = Vec::new();
    for (family, program) in [(Version::Ipv4, "iptables"), (Version::Ipv6, "ip6tables")] {
        let value = sysctls.read(&format!("net/bridge/bridge-nf-call-{program}"))?;
        if value.as_deref() != Some("1") {
            found.push(Obstacle::BridgeUnfiltered { family, loaded: value.is_some() });
        }
    }
    Ok(found)
}
