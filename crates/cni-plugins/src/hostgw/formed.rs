//! ADD where pods form their IPv6 address of a prefix that the LAN's router announces (RFC 4862): the node has learnt the
//! prefix, and the rest follows from who the pod is (RFC 7217). From there on it is a range's address like any other.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use cni_spec::{
    AttachmentCall, ClientId, CniError, ErrorCode, IpFamily, NetConf, Range, RangeSet, RangeSets,
};
use ipnet::{IpNet, Ipv6Net};
use kernel::address::{self, Address, DADFAILED, DEPRECATED, TEMPORARY, TENTATIVE};
use kernel::link::Link;
use kernel::netlink::Socket;

use super::facts::NodeFacts;
use crate::failure::{kernel_refused, wiring_failed};
use crate::fnv::fnv1a;
use crate::wiring::lan;

/// Of an address that forms itself (RFC 4862, section 5.5.3, and RFC 4291, section 2.5.1).
const PREFIX_LEN: u8 = 64;
/// `RT_SCOPE_UNIVERSE`.
const GLOBAL: u8 = 0;
/// Interface ids from here on are reserved for anycast (RFC 2526), as is that of zeros (RFC 4291).
const FIRST_ANYCAST: u64 = 0xfdff_ffff_ffff_ff80;

/// A pod's address before its ADD reserves it.
pub(super) struct Formed {
    /// The configuration, as if its prefix were a range.
    pub(super) conf: NetConf,
    /// The address, to be reserved by name; none where the runtime requests another.
    pub(super) address: Option<IpAddr>,
}

/// Forms the address, where the configuration wants that.
pub(super) fn form(
    conf: &NetConf,
    call: &AttachmentCall<PathBuf>,
    (facts, bridge): (&NodeFacts, Option<&Link>),
    host: &mut Socket,
) -> Result<Option<Formed>, CniError> {
    let Some(subnet) = conf.ipam.slaac else { return Ok(None) };
    let (index, name) = match bridge {
        Some(bridge) => (bridge.index, bridge.name.clone()),
        None => {
            let (link, _) = lan::uplink_of(&facts.lan_link(conf, host)?, host).map_err(wiring_failed)?;
            (link.index, link.name)
        }
    };
    let held = address::dump(host).map_err(kernel_refused)?;
    let held: Vec<Address> = held.into_iter().filter(|held| held.index == index).collect();
    let prefix = prefix_of(&held, facts.addresses.v6, subnet).ok_or_else(|| {
        CniError::new(
            ErrorCode::TryAgainLater,
            format!(
                "`ipam.slaac`: link `{name}` of this node has no address of a /64 in {subnet}: let the node take the \
                 LAN's prefix (`accept_ra` is 2 where it forwards), or give an IPv6 range"
            ),
        )
    })?;
    let unusable = |error: &dyn std::fmt::Display| {
        CniError::new(ErrorCode::InvalidNetworkConfig, format!("`ipam.slaac`: {prefix}: {error}"))
    };
    let range = Range::new(IpNet::V6(prefix), None, None, None).map_err(|error| unusable(&error))?;
    let set = RangeSet::new(vec![range]).map_err(|error| unusable(&error))?;
    let sets = RangeSets::new(vec![set]).map_err(|error| unusable(&error))?;
    let is_requested = conf.requested_ips(&call.args).iter().any(IpAddr::is_ipv6);
    let address = (!is_requested).then(|| IpAddr::V6(address_in(prefix, &identity(conf, call))));
    Ok(Some(Formed { conf: conf.with_ranges_of_other_families(&sets), address }))
}

/// The prefix of the address with which the node speaks, or else of the one that it keeps longest.
fn prefix_of(held: &[Address], spoken: Option<Ipv6Addr>, subnet: Ipv6Net) -> Option<Ipv6Net> {
    let unfit = TEMPORARY | TENTATIVE | DEPRECATED | DADFAILED;
    let fit = held.iter().filter(|held| held.scope == GLOBAL && held.flags & unfit == 0);
    let prefixes = fit.filter_map(|held| match held.ip {
        IpNet::V6(ip) if ip.prefix_len() == PREFIX_LEN && subnet.contains(&ip.trunc()) => {
            let is_spoken = spoken.is_some_and(|spoken| ip.contains(&spoken));
            Some(((is_spoken, held.preferred_lifetime), ip.trunc()))
        }
        _ => None,
    });
    prefixes.max().map(|(_, prefix)| prefix)
}

