//! What is freed when pods are gone, and what is never.

use std::cell::RefCell;
use std::collections::HashSet;

use attachment::{Reclaimed, State};

use crate::claim;
use crate::fixture::{Ask, NOW, Node, attachment, entries, port_8080, small_sets};

#[test]
fn only_what_is_gone_and_old_and_unlocked_is_reclaimed() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask::of(small_sets());
    ask.attach(&store, "alive").unwrap();
    ask.attach(&store, "gone").unwrap();
    let adding = ask.reserve(&store, "adding").unwrap();
    let gone = |attachment: &attachment::Attachment, _: Option<&attachment::Record>| {
        attachment.container_id() != "alive"
    };
    let young = store.reclaim(NOW + 60, 60, gone).unwrap();
    assert!(young.done.is_empty() && young.in_progress.is_empty());
    let report = store.reclaim(NOW + 61, 60, gone).unwrap();
    assert_eq!(report.in_progress, [attachment("adding")]);
    let claims = vec![claim("10.0.0.3"), claim("fd00::3")];
    assert_eq!(report.done, [Reclaimed::Attachment { attachment: attachment("gone"), claims }]);
    assert_eq!(report.done[0].to_string(), "freed attachment gone:eth0 with 10.0.0.3, fd00::3");
    drop(adding);
    assert_eq!(store.reclaim(NOW + 61, 60, gone).unwrap().done.len(), 1);
    assert_eq!(entries(&store).len(), 1);
    node.assert_consistent();
}

#[test]
fn a_record_from_a_clock_that_ran_ahead_is_reclaimed_too() {
    let node = Node::new();
    let store = node.store();
    Ask::of(small_sets()).attach(&store, "a").unwrap();
    assert_eq!(store.reclaim(NOW - 1_000, 60, |_, _| true).unwrap().done.len(), 1);
}

#[test]
fn gc_frees_what_is_not_valid_once_it_is_cleaned_up() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask::of(small_sets());
    for name in ["valid", "stale", "stuck"] {
        ask.attach(&store, name).unwrap();
    }
    let adding = ask.reserve(&store, "adding").unwrap();
    let mut cleaned = Vec::new();
    let valid = HashSet::from([attachment("valid")]);
    let report = store
        .reclaim_except(&valid, |attachment, record| {
            assert_eq!(record.unwrap().attachment, *attachment);
            cleaned.push(attachment.container_id().to_owned());
            attachment.container_id() == "stale"
        })
        .unwrap();
    cleaned.sort();
    assert_eq!(cleaned, ["stale", "stuck"]);
    assert_eq!((report.done.len(), report.in_progress.as_slice()), (1, [attachment("adding")].as_slice()));
    adding.mark_attached().unwrap();
    let mut left: Vec<_> = entries(&store).into_iter().map(|entry| entry.record.attachment).collect();
    left.sort();
    assert_eq!(left, [attachment("adding"), attachment("stuck"), attachment("valid")]);
    assert!(entries(&store).iter().all(|entry| entry.state == State::Attached));
    node.assert_consistent();
}

#[test]
fn a_life_that_began_during_the_pass_gets_no_claim_of_the_one_before() {
    // On a disk, where there is one: there, the number of a file that went is another's soon.
    let node = Node::new_in(std::env::temp_dir());
    let store = node.store();
    let ask = Ask::of(small_sets());
    for name in ["a", "b"] {
        ask.attach(&store, name).unwrap();
    }
    let seen = RefCell::new(Vec::new());
    let attach_those_before_again = |attachment: &attachment::Attachment, _: Option<&attachment::Record>| {
        for before in seen.borrow().iter() {
            store.release(before).unwrap();
            ask.attach(&store, before.container_id()).unwrap();
        }
        seen.borrow_mut().push(attachment.clone());
        false
    };
    let report = store.reclaim(NOW + 1_000, 0, attach_those_before_again).unwrap();
    assert_eq!(seen.borrow().len(), 2);
    assert!(report.done.is_empty() && report.contested.is_empty(), "{report:?}");
    node.assert_consistent();
}

#[test]
fn a_store_in_order_is_left_as_it_is() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask { host_ports: vec![port_8080()], ..Ask::of(small_sets()) };
    ask.attach(&store, "a").unwrap();
    let report = store.reclaim(NOW + 1_000, 0, |_, _| false).unwrap();
    assert_eq!(report.done, []);
    assert!(report.bad_records.is_empty() && report.foreign.is_empty() && report.contested.is_empty());
}
