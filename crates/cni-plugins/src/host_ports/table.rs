//! The table `inet hostgw_hostport` as a value, without host ports (pure).
//!
//! Rules never change; a host port is a few elements of maps (`elements.rs`). So adding or removing one is one small
//! transaction, however many there are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use kernel::nftables::{
    BaseChain, Chain, ChainKind, DataType, Element, Family, Hook, MapData, NatFlags, NatKind, NatTarget,
    Policy, Rule, Selector, Set, Statement, Table, TableName, Transport, Value, Verdict, priority,
};
use kernel::route;

use crate::wiring::HOST;

/// The table's name; its family is `inet`.
pub const TABLE: &str = "hostgw_hostport";

/// Behind kube-proxy (priority -100): what a Service claims, a NodePort or the address of a load balancer, stays the
/// Service's; the first translation of a flow is the only one.
const DESTINATION_PRIORITY: i32 = -95;
/// Before kube-proxy and the agent (100): theirs would masquerade what must have the node's own address.
const SOURCE_PRIORITY: i32 = 95;

/// How many rules each chain has, and how many others jump to it, together: by this the kernel tells, in one question,
/// whether somebody flushed them. (Written down, because an ADD builds no rules.)
pub(super) const CHAIN_USES: [(&str, u32); 5] =
    [("hostports", 10), ("prerouting", 1), ("output", 1), ("postrouting", 4), ("guard", 1)];

/// The table's full name.
pub(super) fn table_name() -> TableName {
    TableName::new(Family::Inet, TABLE)
}

/// Names of the sets and maps of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    pub(super) version: route::Family,
    /// Ports on all of the node's addresses.
    pub any: &'static str,
    /// Ports on one address.
    pub exact: &'static str,
    /// How a pod reaches its own host port.
    pub hairpin: &'static str,
    /// How its neighbours on a bridge reach it.
    pub bridged: &'static str,
    /// Addresses that are the node's, and yet no place for host ports: those of dummy links, as kube-proxy's ipvs mode
    /// and node-local DNS hold them.
    pub excluded: &'static str,
}

/// IPv4.
pub const V4: Names = Names {
    version: route::Family::V4,
    any: "any4",
    exact: "exact4",
    hairpin: "hairpin4",
    bridged: "bridged4",
    excluded: "excluded4",
};

/// IPv6.
pub const V6: Names = Names {
    version: route::Family::V6,
    any: "any6",
    exact: "exact6",
    hairpin: "hairpin6",
    bridged: "bridged6",
    excluded: "excluded6",
};

impl Names {
    /// Those of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { V4 } else { V6 }
    }

    fn sets(self) -> [Set; 5] {
        let address = DataType::address(self.version);
        let target = || MapData::Values(vec![address, DataType::InetService]);
        let port = [DataType::InetProto, DataType::InetService];
        let from = |from| [from, DataType::InetProto, DataType::InetService, address, DataType::InetService];
        [
            Set::map(self.any, port, target()),
            Set::map(self.exact, [address, DataType::InetProto, DataType::InetService], target()),
            Set::map(self.hairpin, from(address), MapData::Values(vec![address])),
            Set::map(self.bridged, from(DataType::IfName), MapData::Values(vec![address])),
            Set::new(self.excluded, [address]),
        ]
    }

    fn destination_rules(self) -> [Rule; 4] {
        let version = Statement::is(Selector::NfProto, Value::Version(self.version));
        let port = [Selector::L4Proto, Selector::Dport(Transport::Any)];
        let exact = [Selector::Daddr(self.version), Selector::L4Proto, Selector::Dport(Transport::Any)];
        let dnat = |selectors: &[Selector], map| {
            Rule::new([version.clone(), Statement::dnat_to_map(self.version, selectors, map)])
        };
        [
            Rule::new([
                Statement::is_in([Selector::Daddr(self.version)], self.excluded),
                Statement::Verdict(Verdict::Return),
            ]),
            dnat(&exact, self.exact),
            // All of the node's addresses but these: 127/8 leads to a pod only where its link was told to route it,
            // and [::1] cannot be translated at all.
            Rule::new([
                Statement::is(Selector::Daddr(self.version), loopback(self.version)),
                Statement::Verdict(Verdict::Return),
            ]),
            dnat(&port, self.any),
        ]
    }

    fn source_rules(self) -> [Rule; 2] {
        let rule = |from, map: &str| {
            let selectors = vec![
                from,
                Selector::L4Proto,
                Selector::CtOriginalDport,
                Selector::Daddr(self.version),
                Selector::Dport(Transport::Any),
            ];
            let target =
                NatTarget::Map { version: self.version, selectors, map: map.to_owned(), port: false };
            Rule::new([
                Statement::is(Selector::NfProto, Value::Version(self.version)),
                Statement::Nat { kind: NatKind::Source, target, flags: NatFlags::default() },
            ])
        };
        [rule(Selector::Saddr(self.version), self.hairpin), rule(Selector::IifName, self.bridged)]
    }
}