/// Who the pod is: the same for each life of a pod of a name where that is wanted of its lease, too.
fn identity(conf: &NetConf, call: &AttachmentCall<PathBuf>) -> String {
    let by_name = conf.ipam.dhcp.as_ref().is_some_and(|dhcp| dhcp.client_id == ClientId::Pod);
    let pod = match (&call.args.pod_namespace, &call.args.pod_name) {
        (namespace, Some(pod)) if by_name => format!("{}/{pod}", namespace.as_deref().unwrap_or("default")),
        _ => call.attachment.container_id().to_string(),
    };
    format!("{pod}/{}/{}", conf.base.name, call.attachment.ifname())
}

fn address_in(prefix: Ipv6Net, identity: &str) -> Ipv6Addr {
    let network = prefix.network().to_string();
    let hash = fnv1a(&[&network, "/", identity]);
    // What differs in the last character alone differs little at the hash's upper end.
    let mixed = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let id = if mixed == 0 || mixed >= FIRST_ANYCAST { mixed ^ 1 << 62 } else { mixed };
    Ipv6Addr::from((u128::from(prefix.network()) | u128::from(id)).to_be_bytes())
}

impl Formed {
    /// What is requested by name, this address behind the rest.
    pub(super) fn among(&self, requested: Vec<IpAddr>) -> Vec<IpAddr> {
        requested.into_iter().chain(self.address).collect()
    }
}

/// Which of a pod's addresses the LAN is asked about: a DHCP server's were asked about before they were taken.
pub(super) fn is_to_be_probed(conf: &NetConf, address: IpAddr) -> bool {
    conf.ipam.dhcp.is_none() || IpFamily::of(address) == IpFamily::V6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(ip: &str, flags: u32, preferred_lifetime: u32) -> Address {
        let ip: IpNet = ip.parse().unwrap();
        let scope = if ip.to_string().starts_with("fe80") { 253 } else { GLOBAL };
        Address { index: 2, ip, peer: None, flags, scope, valid_lifetime: u32::MAX, preferred_lifetime }
    }

    #[test]
    fn the_prefix_is_that_of_the_nodes_own_address_or_of_the_one_that_lasts() {
        let any: Ipv6Net = "::/0".parse().unwrap();
        let all = [
            held("fe80::1/64", 0, u32::MAX),
            held("2001:db8:1::7/128", 0, u32::MAX),
            held("2001:db8:1::8/64", 0, 600),
            held("fd00:0:0:1::8/64", 0, 900),
            held("2001:db8:9::8/64", DEPRECATED, 0),
            held("2001:db8:8::8/64", TEMPORARY, 5000),
            held("10.0.0.1/24", 0, u32::MAX),
        ];
        let found = |spoken: Option<&str>, subnet: Ipv6Net| {
            let spoken = spoken.map(|spoken| spoken.parse().unwrap());
            prefix_of(&all, spoken, subnet).map(|prefix| prefix.to_string())
        };
        assert_eq!(found(Some("2001:db8:1::7"), any).as_deref(), Some("2001:db8:1::/64"));
        assert_eq!(found(None, any).as_deref(), Some("fd00:0:0:1::/64"));
        assert_eq!(found(None, "2000::/3".parse().unwrap()).as_deref(), Some("2001:db8:1::/64"));
        assert_eq!(found(None, "2001:db8:2::/48".parse().unwrap()), None);
    }

    #[test]
    fn ids_stay_apart_and_are_never_those_of_anycast() {
        let prefix: Ipv6Net = "2001:db8::/64".parse().unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..20_000 {
            let formed = address_in(prefix, &format!("default/web-{number}/lan/eth0"));
            assert!(prefix.contains(&formed) && seen.insert(formed), "{formed}");
            let id = u64::try_from(u128::from(formed) & u128::from(u64::MAX)).unwrap();
            assert!(id != 0 && id < FIRST_ANYCAST, "{formed}");
        }
        let elsewhere = "2001:db8:0:1::/64".parse().unwrap();
        assert_ne!(address_in(prefix, "a").segments()[4..], address_in(elsewhere, "a").segments()[4..]);
    }
}
