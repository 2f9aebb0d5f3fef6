//! Files that a power loss tore or a foreign hand touched: named, survived, and freed.

use attachment::{NetworkName, Reclaimed, ReserveError, Store};

use crate::fixture::{Ask, NOW, Node, attachment, large_sets, port_8080, small_sets};
use crate::{claim, write};

/// Overwrites the record in place: its claims are the same file.
fn tear(node: &Node, name: &str, length: usize) {
    let path = node.path(&format!("records/{name}:eth0"));
    let bytes = std::fs::read(&path).unwrap();
    write(&path, &bytes[..length.min(bytes.len())]);
}

#[test]
fn a_torn_record_is_named_and_its_release_frees_every_claim() {
    for length in [0, 20, 200] {
        let node = Node::new();
        let store = node.store();
        let ask = Ask { host_ports: vec![port_8080()], ..Ask::of(small_sets()) };
        ask.attach(&store, "torn").unwrap();
        Ask::of(small_sets()).attach(&store, "whole").unwrap();
        tear(&node, "torn", length);
        let bad: Vec<_> = store.records().unwrap().filter_map(Result::err).collect();
        assert_eq!(bad.len(), 1);
        assert_eq!(bad[0].attachment, Some(attachment("torn")));
        assert!(bad[0].to_string().contains("records/torn:eth0"), "{}", bad[0]);
        assert_eq!(store.owner_of_claim(&claim("10.0.0.2")).unwrap(), None);
        store.release(&attachment("torn")).unwrap();
        node.assert_consistent();
        ask.attach(&store, "next").unwrap();
        // What the torn record could not name is still set in the hint, until the range seems full.
        assert_eq!(Ask::of(small_sets()).fill(&store).len(), 4);
    }
}

#[test]
fn a_torn_record_is_reclaimed_by_its_name_and_file_time() {
    let node = Node::new();
    let store = node.store();
    Ask::of(small_sets()).attach(&store, "torn").unwrap();
    tear(&node, "torn", 0);
    let alive = store.reclaim(NOW, 0, |_, record| record.is_some()).unwrap();
    assert_eq!((alive.done.len(), alive.bad_records.len()), (0, 1));
    let report = store.reclaim(u64::from(u32::MAX), 60, |_, record| record.is_none()).unwrap();
    let freed = Reclaimed::Attachment { attachment: attachment("torn"), claims: Vec::new() };
    assert_eq!(report.done[0], freed);
    node.assert_consistent();
}

#[test]
fn an_add_over_its_own_torn_record_works_once_that_is_released() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask::of(small_sets());
    ask.attach(&store, "a").unwrap();
    tear(&node, "a", 10);
    let error = ask.attach(&store, "a").unwrap_err();
    assert!(error.to_string().contains("record cannot be read"), "{error}");
    store.release(&attachment("a")).unwrap();
    ask.attach(&store, "a").unwrap();
    node.assert_consistent();
}

#[test]
fn a_record_under_another_attachments_name_frees_only_its_own_claims() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask::of(small_sets());
    ask.attach(&store, "a").unwrap();
    ask.attach(&store, "b").unwrap();
    std::fs::copy(node.path("records/b:eth0"), node.path("records/c:eth0")).unwrap();
    assert_eq!(store.records().unwrap().filter(Result::is_err).count(), 1);
    store.release(&attachment("c")).unwrap();
    node.assert_consistent();
    assert_eq!(node.names("claims").len(), 4);
}

#[test]
fn foreign_files_are_named_and_left_alone() {
    let node = Node::new();
    let store = node.store();
    Ask::of(small_sets()).attach(&store, "a").unwrap();
    for name in ["records/notes.txt", "claims/notes.txt", "ranges/notes.txt", "notes.txt"] {
        write(&node.path(name), b"mine");
    }
    std::fs::create_dir(node.path("records/folder:eth0")).unwrap();
    let report = store.reclaim(NOW, 0, |_, record| record.is_none()).unwrap();
    assert_eq!(report.done, []);
    assert_eq!(report.foreign, ["claims/notes.txt", "ranges/notes.txt"]);
    assert_eq!((report.bad_records.len(), report.failed.len()), (1, 1));
    assert_eq!(store.records().unwrap().filter(Result::is_ok).count(), 1);
    for name in ["records/notes.txt", "claims/notes.txt", "ranges/notes.txt", "notes.txt"] {
        assert!(node.path(name).exists());
    }
}

