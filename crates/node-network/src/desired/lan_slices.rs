//! Which part of the LAN this node hands out to pods, and why it may not.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::cluster::{ClusterNode, ClusterSnapshot, NodeName};
use crate::condition::{Condition, LanCondition};
use crate::family::{Family, PerFamily, overlaps};
use crate::observed::HostFacts;
use crate::settings::{Settings, Slices};

/// What a slice must not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SliceFault {
    /// It is no part of the LAN.
    #[error("is no part of the LAN, whose subnet is {0}")]
    NotOfLan(IpNet),
    /// The LAN has no subnet of the family.
    #[error("is of a family in which the LAN has no subnet")]
    NoSubnet,
    /// Another node has it, or a part.
    #[error("overlaps slice {slice} of node `{node}`")]
    OtherNode {
        /// The other's slice.
        slice: IpNet,
        /// The other node.
        node: NodeName,
    },
    /// A node, this one or another.
    #[error("holds address {address} of node `{node}`")]
    NodeAddress {
        /// The address.
        address: IpAddr,
        /// The node.
        node: NodeName,
    },
    /// A router of this node.
    #[error("holds {0}, a router of this node")]
    Router(IpAddr),
    /// What the settings reserve.
    #[error("overlaps {0} of setting lan.reserved")]
    Reserved(IpNet),
}

/// The slices of this node, and what is wrong with them: with any fault, no pod may get an address.
pub(super) fn own_slices(
    this: &ClusterNode,
    snapshot: &ClusterSnapshot,
    settings: &Settings,
    host: &HostFacts,
) -> (PerFamily<IpNet>, Vec<Condition>) {
    let lan = &settings.lan;
    let mut own = PerFamily::default();
    let mut faults = Vec::new();
    if let Some(subnet) = lan.subnet(Family::Ipv4).filter(|_| lan.is_unsliced(Family::Ipv4)) {
        // A lease may be of any part of the LAN, and is nobody's but its pod's.
        own.insert(Family::Ipv4, subnet);
    }
    if let Some(subnet) = lan.subnet(Family::Ipv6).filter(|_| lan.is_unsliced(Family::Ipv6)) {
        match this.internal_ips.get(Family::Ipv6).copied().map(announced_prefix) {
            Some(prefix) if subnet.contains(&prefix) => {
                own.insert(Family::Ipv6, prefix);
            }
            Some(slice) => {
                faults.push(Condition::Lan(LanCondition::LanSliceRefused {
                    slice,
                    fault: SliceFault::NotOfLan(subnet),
                }));
            }
            None => {
                let (node, family) = (this.name.clone(), Family::Ipv6);
                faults.push(Condition::NoInternalIp { node, family });
            }
        }
    }
    let only_slices = lan.dhcp.is_none() && !lan.slaac;
    let is_sliced = |family| !lan.is_unsliced(family) && (only_slices || lan.subnet(family).is_some());
    if !Family::BOTH.into_iter().any(is_sliced) {
        return (own, faults);
    }
    let all = slices(this, settings);
    let slices: Vec<IpNet> = all.values().copied().filter(|slice| is_sliced(Family::of_net(slice))).collect();
    if lan.slices == Slices::Annotation && this.unreadable_lan_slice {
        faults.push(Condition::Lan(LanCondition::LanSliceUnreadable { node: this.name.clone() }));
    } else if slices.is_empty() {
        faults.push(Condition::Lan(LanCondition::NoLanSlice { node: this.name.clone() }));
    }
    for slice in slices {
        if let Some(fault) = fault(&slice, this, snapshot, settings, host) {
            faults.push(Condition::Lan(LanCondition::LanSliceRefused { slice, fault }));
        }
        own.insert(Family::of_net(&slice), slice);
    }
    (own, faults)
}

/// The prefix of which a router's announcement gave a node this address (RFC 4862: always of 64 bits).
fn announced_prefix(address: IpAddr) -> IpNet {
    const PREFIX_LEN: u8 = 64;
    IpNet::new(address, PREFIX_LEN).map_or_else(|_| address.into(), |net| net.trunc())
}

