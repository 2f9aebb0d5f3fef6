//! The drop-in plugin `tuning`: what it sets in the pod, and sets back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::chain::{call, chained, refusal, run, shown};
use support::node::{Node, Pod, add};
use support::plugin::Call;

fn everything(node: &Node, so_far: &Value) -> Value {
    let rest = json!({
        "dataDir": node.folder().join("tuning"), "mac": "02:00:00:00:00:77", "mtu": 1400, "promisc": true,
        "allmulti": true, "txQLen": 77,
        "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "500"},
    });
    chained("tuning", &rest, so_far)
}

fn eth0(pod: &Pod) -> Value {
    let shown = pod.ns.run(|| shown("ip", &["-d", "-j", "link", "show", "eth0"])).unwrap();
    let links: Value = serde_json::from_str(&shown).unwrap();
    let mut link = links[0].clone();
    // What the kernel counts, and what only time changes.
    for key in ["stats64", "operstate"] {
        link.as_object_mut().unwrap().remove(key);
    }
    link
}

fn somaxconn(pod: &Pod) -> String {
    pod.ns.run(|| shown("sysctl", &["-n", "net.core.somaxconn"])).unwrap().trim().to_owned()
}

#[test]
fn everything_is_set_shown_in_the_result_checked_and_set_back() {
    let node = Node::enter();
    let pod = Pod::new("web");
    let so_far = add(&pod, &node.conf("ptp"));
    let before = eth0(&pod);
    let conf = everything(&node, &so_far);
    let result = call("ADD", "tuning", &pod, &conf).result();
    let mac = |result: &Value| {
        let interfaces = result["interfaces"].as_array().unwrap().clone();
        interfaces.into_iter().find(|interface| interface["name"] == "eth0").unwrap()["mac"].clone()
    };
    assert_eq!(mac(&result), "02:00:00:00:00:77");
    assert_eq!(result["ips"], so_far["ips"]);
    let tuned = eth0(&pod);
    assert_eq!(
        (&tuned["address"], &tuned["mtu"], &tuned["txqlen"], &tuned["promiscuity"]),
        (&json!("02:00:00:00:00:77"), &json!(1400), &json!(77), &json!(1))
    );
    assert!(tuned["flags"].as_array().unwrap().contains(&json!("ALLMULTI")), "{tuned}");
    assert_eq!(somaxconn(&pod), "500");
    call("CHECK", "tuning", &pod, &conf).silent();
    // A second ADD does not take what the first one set for what was before.
    call("ADD", "tuning", &pod, &conf).result();
    call("DEL", "tuning", &pod, &conf).silent();
    assert_eq!(eth0(&pod), before);
    assert_eq!(std::fs::read_dir(node.folder().join("tuning")).unwrap().count(), 0);
    call("DEL", "tuning", &pod, &conf).silent();
}

#[test]
fn check_sees_each_setting_that_was_changed() {
    let node = Node::enter();
    let pod = Pod::new("web");
    let conf = everything(&node, &add(&pod, &node.conf("ptp")));
    for (fault, named) in [
        ("ip link set eth0 address 02:00:00:00:00:78", "mac"),
        ("ip link set eth0 mtu 1300", "mtu"),
        ("ip link set eth0 promisc off", "promisc"),
        ("ip link set eth0 allmulticast off", "allmulti"),
        ("ip link set eth0 txqueuelen 5", "txQLen"),
        ("sysctl -qw net.ipv4.conf.eth0.arp_filter=0", "arp_filter"),
    ] {
        call("ADD", "tuning", &pod, &conf).result();
        call("CHECK", "tuning", &pod, &conf).silent();
        pod.ns.run(|| run(fault)).unwrap();
        let (code, msg) = call("CHECK", "tuning", &pod, &conf).error();
        assert_eq!(code, 107);
        assert!(msg.contains(named), "{fault}: {msg}");
    }
}

#[test]
fn an_add_that_fails_sets_everything_back() {
    let node = Node::enter();
    let pod = Pod::new("web");
    let so_far = add(&pod, &node.conf("ptp"));
    let (before, connections) = (eth0(&pod), somaxconn(&pod));
    for (key, value) in
        [("mtu", json!(60)), ("sysctl", json!({"net.core.somaxconn": "500", "net.none": "1"}))]
    {
        let mut conf = everything(&node, &so_far);
        conf[key] = value;
        let (code, _) = call("ADD", "tuning", &pod, &conf).error();
        assert_eq!(code, 104, "{key}");
        assert_eq!(eth0(&pod), before, "{key}");
        assert_eq!(somaxconn(&pod), connections, "{key}");
    }
}

#[test]
fn del_of_a_pod_that_is_gone_and_gc_leave_no_file() {
    let node = Node::enter();
    let folder = node.folder().join("tuning");
    let files = || std::fs::read_dir(&folder).unwrap().count();
    let pods = ["a", "b", "c"].map(Pod::new);
    let confs = pods.each_ref().map(|pod| everything(&node, &add(pod, &node.conf("ptp"))));
    for (pod, conf) in pods.iter().zip(&confs) {
        call("ADD", "tuning", pod, conf).result();
    }
    assert_eq!(files(), 3);
    Call::about("DEL", &pods[0], &confs[0]).by_name("tuning").without("CNI_NETNS").run().silent();
    assert_eq!(files(), 2);
    Call::gc(&confs[0], &["b"]).by_name("tuning").run().silent();
    assert_eq!(files(), 1);
    assert!(folder.join("b_eth0.json").exists());
}

#[test]
fn each_wrong_call_gets_a_clear_error() {
    let node = Node::enter();
    let pod = Pod::new("web");
    let so_far = add(&pod, &node.conf("ptp"));
    let refused = |rest: Value, so_far: &Value| refusal("tuning", &pod, &rest, so_far);
    insta::assert_debug_snapshot!([
        refused(json!({"mtu": 1400}), &Value::Null),
        refused(json!({"mtu": "1400"}), &so_far),
        refused(json!({"mac": "nonsense"}), &so_far),
        refused(json!({"sysctl": {"kernel.hostname": "x"}}), &so_far),
        refused(json!({"sysctl": {"net.ipv4.no_such": "x"}}), &so_far),
        refused(json!({"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "x"}}), &so_far),
    ]);
}

#[test]
fn a_del_whose_wishes_are_wrong_by_now_sets_back_all_the_same() {
    let node = Node::enter();
    let pod = Pod::new("web");
    let so_far = add(&pod, &node.conf("ptp"));
    let before = eth0(&pod);
    let mut conf = everything(&node, &so_far);
    call("ADD", "tuning", &pod, &conf).result();
    conf["mac"] = json!("words");
    conf["mtu"] = json!(999_999);
    call("DEL", "tuning", &pod, &conf).silent();
    assert_eq!(eth0(&pod), before);
}
