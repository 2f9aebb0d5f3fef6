use super::*;
use node_network::cluster::{NodeObject, read_object};

fn object(json: &str) -> ReadNode {
    let object: NodeObject = serde_json::from_str(json).unwrap();
    read_object(object)
}

fn node(name: &str) -> ReadNode {
    object(&format!(
        r#"{{"kind":"Node","metadata":{{"name":"{name}"}},"spec":{{"podCIDRs":["10.244.1.0/24"]}}}}"#
    ))
}

fn all(names: &[&str], version: &str) -> Heard {
    Heard::All { nodes: names.iter().map(|name| node(name)).collect(), version: version.to_owned() }
}

fn store() -> NodeStore {
    NodeStore::new(NodeName::new("node1").ok(), None)
}

fn whole(store: &mut NodeStore, now: Instant) -> bool {
    store.reading(now).whole
}

#[test]
fn before_the_first_list_there_is_no_snapshot() {
    let (mut store, now) = (store(), Instant::now());
    assert!(store.reading(now).snapshot.is_none());
    assert!(store.take(Heard::Silence("down".to_owned()), now));
    assert_eq!(store.reading(now).problem.as_deref(), Some("down"));
    assert!(store.take(all(&[], "1"), now));
    assert!(store.reading(now).snapshot.is_some());
}

#[test]
fn the_same_again_is_no_news() {
    let (mut store, now) = (store(), Instant::now());
    assert!(store.take(all(&["node1", "node2"], "5"), now));
    assert!(!store.take(all(&["node1", "node2"], "6"), now));
    assert!(!store.take(Heard::Node(Box::new(node("node2"))), now));
    assert!(!store.take(Heard::Gone("node9".to_owned()), now));
    assert!(!store.take(Heard::UpTo("7".to_owned()), now));
    assert!(store.take(Heard::Node(Box::new(node("node3"))), now));
    assert!(store.take(Heard::Gone("node3".to_owned()), now));
    assert!(whole(&mut store, now));
}

#[test]
fn an_older_version_holds_deletions_for_a_while() {
    let (mut store, now) = (store(), Instant::now());
    store.take(all(&["node1", "node2"], "1000"), now);
    store.take(Heard::UpTo("2000".to_owned()), now);
    store.take(all(&["node1"], "1500"), now);
    assert!(!whole(&mut store, now) && store.trusted().is_none());
    assert!(store.reading(now).problem.unwrap().contains("from version 2000 to 1500"));
    let until = store.holds_until().unwrap();
    assert!(whole(&mut store, until));
    assert_eq!(store.reading(until).problem, None);
}

#[test]
fn a_node_that_joins_for_the_first_time_holds_nothing() {
    let (mut store, now) = (store(), Instant::now());
    store.take(all(&["node2"], "5"), now);
    store.take(Heard::Node(Box::new(node("node1"))), now);
    assert!(whole(&mut store, now));
}

#[test]
fn this_node_lost_and_back_holds_deletions_whichever_way_it_is_heard() {
    for back in [all(&["node1"], "9"), Heard::Node(Box::new(node("node1")))] {
        let (mut store, now) = (store(), Instant::now());
        store.take(all(&["node1", "node2"], "5"), now);
        store.take(Heard::Gone("node1".to_owned()), now);
        store.take(Heard::Gone("node2".to_owned()), now);
        assert!(whole(&mut store, now), "a list without this node deletes nothing by itself");
        store.take(back, now);
        assert!(!whole(&mut store, now));
    }
}

#[test]
fn five_thousand_deletes_at_once_are_followed() {
    let (mut store, now) = (store(), Instant::now());
    let names: Vec<String> = (1..=5_001).map(|n| format!("node{n}")).collect();
    store.take(all(&names.iter().map(String::as_str).collect::<Vec<_>>(), "5"), now);
    for name in &names[1..] {
        assert!(store.take(Heard::Gone(name.clone()), now));
    }
    let reading = store.reading(now);
    assert_eq!((reading.snapshot.unwrap().nodes.len(), reading.whole), (1, true));
}

#[test]
fn faults_of_objects_come_and_go_with_them() {
    let (mut store, now) = (store(), Instant::now());
    let bad = || object(r#"{"metadata":{"name":"node2"},"spec":{"podCIDRs":["10.244.2.0/33"]}}"#);
    let nameless = || object(r#"{"metadata":{"name":"../etc"}}"#);
    store.take(Heard::All { nodes: vec![node("node1"), bad(), nameless()], version: "5".to_owned() }, now);
    let counts = |store: &mut NodeStore| {
        let snapshot = store.reading(now).snapshot.unwrap().clone();
        (snapshot.nodes.len(), snapshot.problems.len(), snapshot.left_out)
    };
    assert_eq!(counts(&mut store), (2, 2, 1));
    assert!(store.take(Heard::Node(Box::new(node("node2"))), now));
    assert_eq!(counts(&mut store), (2, 1, 1));
    assert!(store.take(Heard::Gone("../etc".to_owned()), now));
    assert_eq!(counts(&mut store), (2, 0, 0));
}

#[test]
fn what_an_earlier_run_knew_counts_until_the_first_list() {
    let mut snapshot = store().snapshot;
    snapshot.freshness = Freshness::Cached { age_seconds: 60 };
    snapshot.nodes.extend(node("node2").node.map(|node| (node.name.clone(), node)));
    let cached = Cached { snapshot, version: Some(900) };
    let mut store = NodeStore::new(NodeName::new("node1").ok(), Some(cached));
    let now = Instant::now();
    assert_eq!(store.reading(now).snapshot.unwrap().nodes.len(), 1);
    assert!(store.trusted().is_none());
    store.take(all(&["node1"], "800"), now);
    assert!(!whole(&mut store, now), "the API server went back while no agent ran");
}
