//! What the real program answers in each version of the specification, letter by letter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::node::{GATEWAYS, Node, Pod, add, addresses_of, del, ip};
use support::plugin::Call;
use support::{assert_first_packets, enter_new_namespace};

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Answers of ADD to the first pod of a fresh node, by version; the pod's path, which differs each time, is replaced.
fn answers(mode: &str) -> String {
    let mut answers = String::new();
    for version in VERSIONS {
        let node = Node::enter();
        let pod = Pod::new("first");
        let conf = node.conf_with(json!({
            "cniVersion": version, "mode": mode,
            "dns": {"nameservers": ["10.96.0.10"], "search": ["cluster.local"]},
        }));
        let outcome = Call::about("ADD", &pod, &conf).run();
        answers += &outcome.answer().replace(&pod.netns(), "/run/netns/first");
    }
    answers
}

#[test]
fn a_routed_pod_in_every_version() {
    insta::assert_snapshot!(answers("ptp"));
}

#[test]
fn a_bridged_pod_in_every_version() {
    insta::assert_snapshot!(answers("bridge"));
}

#[test]
fn loopback_in_every_version() {
    enter_new_namespace();
    let pod = Pod::new("first");
    let mut answers = String::new();
    for version in VERSIONS {
        let conf = json!({"cniVersion": version, "name": "cni-loopback", "type": "loopback"});
        let outcome = Call::about("ADD", &pod, &conf).with("CNI_IFNAME", "lo").by_name("loopback").run();
        answers += &outcome.answer().replace(&pod.netns(), "/run/netns/first");
    }
    insta::assert_snapshot!(answers);
}

#[test]
fn versions_are_answered_by_every_name_with_the_version_that_was_asked() {
    enter_new_namespace();
    for program in ["hostgw", "hostgw-cni", "loopback", "/opt/cni/bin/hostgw"] {
        let answer = |conf: Value| {
            // The specification gives VERSION no other variable.
            let call = Call::new("VERSION", &conf).without("CNI_PATH").by_name(program);
            call.run().answer().to_owned()
        };
        let supported = r#""supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#;
        assert_eq!(
            answer(json!({"cniVersion": "0.4.0"})),
            format!("{{\"cniVersion\":\"0.4.0\",{supported}\n")
        );
        assert_eq!(
            answer(json!({"cniVersion": "7.0.0"})),
            format!("{{\"cniVersion\":\"1.1.0\",{supported}\n")
        );
        assert_eq!(answer(json!({})), format!("{{\"cniVersion\":\"1.1.0\",{supported}\n"));
    }
}

#[test]
fn a_version_that_is_not_supported_is_code_1_for_every_verb_that_reads_it() {
    let node = Node::enter();
    let pod = Pod::new("first");
    for version in ["0.0.9", "1.2.0", "v1.0.0", "0.4"] {
        for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            let conf = node.conf_with(json!({"cniVersion": version}));
            let (code, msg) = Call::about(verb, &pod, &conf).run().error();
            assert_eq!(code, 1, "{msg}");
            assert!(
                msg.starts_with(&format!("`cniVersion` is `{version}`: not supported; use one of 0.1.0")),
                "{msg}"
            );
        }
    }
    for (verb, version) in [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")] {
        let conf = node.conf_with(json!({"cniVersion": version}));
        let (code, msg) = Call::about(verb, &pod, &conf).run().error();
        assert_eq!(code, 1, "{msg}");
        assert!(msg.contains(verb) && msg.contains(version), "{msg}");
    }
    assert_eq!(node.kept(), [""; 0]);
}

#[test]
fn the_ranges_of_a_runtime_come_before_those_of_the_configuration() {
    let node = Node::enter();
    let pod = Pod::new("first");
    let conf = node.conf_with(json!({"runtimeConfig": {"ipRanges": [[{"subnet": "10.99.0.0/24"}]]}}));
    let result = add(&pod, &conf);
    assert_eq!(addresses_of(&result), ["10.99.0.2", "10.244.1.2", "fd00:10:244:1::2"].map(ip));
    assert_first_packets(
        &node.ns,
        &["10.99.0.1", GATEWAYS[0], GATEWAYS[1]].map(ip),
        &[(&pod.ns, addresses_of(&result))],
    );
    del(&pod, &conf);
}

#[test]
fn what_host_local_wrote_in_its_first_form_is_read() {
    let node = Node::enter();
    let pod = Pod::new("first");
    let conf = node.conf_with(json!({"ipam": {
        "type": "host-local", "ranges": null, "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.20",
        "rangeEnd": "10.1.0.30", "gateway": "10.1.0.254", "routes": [{"dst": "10.0.0.0/8"}],
    }}));
    let result = add(&pod, &conf);
    assert_eq!(
        (&result["ips"][0]["address"], &result["ips"][0]["gateway"], &result["routes"]),
        (&json!("10.1.0.20/32"), &json!("10.1.0.254"), &json!([{"dst": "10.0.0.0/8", "gw": "10.1.0.254"}]))
    );
    assert_first_packets(&node.ns, &[ip("10.1.0.254")], &[(&pod.ns, addresses_of(&result))]);
}