#[test]
fn claims_without_a_record_are_freed_by_reclaim_and_taken_over_when_asked_for_by_name() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask { host_ports: vec![port_8080()], ..Ask::of(small_sets()) };
    ask.attach(&store, "lost").unwrap();
    std::fs::remove_file(node.path("records/lost:eth0")).unwrap();
    ask.attach(&store, "next").unwrap();
    assert_eq!(store.owner_of_claim(&claim("tcp:0.0.0.0:8080")).unwrap(), Some(attachment("next")));
    let report = store.reclaim(NOW, 60, |_, _| false).unwrap();
    let freed = |text| report.done.contains(&Reclaimed::Claim(claim(text)));
    assert!(freed("10.0.0.2") && freed("fd00::2"), "{:?}", report.done);
    node.assert_consistent();
}

#[test]
fn claims_that_a_living_record_lost_are_given_back_before_another_pod_gets_them() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask { host_ports: vec![port_8080()], ..Ask::of(small_sets()) };
    ask.attach(&store, "a").unwrap();
    std::fs::remove_dir_all(node.path("claims")).unwrap();
    std::fs::create_dir(node.path("claims")).unwrap();
    let report = store.reclaim(NOW, 60, |_, _| false).unwrap();
    assert_eq!(report.done.len(), 4, "{:?}", report.done);
    node.assert_consistent();
    assert_eq!(Ask::of(small_sets()).fill(&store).len(), 6);
}

#[test]
fn a_claim_that_two_records_say_they_hold_is_reported() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask::of(vec![small_sets().remove(0)]);
    ask.attach(&store, "first").unwrap();
    std::fs::remove_file(node.path("claims/10.0.0.2")).unwrap();
    let again = Ask { requested: vec!["10.0.0.2".parse().unwrap()], ..ask };
    again.attach(&store, "second").unwrap();
    let report = store.reclaim(NOW, 60, |_, _| false).unwrap();
    assert_eq!(report.contested, [(claim("10.0.0.2"), attachment("first"))]);
    store.release(&attachment("first")).unwrap();
    assert_eq!(store.owner_of_claim(&claim("10.0.0.2")).unwrap(), Some(attachment("second")));
}

#[test]
fn a_hint_that_is_lost_empty_or_garbage_is_rebuilt() {
    for damage in [None, Some(&b""[..]), Some(b"hgwhint"), Some(&[0xff; 9_000]), Some(&[0; 9_000])] {
        let node = Node::new();
        let store = node.store();
        let ask = Ask::of(small_sets());
        ask.attach(&store, "a").unwrap();
        let hint = node.path("ranges/10.0.0.1-10.0.0.5");
        match damage {
            None => std::fs::remove_file(&hint).unwrap(),
            Some(bytes) => write(&hint, bytes),
        }
        ask.attach(&store, "b").unwrap();
        assert_eq!(ask.fill(&store).len(), 4);
        node.assert_consistent();
    }
}

#[test]
fn a_hint_that_says_too_little_costs_time_and_one_that_says_too_much_costs_nothing_in_the_end() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask::of(large_sets());
    for pod in 0..100 {
        ask.attach(&store, &format!("p{pod}")).unwrap();
    }
    let hint = node.path("ranges/10.1.0.1-10.1.255.254");
    let bytes = std::fs::read(&hint).unwrap();
    // The header's magic alone: cursor at the start, all free.
    write(&hint, &[&bytes[..8], &[0; 16]].concat());
    assert_eq!(ask.attach(&store, "next").unwrap(), ["10.1.0.102".parse::<std::net::IpAddr>().unwrap()]);
    let full = [&bytes[..24], &vec![0; 512 - 24][..], &vec![0xff; 8192][..]].concat();
    write(&hint, &full);
    ask.attach(&store, "after").unwrap();
    write(&hint, &full);
    assert_eq!(store.reclaim(NOW, 60, |_, _| false).unwrap().done.len(), 1);
    assert_eq!(store.reclaim(NOW, 60, |_, _| false).unwrap().done.len(), 0);
    node.assert_consistent();
}

#[test]
fn a_file_where_the_store_belongs_is_an_error_with_its_path_and_remedy() {
    let node = Node::new();
    std::fs::create_dir_all(node.data_dir()).unwrap();
    write(&node.data_dir().join("k8s"), b"");
    let error = Store::open(&node.data_dir(), &node.network).err().unwrap().to_string();
    assert!(error.contains("run/ipam/k8s") && error.contains("remove it"), "{error}");
}

#[test]
fn a_symbolic_link_is_not_followed_out_of_the_store() {
    let node = Node::new();
    let store = node.store();
    let ask = Ask::of(small_sets());
    ask.attach(&store, "a").unwrap();
    std::os::unix::fs::symlink("/dev/zero", node.path("records/b:eth0")).unwrap();
    assert!(matches!(ask.attach(&store, "b"), Err(ReserveError::Io(_))));
    let linked: NetworkName = "linked".parse().unwrap();
    std::os::unix::fs::symlink("/", node.data_dir().join("linked")).unwrap();
    assert!(Store::open(&node.data_dir(), &linked).is_err());
}
