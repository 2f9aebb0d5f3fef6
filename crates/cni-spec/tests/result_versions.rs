//! Results in every version of the specification: as rendered, and read back.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test's helper fails by panicking, as the test does")]

use std::net::IpAddr;

use cni_spec::{AttachResult, Dns, Interface, IpConfig, Route, SpecVersion};
use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::Value;

/// All that 1.1.0 can say.
fn full() -> AttachResult {
    AttachResult {
        interfaces: vec![
            Interface {
                name: "veth4f1d".into(),
                mac: Some("0a:00:00:00:00:01".into()),
                ..Interface::default()
            },
            Interface {
                name: "eth0".into(),
                mac: Some("0a:00:00:00:00:02".into()),
                mtu: Some(1500),
                sandbox: Some("/run/netns/4f1d".into()),
                socket_path: Some("/run/vhost.sock".into()),
                pci_id: Some("0000:04:00.5".into()),
            },
        ],
        ips: vec![
            ip("10.244.1.2/24", "10.244.1.1"),
            ip("fd00:1::2/64", "fd00:1::1"),
            ip("10.245.1.2/24", "10.245.1.1"),
        ],
        routes: vec![
            Route {
                mtu: Some(1400),
                advmss: Some(1360),
                priority: Some(10),
                table: Some(0),
                scope: Some(0),
                ..route("::/0", Some("fd00:1::1"))
            },
            route("0.0.0.0/0", Some("10.244.1.1")),
            route("10.96.0.0/12", None),
        ],
        dns: Dns {
            nameservers: vec!["10.96.0.10".into()],
            domain: Some("cluster.local".into()),
            search: vec!["svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        },
    }
}

fn ip(address: &str, gateway: &str) -> IpConfig {
    IpConfig {
        interface: Some(1),
        address: address.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
    }
}

fn route(dst: &str, gw: Option<&str>) -> Route {
    Route::new(dst.parse().unwrap(), gw.map(|gw| gw.parse().unwrap()))
}

/// One key a line in the order of the text, so that a snapshot's diff is readable.
fn spread(json: &str) -> String {
    serde_json::from_str::<Value>(json).unwrap();
    json.replace(",\"", ",\n\"").replace("[{", "[\n{").replace("},{", "},\n{")
}

#[test]
fn a_full_result_in_every_version() {
    for version in SpecVersion::ALL {
        insta::assert_snapshot!(format!("full_{version}"), spread(&full().to_json(version).unwrap()));
    }
}

#[test]
fn an_empty_result_in_every_version() {
    let rendered = SpecVersion::ALL.map(|version| AttachResult::default().to_json(version).unwrap());
    insta::assert_debug_snapshot!(rendered);
}

#[test]
fn what_only_1_1_says_is_not_read_from_older_results() {
    let json = br#"{"interfaces":[{"name":"eth0","mtu":1500}],"routes":[{"dst":"0.0.0.0/0","mtu":1400}]}"#;
    let old = AttachResult::from_json(json, SpecVersion::V1_0_0).unwrap();
    assert_eq!((old.interfaces[0].mtu, old.routes[0].mtu), (None, None));
    let new = AttachResult::from_json(json, SpecVersion::V1_1_0).unwrap();
    assert_eq!((new.interfaces[0].mtu, new.routes[0].mtu), (Some(1500), Some(1400)));
}

#[test]
fn a_result_that_names_its_version_is_read_in_that_version() {
    let json = br#"{"cniVersion":"0.2.0","ip4":{"ip":"10.1.0.2/24"}}"#;
    assert_eq!(AttachResult::from_json(json, SpecVersion::V1_1_0).unwrap().ips.len(), 1);
}

#[test]
fn what_the_reference_bridge_plugin_prints_is_read() {
    let json = br#"{
        "cniVersion": "0.4.0",
        "interfaces": [
            {"name": "cni0", "mac": "8e:6b:52:2b:ef:3d"},
            {"name": "veth1", "mac": "ce:91:d5:f5:32:9a"},
            {"name": "eth0", "mac": "1e:ea:5c:0c:98:45", "sandbox": "/var/run/netns/x"}
        ],
        "ips": [{"version": "4", "interface": 2, "address": "10.1.0.5/16", "gateway": "10.1.0.1"}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {}
    }"#;
    let result = AttachResult::from_json(json, SpecVersion::V0_4_0).unwrap();
    let reread: Value = serde_json::from_str(&result.to_json(SpecVersion::V0_4_0).unwrap()).unwrap();
    assert_eq!(reread, serde_json::from_slice::<Value>(json).unwrap());
}

#[test]
fn each_fault_names_the_field() {
    let refused = |version, json: &str| {
        let error = AttachResult::from_json(json.as_bytes(), version).unwrap_err();
        format!("{} {}", error.code.number(), error.msg)
    };
    let new = SpecVersion::V1_1_0;
    insta::assert_debug_snapshot!([
        refused(new, "null"),
        refused(new, r#"{"cniVersion":"7.0.0"}"#),
        refused(new, r#"{"interfaces":{}}"#),
        refused(new, r#"{"interfaces":[{}]}"#),
        refused(new, r#"{"interfaces":[{"name":"eth0","mtu":-1}]}"#),
        refused(new, r#"{"ips":[{}]}"#),
        refused(new, r#"{"ips":[{"address":"10.1.0.2"}]}"#),
        refused(new, r#"{"ips":[{"address":"10.1.0.2/24","interface":0}]}"#),
        refused(new, r#"{"ips":[{"address":"10.1.0.2/24","gateway":"x"}]}"#),
        refused(new, r#"{"routes":[{"dst":"default"}]}"#),
        refused(new, r#"{"dns":[]}"#),
        refused(SpecVersion::V0_2_0, r#"{"ip4":{}}"#),
        refused(SpecVersion::V0_2_0, r#"{"ip4":{"ip":"fd00::2/64"}}"#),
        refused(SpecVersion::V0_2_0, r#"{"ip6":{"ip":"fd00::2/64","routes":[7]}}"#),
    ]);
}

fn any_net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<u32>(), 0u8..=32).prop_map(|(bits, prefix)| (IpAddr::V4(bits.into()), prefix)),
        (any::<u128>(), 0u8..=128).prop_map(|(bits, prefix)| (IpAddr::V6(bits.into()), prefix)),
    ]
    .prop_map(|(address, prefix)| IpNet::new(address, prefix).unwrap())
}

fn any_gateway() -> impl Strategy<Value = Option<IpAddr>> {
    any::<Option<IpAddr>>().prop_map(|ip| ip.map(|ip| ip.to_canonical()))
}

fn any_text() -> impl Strategy<Value = Option<String>> {
    prop::option::of(".{1,8}")
}

prop_compose! {
    fn any_interface()(
        name in ".{0,8}", mac in any_text(), mtu in prop::option::of(1u32..), sandbox in any_text(),
        socket_path in any_text(), pci_id in any_text(),
    ) -> Interface {
        Interface { name, mac, mtu, sandbox, socket_path, pci_id }
    }
}

prop_compose! {
    fn any_route()(
        dst in any_net(), gw in any_gateway(), mtu in prop::option::of(1u32..65_536),
        advmss in prop::option::of(1u32..65_536), priority in prop::option::of(1u32..),
        table: Option<u32>, scope: Option<u8>,
    ) -> Route {
        Route { dst, gw, mtu, advmss, priority, table, scope }
    }
}

prop_compose! {
    fn any_result()(
        interfaces in prop::collection::vec(any_interface(), 0..4),
        ips in prop::collection::vec((any::<Option<usize>>(), any_net(), any_gateway()), 0..5),
        routes in prop::collection::vec(any_route(), 0..5),
        nameservers in prop::collection::vec(".{0,8}", 0..3),
        domain in any_text(),
        search in prop::collection::vec(".{0,8}", 0..3),
        options in prop::collection::vec(".{0,8}", 0..3),
    ) -> AttachResult {
        let ips = ips.into_iter().map(|(pick, address, gateway)| IpConfig {
            interface: pick.and_then(|pick| pick.checked_rem(interfaces.len())),
            address,
            gateway,
        }).collect();
        AttachResult { ips, interfaces, routes, dns: Dns { nameservers, domain, search, options } }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn rendered_then_parsed_is_what_the_version_carries(result in any_result()) {
        for version in SpecVersion::ALL {
            let json = result.to_json(version).unwrap();
            let read = AttachResult::from_json(json.as_bytes(), version).unwrap();
            prop_assert_eq!(&read, &*result.carried_by(version), "{}", version);
            prop_assert_eq!(read.to_json(version).unwrap(), json);
        }
    }

    #[test]
    fn the_newest_version_carries_everything(result in any_result()) {
        prop_assert_eq!(&*result.carried_by(SpecVersion::NEWEST), &result);
    }
}
