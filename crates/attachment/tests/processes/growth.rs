//! What an operation costs does not grow with the pods on the node: counted in system calls, since time is not
//! comparable between machines.

use crate::child::{boundaries, take_turn};
use crate::fixture::{Ask, Node, attachment, large_sets};

/// System-call boundaries of one ADD's reservation and of one DEL's release.
fn cost(node: &Node) -> (usize, usize) {
    let add = boundaries(|| drop(Ask::of(large_sets()).attach(&node.store(), "measured").unwrap()));
    let del = boundaries(|| node.store().release(&attachment("measured")).unwrap());
    (add, del)
}

#[test]
fn reserving_and_releasing_costs_the_same_with_10_and_1000_and_30000_pods() {
    let _turn = take_turn();
    let node = Node::new();
    let ask = Ask::of(large_sets());
    let store = node.store();
    let mut pods = 0;
    let mut costs = Vec::new();
    for upto in [10, 1_000, 30_000] {
        while pods < upto {
            ask.attach(&store, &format!("p{pods}")).unwrap();
            pods += 1;
        }
        costs.push(cost(&node));
    }
    let (few, some, many) = (costs[0], costs[1], costs[2]);
    assert_eq!(few, some);
    // Far into the range, its place in the hint is no longer on the page that holds the header.
    assert!(many.0 <= few.0 + 4 && many.1 == few.1, "{costs:?}");
    assert!(few.0 < 80 && few.1 < 80, "{costs:?}");
}
