//! `kill -9` at every system call of every operation: nothing is held twice, the retry works, and nothing leaks.

use std::collections::BTreeSet;

use attachment::{Reclaimed, Store};

use crate::child::{End, run_and_kill, take_turn};
use crate::fixture::{Ask, NOW, Node, attachment, entries, port_8080, small_sets};

fn ask() -> Ask {
    Ask { host_ports: vec![port_8080()], ..Ask::of(small_sets()) }
}

/// Kills `operation` at each of its system calls, each time on a fresh node made by `prepare`, and lets each of `next`
/// be the first to come after it.
fn killed_everywhere(prepare: impl Fn(&Node), operation: impl Fn(&Node), next: &[fn(&Node)]) {
    let _turn = take_turn();
    // To be killed before a call is to be killed after the one before it: every other boundary will do.
    for kill_at in (0..).step_by(2) {
        for first in next {
            let node = Node::new();
            prepare(&node);
            match run_and_kill(kill_at, || operation(&node)) {
                End::Done { boundaries, .. } => {
                    assert!(boundaries > 20, "only {boundaries} boundaries: was it traced?");
                    return;
                }
                End::Killed => {}
            }
            first(&node);
            nothing_leaked(&node);
        }
    }
}

/// What the agent does next finds at most one thing to finish.
fn audit(node: &Node) {
    let report = node.store().reclaim(NOW, 60, |_, _| false).unwrap();
    assert!(report.done.iter().all(|done| *done == Reclaimed::Interrupted), "{:?}", report.done);
    assert!(report.bad_records.is_empty() && report.contested.is_empty() && report.foreign.is_empty());
    node.assert_consistent();
}

/// Hints, too, are right again.
fn nothing_to_repair(node: &Node) {
    assert_eq!(node.store().reclaim(NOW, 60, |_, _| false).unwrap().done, []);
}

/// What the runtime does next: the same ADD again, which first clears away what it finds of itself.
fn retry(node: &Node) {
    node.store().release(&attachment("victim")).unwrap();
    ask().attach(&node.store(), "victim").unwrap();
    node.assert_consistent();
    nothing_to_repair(node);
}

/// What the runtime does next: DEL.
fn release(node: &Node) {
    node.store().release(&attachment("victim")).unwrap();
    assert!(!node.names("records").contains("victim:eth0"));
    node.assert_consistent();
}

/// Without any reclaim, every address can be handed out once, and every one comes back.
fn nothing_leaked(node: &Node) {
    let store = node.store();
    for holder in ["victim", "port"] {
        store.release(&attachment(holder)).unwrap();
    }
    ask().attach(&store, "port").unwrap();
    Ask::of(small_sets()).fill(&store);
    node.assert_consistent();
    let held: BTreeSet<_> =
        entries(&store).iter().flat_map(|entry| entry.record.claims().collect::<Vec<_>>()).collect();
    assert_eq!(held.len(), 4 + 4 + 2, "{held:?}");
    for entry in entries(&store) {
        store.release(&entry.record.attachment).unwrap();
    }
    assert!(node.names("claims").is_empty() && node.names("records").is_empty());
    assert_eq!(Ask::of(small_sets()).fill(&store).len(), 8);
}

fn with_neighbour(node: &Node) -> Store {
    let store = node.store();
    Ask::of(small_sets()).attach(&store, "neighbour").unwrap();
    store
}

#[test]
fn the_first_reservation_on_a_node() {
    killed_everywhere(
        |_| {},
        |node| drop(ask().attach(&node.store(), "victim").unwrap()),
        &[audit, retry, release],
    );
}

#[test]
fn a_reservation_beside_others() {
    killed_everywhere(
        |node| drop(with_neighbour(node)),
        |node| drop(ask().attach(&node.store(), "victim").unwrap()),
        &[audit, retry, release],
    );
}

#[test]
fn a_reservation_over_what_a_dead_add_left() {
    killed_everywhere(
        |node| drop(ask().reserve(&with_neighbour(node), "victim").unwrap()),
        |node| {
            node.store().release(&attachment("victim")).unwrap();
            drop(ask().attach(&node.store(), "victim").unwrap());
        },
        &[audit, retry, release],
    );
}

#[test]
fn a_reservation_whose_hint_is_stale() {
    killed_everywhere(
        |node| {
            drop(with_neighbour(node));
            let hint = node.path("ranges/10.0.0.1-10.0.0.5");
            let header = std::fs::read(&hint).unwrap()[..8].to_vec();
            std::fs::write(hint, [header, vec![0; 16]].concat()).unwrap();
        },
        |node| drop(ask().attach(&node.store(), "victim").unwrap()),
        &[retry, release],
    );
}

#[test]
fn a_reservation_that_fails_for_a_taken_host_port() {
    killed_everywhere(
        |node| drop(ask().attach(&node.store(), "port").unwrap()),
        |node| drop(ask().attach(&node.store(), "victim").unwrap_err()),
        &[audit, release],
    );
}

#[test]
fn a_release() {
    killed_everywhere(
        |node| drop(ask().attach(&with_neighbour(node), "victim").unwrap()),
        |node| node.store().release(&attachment("victim")).unwrap(),
        &[audit, retry, release],
    );
}

#[test]
fn a_reclaim() {
    killed_everywhere(
        |node| drop(ask().attach(&with_neighbour(node), "victim").unwrap()),
        |node| {
            let gone = |attachment: &attachment::Attachment, _: Option<&attachment::Record>| {
                attachment.container_id() == "victim"
            };
            assert_eq!(node.store().reclaim(NOW + 100, 60, gone).unwrap().done.len(), 1);
        },
        &[audit, retry, release],
    );
}

#[test]
fn the_clearing_up_after_a_crash_may_crash() {
    killed_everywhere(
        |node| {
            drop(ask().attach(&with_neighbour(node), "victim").unwrap());
            std::fs::rename(node.path("records/victim:eth0"), node.path("pending")).unwrap();
        },
        |node| node.store().release(&attachment("victim")).unwrap(),
        &[audit, retry, release],
    );
}
