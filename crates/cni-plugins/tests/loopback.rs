//! The plugin `loopback`, executed as runtimes do for every pod.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use kernel::link;
use serde_json::{Value, json};
use support::enter_new_namespace;
use support::node::{Pod, ip};
use support::plugin::Call;
use support::{one_datagram, udp};

fn conf() -> Value {
    json!({"cniVersion": "1.1.0", "name": "cni-loopback", "type": "loopback"})
}

fn call(verb: &str, pod: &Pod) -> Call {
    Call::about(verb, pod, &conf()).with("CNI_IFNAME", "lo").by_name("loopback")
}

/// A pod whose loopback link is down, as runtimes make it.
fn pod() -> Pod {
    enter_new_namespace();
    let pod = Pod::new("first");
    pod.change(|batch, _| link::set_down(batch, 1));
    pod
}

#[test]
fn after_add_a_pod_talks_to_itself_in_both_families_and_check_agrees() {
    let pod = pod();
    let (code, msg) = call("CHECK", &pod).run().error();
    assert_eq!(code, 107);
    assert!(msg.contains("`lo`") && msg.contains("is down: set it up"), "{msg}");
    call("ADD", &pod).run().result();
    call("CHECK", &pod).run().silent();
    for own in ["127.0.0.1", "::1"].map(ip) {
        let (from, at) = (udp(&pod.ns, own, 0), udp(&pod.ns, own, 0));
        one_datagram(&from, at.local_addr().unwrap(), &at);
    }
    call("ADD", &pod).run().result();
}

#[test]
fn del_sets_it_down_and_succeeds_on_what_is_gone() {
    let pod = pod();
    call("ADD", &pod).run().result();
    for _ in 0..2 {
        call("DEL", &pod).run().silent();
        assert_eq!(call("CHECK", &pod).run().error().0, 107);
    }
    call("DEL", &pod).without("CNI_NETNS").run().silent();
    call("DEL", &pod).with("CNI_NETNS", "/run/netns/gone").run().silent();
    // What is left of a namespace whose mount is gone.
    call("DEL", &pod).with("CNI_NETNS", env!("CARGO_MANIFEST_PATH")).run().silent();
}

#[test]
fn what_an_earlier_plugin_answered_is_passed_on() {
    let pod = pod();
    let mut conf = conf();
    let prev_result = json!({
        "cniVersion": "1.1.0", "interfaces": [{"name": "eth0"}], "ips": [{"interface": 0, "address": "10.1.0.2/24"}],
    });
    conf["prevResult"] = prev_result.clone();
    let outcome = Call::about("ADD", &pod, &conf).by_name("loopback").run();
    assert_eq!(outcome.result(), prev_result);
    call("CHECK", &pod).run().silent();
}

#[test]
fn a_namespace_that_is_gone_or_none_is_named() {
    let pod = pod();
    for verb in ["ADD", "CHECK"] {
        let (code, msg) = call(verb, &pod).with("CNI_NETNS", "/run/netns/gone").run().error();
        assert_eq!(code, 8);
        assert!(msg.contains("`CNI_NETNS`") && msg.contains("/run/netns/gone"), "{msg}");
        let (code, msg) = call(verb, &pod).with("CNI_NETNS", "/etc/passwd").run().error();
        assert_eq!(code, 8);
        assert!(msg.contains("`CNI_NETNS`") && msg.contains("/etc/passwd"), "{msg}");
    }
}

#[test]
fn gc_and_status_have_nothing_to_do() {
    enter_new_namespace();
    for verb in ["GC", "STATUS"] {
        let mut conf = conf();
        conf["cni.dev/valid-attachments"] = json!([]);
        Call::new(verb, &conf).by_name("loopback").run().silent();
    }
}
