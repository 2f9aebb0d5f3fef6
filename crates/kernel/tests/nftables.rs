//! nftables: what is declared is what is observed, and what nft itself prints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use kernel::nftables::{
    Chain, ChainKind, DataType, Difference, Element, Family, Fib, Hook, MapData, NatFlags, NatKind,
    NatTarget, Policy, Reject, Rule, Selector, Set, Statement, Table, Transport, Unit, Value, Verdict,
    ct_state, ct_status, priority,
};
use kernel::route::Family::{V4, V6};
use support::enter_fresh_netns;
use support::ruleset::{base, declare, host_port, host_ports, link, net, observe, small};
use support::run;

/// A table in which everything that this crate can say is said.
fn everything() -> Table {
    let proto_port = [Selector::L4Proto, Selector::Dport(Transport::Any)];
    let mut narrow = Set::map(
        "narrow",
        [DataType::Ipv4Addr, DataType::InetProto, DataType::InetService],
        MapData::Values(vec![DataType::Ipv4Addr, DataType::InetService]),
    )
    .with([Element::mapping(
        [Value::Net(net("10.0.0.0/8")), Value::Proto(6), Value::Ports(8080, 8090)],
        [Value::Ip("10.244.0.5".parse().unwrap()), Value::Port(80)],
    )]);
    narrow.interval = true;
    let host_ports_v6 = Set::map(
        "hostports6",
        [DataType::InetProto, DataType::InetService],
        MapData::Values(vec![DataType::Ipv6Addr, DataType::InetService]),
    )
    .with([host_port(17, 53, "fd00::5", 5353)]);
    let mut commented = Set::new("transports", [DataType::InetProto])
        .with([6, 17, 132].map(|proto| Element::of([Value::Proto(proto)])));
    commented.constant = true;
    commented.comment = Some("what has ports".into());
    let sets = vec![
        Set::prefixes("pods", V4, &[net("10.244.0.0/16"), net("10.0.0.0/16"), net("10.0.7.0/24")]),
        Set::prefixes("pods6", V6, &[net("fd00::/64"), net("ff00::/8"), net("::1/128")]),
        Set::new("links", [DataType::IfName])
            .with(["eth0", "hgw1"].map(|name| Element::of([link(name).into()]))),
        Set::new("marks", [DataType::Mark]).with([0x10, 0x2000].map(|mark| Element::of([Value::Mark(mark)]))),
        commented,
        Set::map("snats", [DataType::Mark], MapData::Values(vec![DataType::Ipv4Addr]))
            .with([Element::mapping([Value::Mark(0x10)], [Value::Ip("1.2.3.4".parse().unwrap())])]),
        host_ports().with([host_port(6, 8080, "10.244.0.5", 80).comment("default/web")]),
        host_ports_v6,
        narrow,
        Set::map("verdicts", [DataType::IfName], MapData::Verdict).with([
            Element::deciding([link("eth0").into()], Verdict::Jump("regular".into())),
            Element::deciding([link("eth1").into()], Verdict::Drop),
        ]),
    ];
    let random = NatFlags { fully_random: true, persistent: false };
    let prerouting = vec![
        Rule::new([
            Statement::is_in([Selector::L4Proto], "transports"),
            Statement::fib_daddr_is_local(),
            Statement::dnat_to_map(V4, proto_port, "hostports"),
        ])
        .comment("host ports"),
        Rule::new([
            Statement::is(Selector::NfProto, Value::Version(V6)),
            Statement::fib_daddr_is_local(),
            Statement::dnat_to_map(V6, proto_port, "hostports6"),
        ]),
        Rule::new([
            Statement::is_in([Selector::L4Proto], "transports"),
            Statement::dnat_to_map(
                V4,
                [Selector::Daddr(V4), Selector::L4Proto, Selector::Dport(Transport::Any)],
                "narrow",
            ),
        ]),
        Rule::new([Statement::iifname_starts_with(link("hgw")), Statement::Counter, Statement::accept()]),
        Rule::new([Statement::VerdictMap { selectors: vec![Selector::IifName], map: "verdicts".into() }]),
        Rule::new([
            Statement::is(Selector::Dport(Transport::Tcp), Value::Port(80)),
            Statement::Nat {
                kind: NatKind::Destination,
                target: NatTarget::AddressPort("10.0.0.1".parse().unwrap(), 8080),
                flags: NatFlags::default(),
            },
        ]),
        Rule::new([
            Statement::is(Selector::Dport(Transport::Udp), Value::Port(80)),
            Statement::Nat {
                kind: NatKind::Destination,
                target: NatTarget::AddressPort("fd00::1".parse().unwrap(), 8080),
                flags: NatFlags::default(),
            },
        ]),
    ];
    let postrouting = vec![
        Rule::new([
            Statement::is_in([Selector::Saddr(V4)], "pods"),
            Statement::is_not_in([Selector::Daddr(V4)], "pods"),
            Statement::Masquerade { flags: random },
        ])
        .comment("leaves the cluster"),
        Rule::new([
            Statement::is(Selector::Saddr(V4), net("10.0.0.0/8")),
            Statement::is_not(Selector::OifName, link("eth0")),
            Statement::snat_to("1.2.3.4".parse().unwrap()),
        ]),
        Rule::new([
            Statement::ct_status(ct_status::DNAT),
            Statement::is(Selector::Saddr(V6), Value::Ip("fd00::1".parse().unwrap())),
            Statement::Nat {
                kind: NatKind::Source,
                target: NatTarget::Address("fd00::2".parse().unwrap()),
                flags: NatFlags { fully_random: true, persistent: true },
            },
        ]),
        Rule::new([Statement::Nat {
            kind: NatKind::Source,
            target: NatTarget::Map {
                version: V4,
                selectors: vec![Selector::Mark],
                map: "snats".into(),
                port: false,
            },
            flags: NatFlags::default(),
        }]),
        Rule::new([
            Statement::Masked { selector: Selector::Mark, negated: false, mask: 0x4000, value: 0x4000 },
            Statement::SetMark { selector: Selector::Mark, value: 1 },
            Statement::SetMark { selector: Selector::CtMark, value: 2 },
        ]),
        Rule::new([
            Statement::is_in([Selector::Saddr(V4)], "pods"),
            Statement::is_in([Selector::Daddr(V4)], "pods"),
            Statement::is(Selector::CtDirection, Value::Reply(false)),
            Statement::is(Selector::L4Proto, Value::Proto(6)),
            Statement::is(Selector::CtOriginalDport, Value::Port(8080)),
            Statement::is(Selector::CtOriginalDaddr(V4), Value::Ip("1.2.3.4".parse().unwrap())),
            Statement::accept(),
        ]),
    ];
    let forward = vec![
        Rule::new([Statement::ct_state(ct_state::ESTABLISHED | ct_state::RELATED), Statement::accept()]),
        Rule::new([
            Statement::Bits { selector: Selector::CtState, negated: true, bits: ct_state::INVALID },
            Statement::jump("regular"),
        ]),
        Rule::new([Statement::fib_saddr_iif_missing(), Statement::drop()]),
        Rule::new([
            Statement::FibRoute { fib: Fib { mark: true, ..Fib::DADDR }, exists: true },
            Statement::is(Selector::FibOifName(Fib::DADDR), link("eth0")),
            Statement::accept(),
        ]),
        Rule::new([Statement::is(Selector::Icmpv6Type, Value::Icmpv6Type(134)), Statement::drop()])
            .comment("no router advertisements from pods"),
        Rule::new([Statement::is(Selector::Saddr(V6), net("fe80::/10")), Statement::accept()]),
        Rule::new([
            Statement::is(Selector::Dport(Transport::Tcp), Value::Port(80)),
            Statement::Reject(Reject::TcpReset),
        ]),
        Rule::new([
            Statement::is_not(Selector::Sport(Transport::Sctp), Value::Ports(30000, 32767)),
            Statement::accept(),
        ]),
        Rule::new([
            Statement::Limit { rate: 10, per: Unit::Minute, burst: 7 },
            Statement::Reject(Reject::PortUnreachable),
        ]),
        Rule::new([Statement::Reject(Reject::AdminProhibited)]),
        Rule::new([
            Statement::is_in([Selector::IifName], "links"),
            Statement::Verdict(Verdict::Goto("regular".into())),
        ]),
    ];
    let raw = vec![Rule::new([
        Statement::is(Selector::Dport(Transport::Udp), Value::Port(53)),
        Statement::Notrack,
    ])];
    Table {
        comment: Some("of the tests".into()),
        sets,
        chains: vec![
            Chain::regular("regular", vec![Rule::new([Statement::Verdict(Verdict::Return)])]),
            Chain::base(
                "pre",
                base(ChainKind::Nat, Hook::Prerouting, priority::DSTNAT - 5, Policy::Accept),
                prerouting,
            ),
            Chain::base(
                "after",
                base(ChainKind::Nat, Hook::Postrouting, priority::SRCNAT + 5, Policy::Accept),
                postrouting,
            ),
            Chain::base(
                "through",
                base(ChainKind::Filter, Hook::Forward, priority::FILTER, Policy::Drop),
                forward,
            ),
            Chain::base(
                "untracked",
                base(ChainKind::Filter, Hook::Prerouting, priority::RAW, Policy::Accept),
                raw,
            ),
        ],
        ..Table::new(Family::Inet, "everything")
    }
}

