//! nftables: what others do is heard, and what they have is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use kernel::events::{Events, Group, Heard};
use kernel::netlink::Protocol;
use kernel::nftables::{self, Hook, Policy};
use support::ruleset::{declare, small};
use support::{enter_fresh_netns, netfilter_socket, run};

#[test]
fn a_flush_of_the_ruleset_is_heard() {
    enter_fresh_netns();
    declare(&small());
    let mut events = Events::subscribe(Protocol::Netfilter, &[Group::Nftables], None).unwrap();
    assert_eq!(events.read(|_, _| {}).unwrap(), Heard::Nothing);
    run("nft", &["flush", "ruleset"]);
    assert!(events.wait(support::PATIENCE).unwrap());
    let mut kinds = Vec::new();
    while events.read(|kind, _| kinds.push(kind & 0xff)).unwrap() != Heard::Nothing {}
    assert!(kinds.contains(&2), "NFT_MSG_DELTABLE is among {kinds:?}");
}

#[test]
fn the_base_chains_of_others_are_found_in_the_order_in_which_packets_meet_them() {
    enter_fresh_netns();
    run("iptables-nft", &["-P", "FORWARD", "DROP"]);
    let script = "table inet firewalld { chain filter_FORWARD { \
        type filter hook forward priority filter + 10; policy accept; }; }; table netdev early { }; \
        table arp theirs { chain in_ { type filter hook input priority 0; policy drop; }; }";
    support::run_with_input("nft", &["-f", "-"], script);
    let found = nftables::base_chains(&mut netfilter_socket(), Hook::Forward).unwrap();
    let described: Vec<_> = found
        .iter()
        .map(|(chain, base)| (chain.table.name.as_str(), chain.name.as_str(), base.priority, base.policy))
        .collect();
    assert_eq!(
        described,
        [("filter", "FORWARD", 0, Policy::Drop), ("firewalld", "filter_FORWARD", 10, Policy::Accept)]
    );
}
