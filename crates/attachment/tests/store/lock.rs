//! A lock that somebody keeps: the wait ends, and tells who it is.

use std::fs::File;
use std::time::Duration;

use attachment::{ReleaseError, ReserveError};

use crate::fixture::{Ask, Node, attachment, small_sets};

#[test]
fn a_lock_that_another_keeps_is_given_up_with_its_name_and_holder_and_nothing_is_lost() {
    let node = Node::new();
    let store = node.store().with_lock_patience(Duration::from_millis(20));
    let ask = Ask::of(small_sets());
    ask.attach(&store, "first").unwrap();
    let kept = File::open(node.path("lock")).unwrap();
    kept.lock().unwrap();

    let Err(ReserveError::Io(error)) = ask.attach(&store, "second") else { panic!("reserved") };
    assert!(error.is_lock_held());
    let told = error.to_string();
    assert!(told.contains("/lock: process ") && told.contains("for 20ms: try again"), "{told}");
    let Err(ReleaseError::Io(error)) = store.release(&attachment("first")) else { panic!("released") };
    assert!(error.is_lock_held(), "{error}");

    drop(kept);
    store.release(&attachment("first")).unwrap();
    ask.attach(&store, "second").unwrap();
    node.assert_consistent();
}
