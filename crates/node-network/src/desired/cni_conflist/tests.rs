//! The conflist as the runtime finds it.

use crate::observed::{BridgeFault, LinkKind};
use crate::settings::{Chain, ClientId, DhcpSettings, LanSettings, ListenerCheck, Mode};
use crate::three_nodes::{ThreeNodes, ip, link, set_cidr};

#[test]
fn a_dual_stack_node_with_routed_pods() {
    let conflist = ThreeNodes::new().desired().own.unwrap().conflist.unwrap();
    insta::assert_snapshot!(conflist.render());
}

#[test]
fn every_option_in_bridge_mode() {
    let mut cluster = ThreeNodes::new();
    cluster.settings.mode = Mode::Bridge;
    cluster.settings.mtu = 1400;
    cluster.settings.cni.disable_gc = true;
    cluster.settings.cni.host_port_listener_check = ListenerCheck::Warn;
    cluster.settings.cni.strict_status = true;
    cluster.settings.cni.log_file = Some("/var/log/hostgw.log".to_owned());
    let conflist = cluster.desired().own.unwrap().conflist.unwrap();
    insta::assert_snapshot!(conflist.render());
}

fn classic() -> ThreeNodes {
    let mut cluster = ThreeNodes::new();
    cluster.settings.mode = Mode::Bridge;
    cluster.settings.cni.chain = Chain::Classic;
    cluster
}

#[test]
fn the_classic_chain() {
    let mut cluster = classic();
    cluster.settings.mtu = 1400;
    cluster.settings.validate().unwrap();
    insta::assert_snapshot!(cluster.desired().own.unwrap().conflist.unwrap().render());
}

#[test]
fn the_classic_chain_waits_for_pods_whose_addresses_host_local_does_not_know() {
    let mut cluster = classic();
    cluster.attached = [ip("10.244.1.5")].into();
    let desired = cluster.desired();
    assert_eq!(desired.own.unwrap().conflist, None);
    assert!(desired.conditions.iter().any(|condition| condition.code() == "chain-switch-waits"));
}

#[test]
fn ports_of_the_reference_are_pods_in_the_classic_chain_alone() {
    let mut cluster = classic();
    let mut bridge = link(7, "cni0", LinkKind::Bridge, &["10.244.1.1/24"]);
    bridge.up = true;
    let mut port = link(8, "veth1a2b3c4d", LinkKind::Veth, &[]);
    port.master = Some(7);
    cluster.observed.links.extend([(7, bridge), (8, port)]);
    assert_eq!(cluster.observed.host_facts(&cluster.settings).bridge_fault, None);
    assert!(cluster.desired().own.unwrap().conflist.is_some());
    cluster.settings.cni.chain = Chain::Hostgw;
    let fault = cluster.observed.host_facts(&cluster.settings).bridge_fault;
    assert_eq!(fault, Some(BridgeFault::ForeignPort("veth1a2b3c4d".to_owned())));
    cluster.settings.cni.chain = Chain::Classic;
    cluster.observed.links.get_mut(&8).unwrap().kind = LinkKind::Other;
    assert!(cluster.observed.host_facts(&cluster.settings).bridge_fault.is_some(), "a NIC by such a name");
}

#[test]
fn host_ports_on_localhost_are_for_routed_pods() {
    let mut cluster = ThreeNodes::new();
    cluster.settings.cni.localhost_ports = true;
    assert!(cluster.desired().own.unwrap().conflist.unwrap().render().contains(r#""localhostPorts": true"#));
    cluster.settings.mode = Mode::Bridge;
    let faults = cluster.settings.validate().unwrap_err();
    assert!(faults.iter().any(|fault| fault.field == "cni.localhostPorts"), "{faults:?}");
}

#[test]
fn a_node_without_pod_cidr_has_none() {
    let mut cluster = ThreeNodes::new();
    cluster.change("node1", |node| node.pod_cidrs = crate::PerFamily::default());
    assert_eq!(cluster.desired().own.unwrap().conflist, None);
    assert!(cluster.shown().contains("--allocate-node-cidrs"));
}

#[test]
fn pods_whose_addresses_a_dhcp_server_lends() {
    let mut cluster = ThreeNodes::new();
    cluster.settings.mode = Mode::L2Routed;
    cluster.settings.lan = LanSettings {
        subnets: vec!["192.0.2.0/24".parse().unwrap()],
        dhcp: Some(DhcpSettings { client_id: ClientId::Pod, ..DhcpSettings::default() }),
        ..LanSettings::default()
    };
    cluster.settings.validate().unwrap();
    let own = cluster.desired().own.unwrap();
    assert!(own.announce, "{}", cluster.shown());
    let conflist: serde_json::Value = serde_json::from_str(&own.conflist.unwrap().render()).unwrap();
    insta::assert_snapshot!(conflist["plugins"][0]["ipam"].to_string(), @r#"{"clientID":"pod","conflictProbe":false,"dataDir":"/run/hostgw/ipam","leaseDir":"/var/lib/hostgw/leases","subnet":"192.0.2.0/24","timeout":10,"type":"dhcp"}"#);
}

#[test]
fn beside_a_dhcp_server_ipv6_addresses_are_of_slices_or_form_themselves() {
    let ipam = |slaac: bool| {
        let mut cluster = ThreeNodes::new();
        cluster.settings.mode = Mode::L2Routed;
        cluster.settings.lan = LanSettings {
            subnets: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/48".parse().unwrap()],
            dhcp: Some(DhcpSettings::default()),
            slaac,
            ..LanSettings::default()
        };
        cluster.settings.validate().unwrap();
        // The pod CIDR of IPv4 is no slice there, whatever it is.
        cluster.change("node1", |node| set_cidr(node, "2001:db8::1:0/112"));
        let own = cluster.desired().own.unwrap();
        assert!(own.announce, "{}", cluster.shown());
        let list: serde_json::Value = serde_json::from_str(&own.conflist.unwrap().render()).unwrap();
        list["plugins"][0]["ipam"].to_string()
    };
    insta::assert_snapshot!(ipam(false), @r#"{"clientID":"container","conflictProbe":false,"dataDir":"/run/hostgw/ipam","leaseDir":"/var/lib/hostgw/leases","ranges":[[{"rangeEnd":"2001:db8::1:ffff","rangeStart":"2001:db8::1:0","subnet":"2001:db8::/48"}]],"subnet":"192.0.2.0/24","timeout":10,"type":"dhcp"}"#);
    insta::assert_snapshot!(ipam(true), @r#"{"clientID":"container","conflictProbe":false,"dataDir":"/run/hostgw/ipam","leaseDir":"/var/lib/hostgw/leases","slaac":"2001:db8::/64","subnet":"192.0.2.0/24","timeout":10,"type":"dhcp"}"#);
}

#[test]
fn a_node_whose_own_prefix_is_not_of_the_lan_has_no_pods_that_form_addresses() {
    let mut cluster = ThreeNodes::new();
    cluster.settings.mode = Mode::L2Routed;
    cluster.settings.lan = LanSettings {
        subnets: vec!["2001:db8:1::/48".parse().unwrap()],
        slaac: true,
        ..LanSettings::default()
    };
    cluster.settings.validate().unwrap();
    let own = cluster.desired().own.unwrap();
    assert!(own.conflist.is_none() && !own.announce);
    assert!(cluster.shown().contains("2001:db8::/64 of the LAN"), "{}", cluster.shown());
}