/// Without the places at which nft breaks lines.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The kernel holds this table; a rule that differs is shown.
fn assert_is(table: &Table) {
    let observed = observe(table);
    for (observed, wanted) in observed.chains.iter().zip(&table.chains) {
        for (observed, wanted) in observed.rules.iter().zip(&wanted.rules) {
            let names = observed.expression_names();
            assert!(observed.is(wanted, Family::Inet), "{} is not {names:?}", wanted.text(Family::Inet));
        }
    }
    assert_eq!(observed.differences(table), []);
}

#[test]
fn what_is_declared_is_what_is_observed() {
    enter_fresh_netns();
    let table = everything();
    declare(&table);
    assert_is(&table);
    declare(&table);
    assert_eq!(observe(&table).differences(&table), [], "declared twice");
}

#[test]
fn nft_prints_what_we_render() {
    enter_fresh_netns();
    let table = everything();
    declare(&table);
    assert_eq!(words(&run("nft", &["-s", "list", "table", "inet", "everything"])), words(&table.to_string()));
}

#[test]
fn nft_reads_its_own_listing_of_our_table_back_to_the_same_table() {
    enter_fresh_netns();
    let table = everything();
    declare(&table);
    let listed = run("nft", &["-s", "list", "ruleset"]);
    run("nft", &["flush", "ruleset"]);
    // nft refuses to read this one of its own lines: it sees no match on a protocol with ports in it.
    let (narrow, readable): (Vec<&str>, Vec<&str>) =
        listed.lines().partition(|line| line.contains("map @narrow"));
    assert_eq!(narrow.len(), 1);
    support::run_with_input("nft", &["-f", "-"], &readable.join("\n"));
    let mut without = table;
    without.chains[1].rules.retain(|rule| !rule.text(Family::Inet).contains("map @narrow"));
    assert_is(&without);
}

