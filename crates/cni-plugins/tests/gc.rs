//! GC by the real program: exactly what the runtime does not list goes, of this network only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use kernel::link;
use kernel::netlink::{Protocol, Socket};
use serde_json::{Value, json};
use support::assert_first_packets;
use support::node::{GATEWAYS, Node, Pod, add, addresses_of, check, ip};
use support::plugin::{Call, Outcome};

/// GC with `eth0` of each of these containers as valid.
fn gc(node: &Node, valid: &[&str], patch: Value) -> Outcome {
    let mut conf = node.conf_with(patch);
    let attachments: Vec<Value> =
        valid.iter().map(|id| json!({"containerID": id, "ifname": "eth0"})).collect();
    conf["cni.dev/valid-attachments"] = attachments.into();
    Call::new("GC", &conf).run()
}

fn pair_count() -> usize {
    link::dump_kind(&mut Socket::open(Protocol::Route).unwrap(), "veth").unwrap().len()
}

#[test]
fn what_is_listed_stays_and_works_and_everything_else_goes() {
    for mode in ["ptp", "bridge"] {
        let node = Node::enter();
        let conf = node.conf(mode);
        let pods = ["a", "b", "c", "d"].map(Pod::new);
        let results = pods.each_ref().map(|pod| add(pod, &conf));
        gc(&node, &["b", "unknown"], json!({})).silent();
        assert_eq!(node.kept(), ["10.244.1.3", "b:eth0", "fd00:10:244:1::3"]);
        assert_eq!(pair_count(), 1);
        check(&pods[1], &conf, &results[1]).silent();
        assert_first_packets(&node.ns, &GATEWAYS.map(ip), &[(&pods[1].ns, addresses_of(&results[1]))]);
        gc(&node, &["b"], json!({})).silent();
        assert_eq!(pair_count(), 1);
        gc(&node, &[], json!({})).silent();
        assert_eq!((node.kept(), pair_count()), (vec![], 0));
    }
}

#[test]
fn another_interface_of_a_valid_container_is_not_valid() {
    let node = Node::enter();
    let pod = Pod::new("a");
    let conf = node.conf("ptp");
    Call::about("ADD", &pod, &conf).with("CNI_IFNAME", "net1").run().result();
    gc(&node, &["a"], json!({})).silent();
    assert_eq!((node.kept(), pair_count()), (vec![], 0));
}

#[test]
fn another_network_is_left_alone() {
    let node = Node::enter();
    let (ours, other) = (node.conf("ptp"), node.conf_with(json!({"name": "other"})));
    let (a, b) = (Pod::new("a"), Pod::new("b"));
    add(&a, &ours);
    let result = add(&b, &other_ranges(&other));
    gc(&node, &[], json!({})).silent();
    assert_eq!((node.kept(), pair_count()), (vec![], 1));
    check(&b, &other_ranges(&other), &result).silent();
}

fn other_ranges(conf: &Value) -> Value {
    let mut conf = conf.clone();
    conf["ipam"]["ranges"] = json!([[{"subnet": "10.99.0.0/24"}]]);
    conf
}

#[test]
fn a_list_that_is_missing_or_wrong_is_an_error_and_removes_nothing() {
    let node = Node::enter();
    let pod = Pod::new("a");
    add(&pod, &node.conf("ptp"));
    let before = node.state();
    for list in
        [json!(null), json!({}), json!("a"), json!([{"containerID": "a"}]), json!([{"ifname": "eth0"}])]
    {
        let conf = node.conf_with(json!({"cni.dev/valid-attachments": list}));
        let (code, msg) = Call::new("GC", &conf).run().error();
        assert_eq!(code, 7, "{msg}");
        assert!(msg.starts_with("`cni.dev/valid-attachments"), "{msg}");
        assert_eq!(node.state(), before);
    }
    let (code, msg) = Call::new("GC", &node.conf("ptp")).without("CNI_PATH").run().error();
    assert_eq!((code, msg.contains("`CNI_PATH`")), (4, true), "{msg}");
    assert_eq!(node.state(), before);
}

#[test]
fn a_network_that_forbids_it_keeps_everything() {
    let node = Node::enter();
    add(&Pod::new("a"), &node.conf("ptp"));
    let before = node.kept();
    gc(&node, &[], json!({"disableGC": true})).silent();
    assert_eq!(node.kept(), before);
}

#[test]
fn a_record_that_cannot_be_read_is_named_and_in_nobodys_way() {
    let node = Node::enter();
    let log = node.folder().join("log");
    let conf = node.conf("ptp");
    let pods = ["a", "b", "c"].map(Pod::new);
    let results = pods.each_ref().map(|pod| add(pod, &conf));
    for (file, content) in [("a:eth0", "{"), ("c:eth0", ""), ("no-attachment", "x")] {
        std::fs::write(node.stored("records").join(file), content).unwrap();
    }
    gc(&node, &["a", "b"], json!({"logFile": log})).silent();
    let told = std::fs::read_to_string(log).unwrap();
    for said in ["records/a:eth0 cannot be used", "records/no-attachment cannot be used: foreign file"] {
        assert!(told.contains(said), "{told}");
    }
    assert!(told.contains("freed attachment c:eth0"), "{told}");
    // The damaged one is valid, so it keeps what it has; that which is not valid is gone with its link.
    assert_eq!(
        node.kept(),
        [
            "10.244.1.2",
            "10.244.1.3",
            "a:eth0",
            "b:eth0",
            "fd00:10:244:1::2",
            "fd00:10:244:1::3",
            "no-attachment"
        ]
    );
    assert_eq!(pair_count(), 2);
    let living = [(&pods[0].ns, addresses_of(&results[0])), (&pods[1].ns, addresses_of(&results[1]))];
    assert_first_packets(&node.ns, &GATEWAYS.map(ip), &living);
}

#[test]
fn a_node_without_a_store_has_no_garbage() {
    let node = Node::enter();
    gc(&node, &["a"], json!({})).silent();
    assert!(!node.data_dir().exists());
}
