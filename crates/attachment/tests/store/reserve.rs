//! What a reservation gives and refuses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

use attachment::{ReleaseError, ReserveError, State, Store, networks};

use crate::fixture::{Ask, Node, addresses, attachment, host_port, large_sets, port_8080, range, small_sets};
use crate::{claim, write};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_pod_gets_one_address_of_each_set_and_its_record_says_so() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask { host_ports: vec![port_8080()], ..Ask::of(small_sets()) };
    let reservation = ask.reserve(&store, "a").unwrap();
    assert_eq!(addresses(reservation.record()), [ip("10.0.0.2"), ip("fd00::2")]);
    assert_eq!(reservation.record().addresses[0].address.to_string(), "10.0.0.2/24");
    let claims = ["10.0.0.2", "fd00::2", "tcp:0.0.0.0:8080", "tcp:[::]:8080"].map(str::to_owned);
    assert_eq!(node.names("claims"), BTreeSet::from(claims));
    let entry = store.lookup(&attachment("a")).unwrap().unwrap();
    assert_eq!((entry.state, &entry.record), (State::Adding, reservation.record()));
    reservation.mark_attached().unwrap();
    assert_eq!(store.lookup(&attachment("a")).unwrap().unwrap().state, State::Attached);
    assert_eq!(store.owner_of_claim(&claim("tcp:[::]:8080")).unwrap(), Some(attachment("a")));
    node.assert_consistent();
}

#[test]
fn a_released_address_rests_until_every_other_was_used() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask::of(small_sets());
    let mut seen = Vec::new();
    for pod in 0..6 {
        seen.push(ask.attach(&store, &format!("p{pod}")).unwrap()[0]);
        store.release(&attachment(&format!("p{pod}"))).unwrap();
    }
    assert_eq!(seen, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.2", "10.0.0.3"].map(ip));
}

#[test]
fn a_set_of_several_ranges_is_used_up_range_by_range_and_then_from_its_start() {
    let node = Node::new();
    let store = node.store();
    let ranges = vec![
        range("10.0.0.1-10.0.0.3", "10.0.0.0/24", "10.0.0.1"),
        range("10.0.9.1-10.0.9.2", "10.0.9.0/24", "10.0.9.1"),
    ];
    let ask = Ask::of(vec![ranges]);
    assert_eq!(ask.attach(&store, "a").unwrap(), [ip("10.0.0.2")]);
    store.release(&attachment("a")).unwrap();
    assert_eq!(ask.fill(&store), ["10.0.0.3", "10.0.9.2", "10.0.0.2"].map(ip));
}

#[test]
fn exhaustion_names_the_set_and_gives_back_what_the_other_set_gave() {
    let node = Node::new();
    let store = node.store();
    let mut ask = Ask::of(small_sets());
    assert_eq!(ask.fill(&store).len(), 8);
    ask.sets[0] = vec![range("10.7.0.1-10.7.0.9", "10.7.0.0/24", "10.7.0.1")];
    let error = ask.attach(&store, "late").unwrap_err();
    assert!(matches!(&error, ReserveError::Exhausted { set: 1, usable: 4, .. }), "{error}");
    assert!(error.to_string().contains("fd00::1-fd00::5"), "{error}");
    node.assert_consistent();
}

#[test]
fn the_network_address_may_be_a_gateway_or_a_pod() {
    let node = Node::new();
    let ask = Ask::of(vec![vec![range("10.10.0.255-10.10.1.1", "10.10.0.0/16", "10.10.1.0")]]);
    assert_eq!(ask.fill(&node.store()), ["10.10.0.255", "10.10.1.1"].map(ip));
}

#[test]
fn a_requested_address_is_given_once() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask { requested: vec![ip("fd00::4")], ..Ask::of(small_sets()) };
    assert_eq!(ask.attach(&store, "a").unwrap(), [ip("10.0.0.2"), ip("fd00::4")]);
    let error = ask.attach(&store, "b").unwrap_err();
    assert!(
        matches!(&error, ReserveError::AddressTaken { owner: Some(owner), .. } if *owner == attachment("a"))
    );
    assert!(error.to_string().contains("a:eth0"), "{error}");
    node.assert_consistent();
    assert_eq!(Ask::of(small_sets()).fill(&store).len(), 6, "the address was passed over");
}