#[test]
fn every_kind_of_drift_is_named() {
    enter_fresh_netns();
    let table = small();
    declare(&table);
    let foreign = host_port(17, 9, "10.9.9.9", 9);
    run("nft", &["add", "chain", "inet", "small", "foreign"]);
    run("nft", &["add", "set", "inet", "small", "foreign", "{ type ipv4_addr; }"]);
    run("nft", &["add", "element", "inet", "small", "hostports", "{ udp . 9 : 10.9.9.9 . 9 }"]);
    run("nft", &["insert", "rule", "inet", "small", "pre", "accept"]);
    let ours = host_port(6, 8080, "10.244.0.5", 80);
    let mut wanted = table.clone();
    wanted.sets[0].elements.push(ours.clone());
    wanted.sets.push(Set::new("missing", [DataType::Mark]));
    wanted.chains.push(Chain::regular("missing", Vec::new()));
    assert_eq!(
        observe(&table).differences(&wanted),
        [
            Difference::Elements { set: "hostports".into(), missing: vec![ours], unexpected: vec![foreign] },
            Difference::Set("missing".into()),
            Difference::UnexpectedSet("foreign".into()),
            Difference::Rules("pre".into()),
            Difference::Chain("missing".into()),
            Difference::UnexpectedChain("foreign".into()),
        ]
    );
}