/// The sets and maps of the table, without elements.
pub(super) fn empty_sets() -> Vec<Set> {
    V4.sets().into_iter().chain(V6.sets()).collect()
}

/// Their names.
pub(super) fn set_names() -> impl Iterator<Item = &'static str> {
    [V4, V6]
        .into_iter()
        .flat_map(|names| [names.any, names.exact, names.hairpin, names.bridged, names.excluded])
}

/// The table without host ports.
#[must_use]
pub fn empty_table() -> Table {
    frame(TABLE, no_loopback_from(Statement::iifname_starts_with(HOST.into())))
}

/// A table of host ports without any, of this name; `guard` is the rule that keeps pods from the node's loopback.
pub(crate) fn frame(name: &str, guard_rule: Rule) -> Table {
    let nat = |hook, priority| BaseChain { kind: ChainKind::Nat, hook, priority, policy: Policy::Accept };
    let guard = BaseChain {
        kind: ChainKind::Filter,
        hook: Hook::Prerouting,
        priority: priority::RAW,
        policy: Policy::Accept,
    };
    let local = || Rule::new([Statement::fib_daddr_is_local(), Statement::jump("hostports")]);
    let hostports: Vec<Rule> = V4.destination_rules().into_iter().chain(V6.destination_rules()).collect();
    let mut table = Table::new(Family::Inet, name);
    table.sets = empty_sets();
    table.chains = vec![
        Chain::regular("hostports", hostports),
        Chain::base("prerouting", nat(Hook::Prerouting, DESTINATION_PRIORITY), vec![local()]),
        Chain::base("output", nat(Hook::Output, DESTINATION_PRIORITY), vec![local()]),
        Chain::base(
            "postrouting",
            nat(Hook::Postrouting, SOURCE_PRIORITY),
            V4.source_rules().into_iter().chain(V6.source_rules()).collect(),
        ),
        Chain::base("guard", guard, vec![guard_rule]),
    ];
    table
}

/// Fills the sets of addresses that are the node's and yet no place for host ports.
pub(super) fn exclude(table: &mut Table, addresses: &[IpAddr]) {
    for names in [V4, V6] {
        let Some(set) = table.sets.iter_mut().find(|set| set.name == names.excluded) else { continue };
        let of_family = addresses.iter().filter(|address| Names::of(**address) == names);
        set.elements = of_family.map(|address| Element::of([Value::Ip(*address)])).collect();
        set.elements.sort();
        set.elements.dedup();
    }
}

fn loopback(version: route::Family) -> Value {
    match version {
        route::Family::V4 => Value::Net(IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8)),
        route::Family::V6 => Value::Ip(Ipv6Addr::LOCALHOST.into()),
    }
}

/// A link with `route_localnet`, which host ports on localhost need, and which kube-proxy may turn on for all links, would
/// let its pod reach what listens on the node's loopback alone (CVE-2020-8558).
pub(crate) fn no_loopback_from(links: Statement) -> Rule {
    Rule::new([
        links,
        Statement::is(Selector::Daddr(route::Family::V4), loopback(route::Family::V4)),
        Statement::drop(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uses_that_are_looked_for_are_those_of_the_table() {
        let table = empty_table();
        let jumps = |name: &str| {
            let all = table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.statements);
            all.filter(|statement| **statement == Statement::jump(name)).count()
        };
        let uses: Vec<(&str, usize)> = table
            .chains
            .iter()
            .map(|chain| (chain.name.as_str(), chain.rules.len() + jumps(&chain.name)))
            .collect();
        assert_eq!(uses, CHAIN_USES.map(|(chain, uses)| (chain, uses as usize)));
    }
}
