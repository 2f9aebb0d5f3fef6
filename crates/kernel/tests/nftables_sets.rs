//! nftables: sets that are large, reach to the ends of the address space, or were written by nft.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use ipnet::IpNet;
use kernel::events::{Events, Group, Heard};
use kernel::netlink::Protocol;
use kernel::nftables::{self, DataType, Element, Existing, Family, MapData, Set, Table, TableName, Value};
use kernel::route::Family::{V4, V6};
use support::ruleset::{commit, declare, net, observe};
use support::{enter_fresh_netns, netfilter_socket};

#[test]
fn twenty_thousand_elements_are_declared_at_once_and_read_back() {
    enter_fresh_netns();
    let elements: Vec<Element> = (0..20_000u32)
        .map(|number| {
            let ip = std::net::Ipv4Addr::from(0x0af4_0000 + number);
            Element::mapping([Value::Ip(ip.into())], [Value::Mark(number)]).comment("a pod")
        })
        .collect();
    let mut table = Table::new(Family::Ip, "large");
    table
        .sets
        .push(Set::map("pods", [DataType::Ipv4Addr], MapData::Values(vec![DataType::Mark])).with(elements));
    let nets: Vec<IpNet> = (0..10_000u32)
        .map(|number| IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 + number * 512).into(), 24).unwrap())
        .collect();
    table.sets.push(Set::prefixes("nets", V4, &nets));
    declare(&table);
    assert_eq!(observe(&table).differences(&table), []);
}

#[test]
fn prefixes_at_both_ends_of_the_address_space_are_read_back_as_they_were() {
    enter_fresh_netns();
    for (version, nets) in [
        (V4, vec!["0.0.0.0/8", "10.0.0.0/24", "10.0.1.0/25", "192.0.2.7/32", "255.255.255.255/32"]),
        (V4, vec!["0.0.0.0/0"]),
        (V6, vec!["::/0"]),
        (V6, vec!["::1/128", "fd00::/64", "fd00:0:0:1::/65", "ff00::/8"]),
    ] {
        let nets: Vec<IpNet> = nets.into_iter().map(net).collect();
        let mut table = Table::new(Family::Inet, "ends");
        table.sets.push(Set::prefixes("nets", version, &nets));
        declare(&table);
        assert_eq!(observe(&table).differences(&table), [], "{nets:?}");
        let set = &table.sets[0];
        commit(|transaction| {
            transaction.delete_elements(&table.name, set, &set.elements);
        })
        .unwrap();
        assert_eq!(nftables::elements(&mut netfilter_socket(), &table.name, set).unwrap(), []);
    }
}

#[test]
fn what_is_told_of_a_transaction_is_what_it_changed() {
    enter_fresh_netns();
    let nets = |nets: &[&str]| nets.iter().copied().map(net).collect::<Vec<IpNet>>();
    for (version, before, gone, new) in [
        (
            V4,
            &["10.0.0.0/24", "192.0.2.0/24"][..],
            &["10.0.0.0/24"][..],
            &["10.0.0.0/25", "10.0.0.128/26", "10.0.1.7/32"][..],
        ),
        (V6, &["2001:db8::/64", "2001:db8:0:2::/64"], &["2001:db8::/64"], &["2001:db8:0:1::/64"]),
    ] {
        let mut table = Table::new(Family::Inet, if version == V4 { "four" } else { "six" });
        table.sets.push(Set::prefixes("nets", version, &nets(before)));
        declare(&table);
        let mut events = Events::subscribe(Protocol::Netfilter, &[Group::Nftables], None).unwrap();
        let [gone, new] = [gone, new].map(nets);
        commit(|transaction| {
            let set = Set::prefixes("nets", version, &[]);
            let elements = |nets: &[IpNet]| -> Vec<Element> {
                nets.iter().map(|net| Element::of([Value::Net(*net)]).canonical()).collect()
            };
            transaction.delete_elements(&table.name, &set, &elements(&gone));
            transaction.add_elements(&table.name, &set, &elements(&new), Existing::Refuse);
        })
        .unwrap();
        let (mut told, mut last) = (Vec::new(), None);
        while events
            .read(|kind, payload| {
                last = Some(nftables::told(kind, payload));
                told.extend(nftables::told_boundaries(kind, payload).into_iter().flatten());
            })
            .unwrap()
            != Heard::Nothing
        {}
        assert_eq!(last, Some(nftables::Told::Generation), "told once all is told");
        for (removed, expected) in [(true, gone), (false, new)] {
            assert!(told.iter().all(|told| told.set == "nets"));
            let of_kind = told.iter().filter(|told| told.gone == removed);
            assert_eq!(nftables::told_prefixes(of_kind), Some(expected));
        }
    }
}

#[test]
fn prefixes_that_nft_wrote_are_read() {
    enter_fresh_netns();
    let script = "table inet theirs { set s { type ipv4_addr; flags interval; \
        elements = { 10.0.0.0/8, 192.0.2.1-192.0.2.3, 224.0.0.0/3 }; }; \
        set p { type inet_service; flags interval; elements = { 80, 1000-2000 }; }; }";
    support::run_with_input("nft", &["-f", "-"], script);
    let name = TableName::new(Family::Inet, "theirs");
    let observed = nftables::observe(&mut netfilter_socket(), &name).unwrap().unwrap();
    let keys = |index: usize| -> Vec<String> {
        observed.sets[index].set.elements.iter().map(ToString::to_string).collect()
    };
    assert_eq!(keys(0), ["10.0.0.0/8", "192.0.2.1", "192.0.2.2/31", "224.0.0.0/3"]);
    assert_eq!(keys(1), ["80", "1000-2000"]);
}
