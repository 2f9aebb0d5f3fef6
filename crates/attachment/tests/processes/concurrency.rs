//! Many processes at once, as when a node starts.

use std::collections::BTreeSet;

use crate::child::{finish, start, take_turn};
use crate::fixture::{Ask, Node, addresses, attachment, entries, large_sets};

#[test]
fn two_hundred_processes_at_once_get_two_hundred_addresses_and_give_them_back() {
    let _turn = take_turn();
    let node = Node::new();
    let pods: Vec<String> = (0..200).map(|pod| format!("p{pod}")).collect();
    let adds: Vec<_> = pods
        .iter()
        .map(|pod| start(|| drop(Ask::of(large_sets()).attach(&node.store(), pod).unwrap())))
        .collect();
    adds.into_iter().for_each(finish);
    node.assert_consistent();
    let held: BTreeSet<_> =
        entries(&node.store()).iter().flat_map(|entry| addresses(&entry.record)).collect();
    assert_eq!(held.len(), 200);
    let dels: Vec<_> =
        pods.iter().map(|pod| start(|| node.store().release(&attachment(pod)).unwrap())).collect();
    dels.into_iter().for_each(finish);
    assert!(node.names("claims").is_empty() && node.names("records").is_empty());
}
