//! The drop-in plugin `bandwidth`: limits made, shown in the result, checked and removed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::chain::{call, chained, refusal, run, shown};
use support::node::{Node, Pod, add, host_link};
use support::plugin::Call;

fn limits() -> Value {
    json!({"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 16_000_000, "egressBurst": 800_000})
}

fn shaping_links() -> Vec<String> {
    let links: Value = serde_json::from_str(&shown("ip", &["-j", "link", "show", "type", "ifb"])).unwrap();
    let mut names: Vec<String> = links
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|link| link["ifname"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    names
}

#[test]
fn both_ways_are_limited_shown_checked_and_set_free() {
    for mode in ["bridge", "ptp"] {
        let node = Node::enter();
        let pod = Pod::new("web");
        let so_far = add(&pod, &node.conf(mode));
        let pair = host_link(&so_far).to_owned();
        for conf in [
            chained("bandwidth", &limits(), &so_far),
            chained("bandwidth", &json!({"runtimeConfig": {"bandwidth": limits()}}), &so_far),
        ] {
            let result = call("ADD", "bandwidth", &pod, &conf).result();
            let added = result["interfaces"].as_array().unwrap().last().unwrap().clone();
            assert_eq!(shaping_links(), [added["name"].as_str().unwrap()]);
            assert!(
                added["name"].as_str().unwrap().starts_with("bwp") && added["mac"].is_string(),
                "{added}"
            );
            assert!(added["sandbox"].is_null());
            let bucket = |link: &str| shown("tc", &["qdisc", "show", "dev", link]);
            assert!(
                bucket(&pair).contains("tbf 1: root") && bucket(&pair).contains("rate 8Mbit"),
                "{}",
                bucket(&pair)
            );
            assert!(bucket(added["name"].as_str().unwrap()).contains("rate 16Mbit"));
            let mut checked = conf.clone();
            checked["prevResult"] = result;
            call("CHECK", "bandwidth", &pod, &checked).silent();
            // Once more is the same, where the reference plugin fails.
            call("ADD", "bandwidth", &pod, &conf).result();
            call("CHECK", "bandwidth", &pod, &checked).silent();
            call("DEL", "bandwidth", &pod, &conf).silent();
            assert_eq!(shaping_links(), [""; 0]);
            call("DEL", "bandwidth", &pod, &conf).silent();
        }
    }
}

#[test]
fn without_limits_the_result_is_passed_on() {
    let node = Node::enter();
    let pod = Pod::new("web");
    let so_far = add(&pod, &node.conf("ptp"));
    assert_eq!(call("ADD", "bandwidth", &pod, &chained("bandwidth", &json!({}), &so_far)).result(), so_far);
    assert_eq!(shaping_links(), [""; 0]);
}

#[test]
fn check_sees_what_is_missing() {
    let node = Node::enter();
    let pod = Pod::new("web");
    let so_far = add(&pod, &node.conf("ptp"));
    let pair = host_link(&so_far).to_owned();
    let faults: [&dyn Fn() -> String; 3] = [
        &|| format!("tc qdisc del dev {pair} root"),
        &|| format!("tc qdisc del dev {pair} ingress"),
        &|| format!("ip link del {}", shaping_links()[0]),
    ];
    for fault in faults {
        let conf = chained("bandwidth", &limits(), &so_far);
        let mut checked = conf.clone();
        checked["prevResult"] = call("ADD", "bandwidth", &pod, &conf).result();
        call("CHECK", "bandwidth", &pod, &checked).silent();
        let fault = fault();
        run(&fault);
        let (code, msg) = call("CHECK", "bandwidth", &pod, &checked).error();
        assert_eq!(code, 107, "{fault}: {msg}");
    }
}

#[test]
fn gc_removes_the_links_of_attachments_that_are_not_valid() {
    let node = Node::enter();
    let pods = ["kept", "gone"].map(Pod::new);
    let confs = pods.each_ref().map(|pod| chained("bandwidth", &limits(), &add(pod, &node.conf("ptp"))));
    for (pod, conf) in pods.iter().zip(&confs) {
        call("ADD", "bandwidth", pod, conf).result();
    }
    let mut others = confs[0].clone();
    others["name"] = "another".into();
    Call::gc(&others, &[]).by_name("bandwidth").run().silent();
    assert_eq!(shaping_links().len(), 2);
    Call::gc(&confs[0], &["kept"]).by_name("bandwidth").run().silent();
    assert_eq!(shaping_links().len(), 1);
    call("DEL", "bandwidth", &pods[0], &confs[0]).silent();
    assert_eq!(shaping_links(), [""; 0]);
}

#[test]
fn each_wrong_call_gets_a_clear_error_and_leaves_nothing() {
    let node = Node::enter();
    let pod = Pod::new("web");
    let so_far = add(&pod, &node.conf("ptp"));
    let refused = |rest: Value, so_far: &Value| refusal("bandwidth", &pod, &rest, so_far);
    let bare = json!({"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": pod.netns()}]});
    insta::assert_debug_snapshot!([
        refused(limits(), &Value::Null),
        refused(limits(), &bare),
        refused(json!({"ingressRate": 8_000_000}), &so_far),
        refused(json!({"egressRate": "fast", "egressBurst": 8}), &so_far),
    ]);
    assert_eq!(shaping_links(), [""; 0]);
}