/// A node's part of the LAN in each family.
pub(super) fn slices(node: &ClusterNode, settings: &Settings) -> PerFamily<IpNet> {
    let first = match &settings.lan.slices {
        Slices::PodCidr => return node.pod_cidrs.clone(),
        Slices::Annotation => return node.lan_slices.clone(),
        Slices::Index { first } => first,
    };
    let mut slices = PerFamily::default();
    let Some(number) = number_at_end(node.name.as_str()) else { return slices };
    for first in first {
        if let Some(slice) = nth_after(*first, number) {
            slices.insert(Family::of_net(first), slice);
        }
    }
    slices
}

fn number_at_end(name: &str) -> Option<u32> {
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    name.get(name.len() - digits..)?.parse().ok()
}

/// The prefix of the same length that many places on; none beyond the family's last.
fn nth_after(first: IpNet, number: u32) -> Option<IpNet> {
    let host_bits = u32::from(first.max_prefix_len() - first.prefix_len());
    let address = match first.network() {
        IpAddr::V4(address) => {
            let offset = number.checked_mul(1_u32.checked_shl(host_bits)?)?;
            IpAddr::from(u32::from(address).checked_add(offset)?.to_be_bytes())
        }
        IpAddr::V6(address) => {
            let offset = u128::from(number).checked_mul(1_u128.checked_shl(host_bits)?)?;
            IpAddr::from(u128::from(address).checked_add(offset)?.to_be_bytes())
        }
    };
    IpNet::new(address, first.prefix_len()).ok()
}

fn fault(
    slice: &IpNet,
    this: &ClusterNode,
    snapshot: &ClusterSnapshot,
    settings: &Settings,
    host: &HostFacts,
) -> Option<SliceFault> {
    let family = Family::of_net(slice);
    match settings.lan.subnet(family) {
        None => return Some(SliceFault::NoSubnet),
        Some(subnet) if !subnet.contains(slice) => return Some(SliceFault::NotOfLan(subnet)),
        Some(_) => {}
    }
    for node in snapshot.nodes.values() {
        if let Some(address) = node.all_internal_ips().find(|address| slice.contains(address)) {
            return Some(SliceFault::NodeAddress { address, node: node.name.clone() });
        }
        let others = slices(node, settings);
        if let Some(other) =
            others.get(family).filter(|other| node.name != this.name && overlaps(slice, other))
        {
            return Some(SliceFault::OtherNode { slice: *other, node: node.name.clone() });
        }
    }
    // A router that is named as the pods' gateway is left out by the plugin.
    let unnamed =
        |router: &&IpAddr| slice.contains(*router) && settings.lan.gateway(family) != Some(**router);
    if let Some(router) = host.gateways.iter().find(unnamed) {
        return Some(SliceFault::Router(*router));
    }
    settings.lan.reserved.iter().find(|reserved| overlaps(slice, reserved)).copied().map(SliceFault::Reserved)
}

/// The first and last address of a slice that pods may have: the ends of the LAN's subnet mean everybody.
pub(super) fn bounds(slice: &IpNet, subnet: &IpNet) -> (IpAddr, IpAddr) {
    let step = |address: IpAddr, up: bool| match address {
        IpAddr::V4(address) => {
            let number = u32::from(address);
            IpAddr::from((if up { number.saturating_add(1) } else { number.saturating_sub(1) }).to_be_bytes())
        }
        IpAddr::V6(address) => {
            let number = u128::from(address);
            IpAddr::from((if up { number.saturating_add(1) } else { number.saturating_sub(1) }).to_be_bytes())
        }
    };
    let (first, last) = (slice.network(), slice.broadcast());
    let first = if first == subnet.network() { step(first, true) } else { first };
    let last = if last == subnet.broadcast() && last.is_ipv4() { step(last, false) } else { last };
    (first, last)
}

#[cfg(test)]
mod tests;
