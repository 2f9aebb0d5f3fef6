//! Node objects as people and API servers write them, and as they should not.

use std::net::IpAddr;

use proptest::prelude::*;

use super::reader::MAX_PROBLEMS_OF_PART;
use super::*;
use crate::cluster::NodeName;
use crate::family::Family;

fn snapshot(json: &str) -> ClusterSnapshot {
    let document: NodeDocument = serde_json::from_str(json).unwrap();
    snapshot_from_objects(SourceKind::File, Freshness::Synced, document.into_objects().unwrap())
}

fn problems(json: &str) -> Vec<String> {
    snapshot(json).problems.iter().map(ToString::to_string).collect()
}

fn node_with(spec: &str, status: &str) -> String {
    format!(r#"{{"kind":"Node","metadata":{{"name":"n1"}},"spec":{spec},"status":{status}}}"#)
}

#[test]
fn a_list_from_kubectl_is_read_whole() {
    let snapshot = snapshot(
        r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Node",
            "metadata":{"name":"node1","uid":"u-1","creationTimestamp":"2024-05-01T12:00:00Z","labels":{"a":"b"}},
            "spec":{"podCIDR":"10.244.1.0/24","podCIDRs":["10.244.1.0/24","fd00:10:244:1::/64"]},
            "status":{"addresses":[{"type":"Hostname","address":"node1"},
                {"type":"InternalIP","address":"192.0.2.11"},{"type":"InternalIP","address":"2001:db8::11"},
                {"type":"InternalIP","address":"192.0.2.111"},{"type":"ExternalIP","address":"203.0.113.1"}],
                "capacity":{"cpu":"4"}}}]}"#,
    );
    assert_eq!(snapshot.problems, []);
    let node = &snapshot.nodes[&NodeName::new("node1").unwrap()];
    assert_eq!(node.uid, "u-1");
    assert_eq!(node.created, Some(1_714_564_800));
    assert_eq!(node.internal_ips.get(Family::Ipv4), Some(&"192.0.2.11".parse().unwrap()));
    assert_eq!(node.internal_ips.get(Family::Ipv6), Some(&"2001:db8::11".parse().unwrap()));
    assert_eq!(node.further_internal_ips, ["192.0.2.111".parse::<IpAddr>().unwrap()]);
    assert_eq!(node.pod_cidrs.get(Family::Ipv6), Some(&"fd00:10:244:1::/64".parse().unwrap()));
}

#[test]
fn the_annotation_names_the_next_hop_and_the_other_address_is_kept_as_further() {
    let snapshot = snapshot(
        r#"{"kind":"Node","metadata":{"name":"n1","annotations":{"hostgw.io/internal-ip":"10.0.0.7, fd00::7"}},
            "status":{"addresses":[{"type":"InternalIP","address":"192.0.2.1"}]}}"#,
    );
    let node = snapshot.nodes.values().next().unwrap();
    assert_eq!(node.internal_ips.get(Family::Ipv4), Some(&"10.0.0.7".parse().unwrap()));
    assert_eq!(node.internal_ips.get(Family::Ipv6), Some(&"fd00::7".parse().unwrap()));
    assert_eq!(node.further_internal_ips, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
}

fn annotated(slices: &str) -> String {
    format!(
        r#"{{"kind":"Node","metadata":{{"name":"n1","annotations":{{"hostgw.io/lan-slice":{slices}}}}}}}"#
    )
}