#[test]
fn a_requested_address_beyond_what_is_searched_is_given() {
    let node = Node::new();
    let sets = vec![vec![range("fd00::1-fd00::ffff:ffff:ffff", "fd00::/64", "fd00::1")]];
    let ask = Ask { requested: vec![ip("fd00::ffff:0:1")], ..Ask::of(sets) };
    assert_eq!(ask.attach(&node.store(), "a").unwrap(), [ip("fd00::ffff:0:1")]);
    node.store().release(&attachment("a")).unwrap();
    node.assert_consistent();
}

#[test]
fn a_host_port_is_refused_while_its_pod_has_it_and_free_afterwards() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask { host_ports: vec![port_8080()], ..Ask::of(small_sets()) };
    ask.attach(&store, "old").unwrap();
    let error = ask.attach(&store, "new").unwrap_err();
    assert!(error.to_string().contains("host port tcp:8080 is taken by old:eth0"), "{error}");
    node.assert_consistent();
    store.release(&attachment("old")).unwrap();
    ask.attach(&store, "new").unwrap();
    assert!(store.lookup(&attachment("old")).unwrap().is_none());
    node.assert_consistent();
}

#[test]
fn a_host_port_of_an_add_that_runs_is_not_taken_over() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask { host_ports: vec![port_8080()], ..Ask::of(small_sets()) };
    let _running = ask.reserve(&store, "old").unwrap();
    assert!(matches!(ask.reserve(&store, "new"), Err(ReserveError::HostPortTaken { .. })));
}

