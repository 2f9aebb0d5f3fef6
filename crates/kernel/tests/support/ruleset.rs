//! Tables for tests, and the way into the kernel and out again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(dead_code, unreachable_pub, reason = "each test file is a crate that uses its own part")]

use ipnet::IpNet;
use kernel::nftables::{
    self, BaseChain, Chain, ChainKind, DataType, Element, Family, Hook, MapData, Policy, Rule, Selector, Set,
    Statement, Table, Transaction, Transport, Value, priority,
};
use kernel::route::Family::V4;
use link_name::LinkName;

use super::netfilter_socket;

pub fn link(name: &str) -> LinkName {
    LinkName::new(name).unwrap()
}

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub fn base(kind: ChainKind, hook: Hook, priority: i32, policy: Policy) -> BaseChain {
    BaseChain { kind, hook, priority, policy }
}

pub fn host_port(proto: u8, port: u16, to: &str, to_port: u16) -> Element {
    Element::mapping(
        [Value::Proto(proto), Value::Port(port)],
        [Value::Ip(to.parse().unwrap()), Value::Port(to_port)],
    )
}

pub fn host_ports() -> Set {
    Set::map(
        "hostports",
        [DataType::InetProto, DataType::InetService],
        MapData::Values(vec![DataType::Ipv4Addr, DataType::InetService]),
    )
}

pub fn declare(table: &Table) {
    commit(|transaction| {
        transaction.declare(table);
    })
    .unwrap();
}

pub fn observe(table: &Table) -> nftables::ObservedTable {
    nftables::observe(&mut netfilter_socket(), &table.name).unwrap().unwrap()
}

pub fn commit(write: impl FnOnce(&mut Transaction)) -> Result<(), kernel::KernelError> {
    let mut transaction = Transaction::new();
    write(&mut transaction);
    transaction.commit(&mut netfilter_socket())
}

/// A table with one map of host ports, one chain and one rule, as a plugin makes it.
pub fn small() -> Table {
    let rule = Rule::new([Statement::dnat_to_map(
        V4,
        [Selector::L4Proto, Selector::Dport(Transport::Any)],
        "hostports",
    )])
    .comment("host ports");
    Table {
        sets: vec![host_ports()],
        chains: vec![Chain::base(
            "pre",
            base(ChainKind::Nat, Hook::Prerouting, priority::DSTNAT, Policy::Accept),
            vec![rule],
        )],
        ..Table::new(Family::Inet, "small")
    }
}
