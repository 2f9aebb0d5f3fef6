//! Which of this node's addresses the settings choose for others to reach it by.

use std::net::IpAddr;

use crate::family::{Family, PerFamily};
use crate::observed::{LinkKind, ObservedAddress, ObservedLink, ObservedNode};
use crate::settings::NodeAddressSettings;

/// The chosen address of each family; none where nothing matches. Only addresses that are there to stay are chosen: no
/// temporary one (RFC 8981), none of a pod, none that only this link understands.
#[must_use]
pub fn select(settings: &NodeAddressSettings, observed: &ObservedNode) -> PerFamily<IpAddr> {
    let mut chosen: PerFamily<(usize, IpAddr)> = PerFamily::default();
    if settings.is_empty() {
        return PerFamily::default();
    }
    for (link, held) in observed.addresses().filter(|(link, held)| may_identify(link, held)) {
        let address = held.address.addr();
        let Some(rank) = rank(settings, link, address) else { continue };
        let family = Family::of(address);
        // Among equals the lowest, so that the choice is the same after each look.
        if chosen.get(family).is_none_or(|best| (rank, address) < *best) {
            chosen.insert(family, (rank, address));
        }
    }
    let mut addresses = PerFamily::default();
    for (family, (_, address)) in chosen.iter() {
        addresses.insert(family, *address);
    }
    addresses
}

fn may_identify(link: &ObservedLink, held: &ObservedAddress) -> bool {
    let address = held.address.addr();
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_loopback(),
    };
    link.up && held.usable && held.stable && !local && link.kind != LinkKind::Loopback && !link.is_pod_link()
}

fn rank(settings: &NodeAddressSettings, link: &ObservedLink, address: IpAddr) -> Option<usize> {
    let named = |wanted: &String| match wanted.strip_suffix('*') {
        Some(stem) => link.name.starts_with(stem),
        None => *wanted == link.name,
    };
    let within = settings.cidrs.is_empty() || settings.cidrs.iter().any(|cidr| cidr.contains(&address));
    let position = match settings.interfaces.as_slice() {
        [] => Some(0),
        interfaces => interfaces.iter().position(named),
    };
    position.filter(|_| within)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::three_nodes::{ip, link};

    fn chosen(interfaces: &[&str], cidrs: &[&str], links: &[ObservedLink]) -> Vec<IpAddr> {
        let settings = NodeAddressSettings {
            interfaces: interfaces.iter().map(ToString::to_string).collect(),
            cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        };
        let links = links.iter().map(|link| (link.index, link.clone())).collect();
        select(&settings, &ObservedNode { links, ..ObservedNode::default() }).values().copied().collect()
    }

    fn links() -> Vec<ObservedLink> {
        vec![
            link(1, "lo", LinkKind::Loopback, &["10.0.0.9/8"]),
            link(2, "eth0", LinkKind::Other, &["192.0.2.11/24", "2001:db8::11/64", "fe80::1/64"]),
            link(3, "wg0", LinkKind::Wireguard, &["10.8.0.1/24"]),
            link(4, "hgw12345678", LinkKind::Veth, &["10.8.0.7/32"]),
        ]
    }

    #[test]
    fn links_are_chosen_in_the_order_of_the_setting() {
        assert_eq!(chosen(&["wg0", "eth*"], &[], &links()), [ip("10.8.0.1"), ip("2001:db8::11")]);
        assert_eq!(chosen(&["eth0", "wg0"], &[], &links()), [ip("192.0.2.11"), ip("2001:db8::11")]);
        assert_eq!(chosen(&["eth1"], &[], &links()), Vec::<IpAddr>::new());
    }

    #[test]
    fn a_prefix_chooses_whichever_link_holds_the_address_but_a_pods() {
        assert_eq!(chosen(&[], &["10.8.0.0/16"], &links()), [ip("10.8.0.1")]);
        assert_eq!(chosen(&["eth0"], &["10.8.0.0/16"], &links()), Vec::<IpAddr>::new());
    }

    #[test]
    fn without_a_setting_nothing_is_chosen() {
        assert_eq!(chosen(&[], &[], &links()), Vec::<IpAddr>::new());
    }

    #[test]
    fn a_temporary_address_or_one_of_a_link_that_is_down_is_not_chosen() {
        let mut links = links();
        links[1].addresses[1].stable = false;
        assert_eq!(chosen(&["eth0"], &[], &links), [ip("192.0.2.11")]);
        links[1].up = false;
        assert_eq!(chosen(&["eth0"], &[], &links), Vec::<IpAddr>::new());
    }
}