#[test]
fn host_ports_clash_by_protocol_address_and_port_only() {
    let node = Node::new();
    let store = node.store();
    let sets = large_sets();
    let with = |text: &str| Ask { host_ports: vec![host_port(text)], ..Ask::of(sets.clone()) };
    let udp_on_one = r#"{"protocol":"udp","hostIP":"192.0.2.1","hostPort":53,"containerPort":53}"#;
    with(udp_on_one).attach(&store, "a").unwrap();
    with(r#"{"protocol":"tcp","hostIP":"192.0.2.1","hostPort":53,"containerPort":53}"#)
        .attach(&store, "b")
        .unwrap();
    with(r#"{"protocol":"udp","hostIP":"2001:db8::1","hostPort":53,"containerPort":53}"#)
        .attach(&store, "c")
        .unwrap();
    with(udp_on_one).attach(&store, "d").unwrap_err();
    with(r#"{"protocol":"tcp","hostIP":"0.0.0.0","hostPort":80,"containerPort":80}"#)
        .attach(&store, "e")
        .unwrap();
    with(r#"{"protocol":"tcp","hostIP":"::","hostPort":80,"containerPort":80}"#).attach(&store, "f").unwrap();
    with(r#"{"protocol":"tcp","hostPort":80,"containerPort":80}"#).attach(&store, "g").unwrap_err();
    node.assert_consistent();
}

#[test]
fn the_same_host_port_twice_in_one_request_is_refused() {
    let node = Node::new();
    let ask = Ask { host_ports: vec![port_8080(), port_8080()], ..Ask::of(small_sets()) };
    assert!(matches!(ask.attach(&node.store(), "a"), Err(ReserveError::HostPortTwice { .. })));
}

#[test]
fn a_second_add_is_refused_while_the_first_runs_and_while_its_pod_lives() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask { host_ports: vec![port_8080()], ..Ask::of(small_sets()) };
    let first = ask.reserve(&store, "a").unwrap();
    let error = ask.reserve(&store, "a").map(drop).unwrap_err();
    assert!(matches!(error, ReserveError::AttachmentExists { in_progress: true, .. }), "{error}");
    first.mark_attached().unwrap();
    let error = ask.reserve(&store, "a").map(drop).unwrap_err();
    assert!(matches!(
        error,
        ReserveError::AttachmentExists { state: Some(State::Attached), in_progress: false, .. }
    ));
    store.release(&attachment("a")).unwrap();
    ask.attach(&store, "a").unwrap();
    node.assert_consistent();
}

#[test]
fn del_waits_its_turn_while_add_runs_and_works_when_add_has_died() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask::of(small_sets());
    let running = ask.reserve(&store, "a").unwrap();
    assert!(matches!(store.release(&attachment("a")), Err(ReleaseError::InProgress { .. })));
    drop(running);
    store.release(&attachment("a")).unwrap();
    store.release(&attachment("a")).unwrap();
    assert!(node.names("claims").is_empty() && node.names("records").is_empty());
}

#[test]
fn what_del_has_in_hand_is_neither_taken_over_nor_reclaimed() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask { host_ports: vec![port_8080()], ..Ask::of(small_sets()) };
    ask.attach(&store, "a").unwrap();
    let detachment = store.detach(&attachment("a")).unwrap().unwrap();
    assert!(matches!(ask.reserve(&store, "b"), Err(ReserveError::HostPortTaken { .. })));
    let report = store.reclaim(crate::fixture::NOW + 100, 0, |_, _| true).unwrap();
    assert_eq!((report.in_progress.as_slice(), report.done.len()), ([attachment("a")].as_slice(), 0));
    detachment.release().unwrap();
    ask.attach(&store, "b").unwrap();
    node.assert_consistent();
}

#[test]
fn an_add_that_fails_gives_everything_back() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask { host_ports: vec![port_8080()], ..Ask::of(small_sets()) };
    ask.reserve(&store, "a").unwrap().release().unwrap();
    assert!(node.names("claims").is_empty() && node.names("records").is_empty());
    node.assert_consistent();
}

#[test]
fn an_add_whose_record_was_removed_learns_that_its_addresses_are_lost() {
    let node = Node::new();
    let store = node.store();
    let reservation = Ask::of(small_sets()).reserve(&store, "a").unwrap();
    for folder in ["claims", "records"] {
        for name in node.names(folder) {
            std::fs::remove_file(node.path(&format!("{folder}/{name}"))).unwrap();
        }
    }
    let error = reservation.mark_attached().unwrap_err();
    assert!(error.to_string().contains("records/a:eth0"), "{error}");
}

#[test]
fn networks_do_not_share_addresses_and_are_listed() {
    let node = Node::new();
    let other = "other".parse().unwrap();
    let second = Store::open(&node.data_dir(), &other).unwrap();
    let ask = Ask::of(small_sets());
    assert_eq!(ask.attach(&node.store(), "a").unwrap(), ask.attach(&second, "a").unwrap());
    write(&node.data_dir().join("file"), b"");
    std::fs::create_dir(node.data_dir().join("folder")).unwrap();
    assert_eq!(networks(&node.data_dir()).unwrap(), [node.network.clone(), other]);
    assert_eq!(networks(&node.data_dir().join("absent")).unwrap(), []);
    assert!(Store::find(&node.data_dir(), &"absent".parse().unwrap()).unwrap().is_none());
}

#[test]
fn folders_and_files_are_for_their_owner_alone() {
    let node = Node::new();
    Ask::of(small_sets()).attach(&node.store(), "a").unwrap();
    for (name, mode) in
        [("", 0o700), ("records", 0o700), ("claims", 0o700), ("lock", 0o600), ("records/a:eth0", 0o600)]
    {
        let found = std::fs::metadata(node.path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
}

#[test]
fn two_sets_over_one_range_never_give_a_pod_one_address_twice() {
    let node = Node::new();
    let set = || vec![range("10.0.0.1-10.0.0.5", "10.0.0.0/24", "10.0.0.1")];
    let got = Ask::of(vec![set(), set()]).fill(&node.store());
    assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), 4);
    node.assert_consistent();
}