#[test]
fn the_annotation_names_a_part_of_the_lan_in_each_family() {
    let snapshot = snapshot(&annotated(r#""10.10.1.0/24, 2001:db8::1:0/112""#));
    let node = snapshot.nodes.values().next().unwrap();
    assert_eq!(node.lan_slices.get(Family::Ipv4), Some(&"10.10.1.0/24".parse().unwrap()));
    assert_eq!(node.lan_slices.get(Family::Ipv6), Some(&"2001:db8::1:0/112".parse().unwrap()));
    assert!(!node.unreadable_lan_slice && snapshot.problems.is_empty());
}

#[test]
fn a_part_of_the_lan_that_cannot_be_read_is_named_and_remembered() {
    for (slices, said) in [
        (r#""10.10.1.7/24""#, "has host bits set: write 10.10.1.0/24"),
        (r#""10.10.1.0/24,10.10.2.0/24""#, "is a second IPv4 slice"),
        (r#""1""#, "is no CIDR: write it as 10.10.1.0/24"),
        (r#""""#, "is no CIDR"),
        ("7", "is of the wrong type"),
        (r#""224.0.0.0/24""#, "is multicast"),
    ] {
        let snapshot = snapshot(&annotated(slices));
        assert!(snapshot.nodes.values().all(|node| node.unreadable_lan_slice), "{slices}");
        let told = snapshot.problems[0].to_string();
        assert!(told.contains(said) && told.contains("annotations[hostgw.io/lan-slice]"), "{told}");
    }
}

#[test]
fn only_the_old_single_field_is_enough() {
    let snapshot = snapshot(&node_with(r#"{"podCIDR":"10.244.1.0/24"}"#, "{}"));
    let node = snapshot.nodes.values().next().unwrap();
    assert_eq!(node.pod_cidrs.get(Family::Ipv4), Some(&"10.244.1.0/24".parse().unwrap()));
    assert_eq!(snapshot.problems, []);
}

#[test]
fn each_bad_field_is_named_with_value_and_remedy() {
    let addresses =
        |address: &str| format!(r#"{{"addresses":[{{"type":"InternalIP","address":{address}}}]}}"#);
    insta::assert_snapshot!(
        [
            problems(&node_with(r#"{"podCIDRs":["10.244.1.7/24","10.244.1.0/33","0.0.0.0/0","fe80::/64"]}"#, "{}")),
            problems(&node_with(r#"{"podCIDRs":["10.244.1.0/24","10.244.2.0/24"]}"#, "{}")),
            problems(&node_with(r#"{"podCIDRs":"10.244.1.0/24"}"#, "{}")),
            problems(&node_with(r#"{"podCIDRs":[7]}"#, "{}")),
            problems(&node_with("{}", &addresses(r#""127.0.0.1""#))),
            problems(&node_with("{}", &addresses(r#""192.0.2.256""#))),
            problems(&node_with("{}", &addresses("true"))),
            problems(r#"{"kind":"List","items":[{"metadata":{"name":"a"}},{"metadata":{"name":"a"}}]}"#),
            problems(r#"{"kind":"List","items":[{"metadata":{"name":"Not A Name"}},{"kind":"Pod","metadata":{"name":"p"}}]}"#),
            problems(r#"{"kind":"Node","metadata":{"name":"a","creationTimestamp":"soon"}}"#),
        ]
        .concat()
        .join("\n"),
        @r#"
    node `n1`: spec.podCIDRs[0] `10.244.1.7/24` has host bits set: write 10.244.1.0/24
    node `n1`: spec.podCIDRs[1] `10.244.1.0/33` is no CIDR: write it as 10.244.1.0/24 or fd00:10:244:1::/64
    node `n1`: spec.podCIDRs[2] `0.0.0.0/0` holds every address there is: give the node a pod CIDR of private or global unicast addresses
    node `n1`: spec.podCIDRs[3] `fe80::/64` is link-local: give the node a pod CIDR of private or global unicast addresses
    node `n1`: spec.podCIDRs[1] `10.244.2.0/24` is a second IPv4 CIDR: a node has at most one a family: the first is used
    node `n1`: spec.podCIDRs `?` is of the wrong type: write it as `kubectl get nodes -o yaml` does
    node `n1`: spec.podCIDRs[0] `?` is of the wrong type: write it as `kubectl get nodes -o yaml` does
    node `n1`: status.addresses[0] `127.0.0.1` is a loopback address: give a unicast address that the node holds
    node `n1`: status.addresses[0] `192.0.2.256` is no IP address: give a unicast address that the node holds
    node `n1`: status.addresses[0] `?` is of the wrong type: write it as `kubectl get nodes -o yaml` does
    node `a`: items[1].metadata.name `a` is the name of an earlier node too: remove one of the two: the first is used
    node `items[0]`: metadata.name `Not A Name` is no RFC 1123 subdomain: use a-z, 0-9, `-` and `.`, and begin and end with a letter or digit: the node is ignored until it is put right
    node `p`: kind `Pod` is not Node: remove the object from the list
    node `a`: metadata.creationTimestamp `soon` is no RFC 3339 timestamp: write it as 2024-05-01T12:00:00Z
    "#
    );
}

#[test]
fn a_bad_family_does_not_cost_the_other() {
    let snapshot = snapshot(&node_with(
        r#"{"podCIDRs":["10.244.1.9/24","fd00:1::/64"]}"#,
        r#"{"addresses":[{"type":"InternalIP","address":"nope"},{"type":"InternalIP","address":"2001:db8::1"}]}"#,
    ));
    let node = snapshot.nodes.values().next().unwrap();
    assert_eq!(node.pod_cidrs.get(Family::Ipv6), Some(&"fd00:1::/64".parse().unwrap()));
    assert_eq!(node.internal_ips.get(Family::Ipv6), Some(&"2001:db8::1".parse().unwrap()));
    assert_eq!(snapshot.problems.len(), 2);
}

#[test]
fn what_costs_a_route_is_an_error_and_is_remembered() {
    for spec in [r#"{"podCIDRs":["10.244.1.0/33"]}"#, r#"{"podCIDRs":7}"#, r#"{"podCIDR":"x"}"#, "[7]"] {
        let snapshot = snapshot(&node_with(spec, "{}"));
        assert!(snapshot.nodes.values().all(|node| node.unreadable_pod_cidr), "{spec}");
        assert!(snapshot.problems.iter().all(|problem| problem.severity == Severity::Error), "{spec}");
        assert_eq!((snapshot.problems.len(), snapshot.left_out), (1, 0), "{spec}");
    }
    for spec in ["{}", r#"{"podCIDR":""}"#, r#"{"podCIDRs":[]}"#, r#"{"podCIDRs":["10.244.1.0/24"]}"#] {
        assert!(
            !snapshot(&node_with(spec, "{}")).nodes.values().any(|node| node.unreadable_pod_cidr),
            "{spec}"
        );
    }
    let nameless =
        r#"{"kind":"List","items":[{"kind":"Node"},{"metadata":{"name":"a"}},{"metadata":{"name":"a"}}]}"#;
    assert_eq!(snapshot(nameless).left_out, 2);
    let late = snapshot(r#"{"kind":"Node","metadata":{"name":"a","creationTimestamp":"soon"}}"#);
    assert_eq!(late.problems[0].severity, Severity::Warning);
}

#[test]
fn other_documents_are_refused_with_the_remedy() {
    let refused = |json: &str| {
        serde_json::from_str::<NodeDocument>(json).unwrap().into_objects().unwrap_err().to_string()
    };
    assert!(refused(r#"{"kind":"Pod"}"#).contains("kubectl get nodes"));
    assert!(refused("{}").contains("kind is missing"));
    assert!(refused(r#"{"kind":"NodeList"}"#).contains("half-written"));
}

#[test]
fn a_hostile_value_gives_a_short_problem() {
    let huge = "\u{1b}".repeat(100_000);
    let text =
        serde_json::json!({"kind":"Node","metadata":{"name":"n1"},"spec":{"podCIDR": huge}}).to_string();
    let shown = problems(&text).join("");
    assert!(shown.len() < 1_000 && !shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn a_hostile_annotation_is_named_and_the_nodes_own_address_stands() {
    let commas = ",".repeat(200_000);
    let numbers = (0..10_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let hostile = [
        "",
        " ",
        ",",
        "0.0.0.0",
        "127.0.0.1",
        "::1",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "169.254.1.1",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:192.0.2.7",
        "192.0.2.7/24",
        "192.0.2.007",
        "192.0.2.7:80",
        "[2001:db8::7]",
        "192.0.2.7 192.0.2.8",
        "192.0.2.7\n192.0.2.8",
        "192.0.2.7\0",
        "$(reboot)",
        "../../etc/passwd",
        "\u{202e}7.2.0.291",
        "３.３.３.３",
        &commas,
        &numbers,
    ];
    for value in hostile {
        let node = serde_json::json!({"kind": "Node",
            "metadata": {"name": "n1", "annotations": {"hostgw.io/internal-ip": value, "hostgw.io/lan-slice": value}},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.11"}]}})
        .to_string();
        let read = snapshot(&node);
        let shown = value.chars().take(40).collect::<String>();
        let node = read.nodes.values().next().unwrap();
        let addresses: Vec<String> = node.internal_ips.values().map(ToString::to_string).collect();
        assert_eq!(addresses, ["192.0.2.11"], "{shown:?}");
        let told: Vec<String> = read.problems.iter().map(ToString::to_string).collect();
        for name in ["hostgw.io/internal-ip", "hostgw.io/lan-slice"] {
            assert!(told.iter().any(|problem| problem.contains(name)), "{shown:?}: {told:?}");
        }
        let all = told.join("");
        assert!(all.len() < 10_000 && !all.contains(|c: char| c.is_control() || c == '\u{202e}'), "{all}");
    }
    for value in [serde_json::json!(7), serde_json::json!(["192.0.2.7"]), serde_json::json!({"a": "b"})] {
        let node = serde_json::json!({"kind": "Node",
            "metadata": {"name": "n1", "annotations": {"hostgw.io/internal-ip": value}},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.11"}]}})
        .to_string();
        assert!(problems(&node).join("").contains("hostgw.io/internal-ip"), "{node}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_text_in_any_field_is_read_or_named(
        name in ".{0,12}", uid in ".{0,8}", created in ".{0,25}", cidr in "[0-9a-f:./]{0,24}", address in ".{0,20}"
    ) {
        let text = serde_json::json!({"kind": "Node",
            "metadata": {"name": name, "uid": uid, "creationTimestamp": created},
            "spec": {"podCIDRs": [cidr]},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]}})
        .to_string();
        let snapshot = snapshot(&text);
        for node in snapshot.nodes.values() {
            for cidr in node.pod_cidrs.values() {
                prop_assert_eq!(*cidr, cidr.trunc());
            }
        }
    }
}

#[test]
fn a_hostile_list_yields_a_bounded_number_of_problems_and_every_flag() {
    let addresses = vec![r#"{"type":"InternalIP","address":"x"}"#; 500].join(",");
    let status = format!(r#"{{"addresses":[{addresses}]}}"#);
    let cidrs = vec![r#""x""#; 500].join(",");
    let bad = node_with(&format!(r#"{{"podCIDRs":[{cidrs}]}}"#), &status);
    let one = snapshot(&bad);
    assert_eq!(one.problems.len(), 2 * MAX_PROBLEMS_OF_PART);
    assert!(one.problems.iter().any(|problem| problem.field.starts_with("spec.podCIDRs")));
    assert!(one.nodes.values().all(|node| node.unreadable_pod_cidr));

    let nodes: Vec<String> = (0..5_000)
        .map(|n| format!(r#"{{"metadata":{{"name":"n{n}"}},"spec":{{"podCIDRs":["x","y"]}}}}"#))
        .collect();
    let many = snapshot(&format!(r#"{{"kind":"List","items":[{}]}}"#, nodes.join(",")));
    assert_eq!((many.nodes.len(), many.problems.len()), (5_000, MAX_PROBLEMS + 1));
    assert!(many.nodes.values().all(|node| node.unreadable_pod_cidr));
    let last = many.problems.last().unwrap();
    assert_eq!((last.value.as_str(), last.severity), ("9000", Severity::Error));
}
