//! What a pod on the bridge to the LAN may say there: IP and ARP from its own Ethernet address and its own IP addresses, of no
//! others in neighbour advertisements, and no router advertisement. One chain a pod, on the node's end of its link, before
//! the bridge sees a frame.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use attachment::Record;
use kernel::KernelError;
use kernel::link::Mac;
use kernel::netlink::Socket;
use kernel::nftables::{
    Chain, Existing, Family, Rule, Selector, Statement, TableName, Transaction, Value, chains,
};
use kernel::route::Family as Version;
use link_name::LinkName;

use crate::wiring::link_local_of;

/// The table, of frames of one link.
pub const TABLE: &str = "hostgw_lan";
/// ICMPv6 types (RFC 4861).
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// The table's whole name.
#[must_use]
pub fn table() -> TableName {
    TableName::new(Family::Netdev, TABLE)
}

/// What may be said over one link; the same again where it was said already.
pub fn guard(
    socket: &mut Socket,
    link: &LinkName,
    mac: Mac,
    addresses: &[IpAddr],
) -> Result<(), KernelError> {
    let (table, rules) = (table(), rules(mac, addresses));
    let mut transaction = Transaction::new();
    transaction.add_table(&table, None, Existing::Keep);
    transaction.add_chain(&table, &Chain::ingress(link.as_str(), link.clone(), Vec::new()));
    transaction.flush_chain(&table, link.as_str());
    for rule in &rules {
        transaction.append_rule(&table, link.as_str(), rule);
    }
    transaction.commit(socket).map_err(|error| error.attempting(format!("guard what comes in by {link}")))
}

/// Guards a record's pod; one that has no Ethernet address of ours is left alone.
pub fn guard_pod(socket: &mut Socket, record: &Record) -> Result<(), KernelError> {
    let Some(mac) = record.wiring.pod_mac else { return Ok(()) };
    let addresses: Vec<IpAddr> = record.addresses.iter().map(|held| held.address.addr()).collect();
    guard(socket, &record.wiring.host_link, mac.octets(), &addresses)
}

/// Forgets a link; whether it was guarded.
pub fn unguard(socket: &mut Socket, link: &str) -> Result<bool, KernelError> {
    let mut transaction = Transaction::new();
    transaction.flush_chain(&table(), link).delete_chain(&table(), link);
    match transaction.commit(socket) {
        Ok(()) => Ok(true),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error.attempting(format!("forget the guard of {link}"))),
    }
}

/// The links that are guarded, also those that are gone.
pub fn guarded(socket: &mut Socket) -> Result<BTreeSet<String>, KernelError> {
    let all = chains(socket, Some(Family::Netdev))?;
    Ok(all.into_iter().filter(|chain| chain.table == table()).map(|chain| chain.name).collect())
}

fn rules(mac: Mac, addresses: &[IpAddr]) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut rule = |matches: Vec<Statement>, end: Statement| {
        rules.push(Rule::new([matches, vec![end]].concat()));
    };
    // Of link-local addresses its own alone, too: the LAN's router is known by one.
    let own: Vec<IpAddr> = addresses.iter().copied().chain([IpAddr::V6(link_local_of(mac))]).collect();
    let of_mac = Value::Bytes(mac.to_vec());
    rule(vec![Statement::is_not(Selector::EtherSaddr, of_mac.clone())], Statement::drop());
    rule(vec![Statement::is_not(Selector::ArpSenderMac, of_mac)], Statement::drop());
    rule(router_or_neighbour(ROUTER_ADVERTISEMENT), Statement::drop());
    for address in own.iter().copied().filter(IpAddr::is_ipv6) {
        let told = Statement::is(Selector::AdvertisedIp, Value::Ip(address));
        rule([router_or_neighbour(NEIGHBOUR_ADVERTISEMENT), vec![told]].concat(), Statement::accept());
    }
    rule(router_or_neighbour(NEIGHBOUR_ADVERTISEMENT), Statement::drop());
    // Nobody's address: who asks whether one is free, or for one.
    let nobody = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    for address in own.into_iter().chain(nobody) {
        let selectors = match address {
            IpAddr::V4(_) => [Some(Selector::Saddr(Version::V4)), Some(Selector::ArpSenderIp)],
            IpAddr::V6(_) => [Some(Selector::Saddr(Version::V6)), None],
        };
        for selector in selectors.into_iter().flatten() {
            rule(vec![Statement::is(selector, Value::Ip(address))], Statement::accept());
        }
    }
    // Somebody else's, or nothing that a host of this LAN has to say: tagged frames, spanning trees.
    rule(Vec::new(), Statement::drop());
    rules
}

fn router_or_neighbour(kind: u8) -> Vec<Statement> {
    vec![Statement::is(Selector::Icmpv6Type, Value::Icmpv6Type(kind))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_says_its_own_addresses_and_nobodys() {
        let addresses = ["10.10.1.5", "2001:db8::5"].map(|ip| ip.parse().unwrap());
        let rules = rules([0x0a, 0x58, 10, 10, 1, 5], &addresses);
        let text: Vec<String> = rules.iter().map(|rule| rule.text(Family::Netdev)).collect();
        insta::assert_snapshot!(text.join("\n"), @r"
        ether saddr != 0x0a580a0a0105 drop
        arp saddr ether != 0x0a580a0a0105 drop
        icmpv6 type nd-router-advert drop
        icmpv6 type nd-neighbor-advert icmpv6 taddr 2001:db8::5 accept
        icmpv6 type nd-neighbor-advert icmpv6 taddr fe80::858:aff:fe0a:105 accept
        icmpv6 type nd-neighbor-advert drop
        ip saddr 10.10.1.5 accept
        arp saddr ip 10.10.1.5 accept
        ip6 saddr 2001:db8::5 accept
        ip6 saddr fe80::858:aff:fe0a:105 accept
        ip saddr 0.0.0.0 accept
        arp saddr ip 0.0.0.0 accept
        ip6 saddr :: accept
        drop
        ");
    }
}
