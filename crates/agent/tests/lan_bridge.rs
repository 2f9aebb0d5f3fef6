//! A node whose pods are on the bridge to its LAN: what keeps the LAN's hosts and their answers from each other is told, or
//! opened.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use kernel::link;
use kernel::sysctl::Sysctls;
use link_name::LinkName;
use node_network::settings::Mode;
use support::pod::attach_on_lan;
use support::{Node, change, index_of, node, run};

/// Where the kernel keeps it, for each family.
const FILTERED: [&str; 2] = ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"];

/// A node on 192.0.2.0/24 and 2001:db8::/64, with slices of both for the pods on its bridge.
fn on_bridge() -> Node {
    let mut on_lan = Node::new();
    let br0 = LinkName::new("br0").unwrap();
    change(|batch, _| link::create_bridge(batch, &br0, [2, 0, 0, 0, 0, 7], 1500, true));
    change(|batch, _| link::set_master(batch, index_of("eth0"), index_of("br0")));
    on_lan.settings.mode = Mode::L2;
    on_lan.settings.bridge = Some(br0);
    on_lan.settings.lan.subnets = ["192.0.2.0/24", "2001:db8::/64"].map(|net| net.parse().unwrap()).to_vec();
    let slices = ["192.0.2.128/28", "2001:db8::1:0/112"];
    on_lan.write_nodes(&[node("node1", &slices, &["192.0.2.11", "2001:db8::11"])]);
    on_lan
}

fn told(node: &Node) -> Vec<String> {
    let state = node.pass();
    let of_bridge = state.conditions.iter().filter(|condition| condition.code == "bridge-unfiltered");
    of_bridge.map(|condition| condition.message.clone()).collect()
}

#[test]
fn a_bridge_whose_frames_pass_by_all_rules_is_told_with_the_remedy() {
    let node = on_bridge();
    let sysctls = Sysctls::default();
    // A kernel without br_netfilter has no such keys; they are told of as absent.
    let loaded = sysctls.read(FILTERED[0]).unwrap().is_some();
    if loaded {
        FILTERED.iter().for_each(|key| sysctls.write(key, "1").unwrap());
        assert_eq!(told(&node), [""; 0]);
        sysctls.write(FILTERED[1], "0").unwrap();
        let only = told(&node);
        assert!(only.len() == 1 && only[0].contains("bridge-nf-call-ip6tables is 0"), "{only:?}");
        assert!(only[0].contains("set it to 1, or use mode l2-routed"), "{only:?}");
    } else {
        let both = told(&node);
        assert_eq!(both.len(), 2, "{both:?}");
        assert!(
            both[0].contains("bridge-nf-call-iptables is absent") && both[0].contains("load br_netfilter")
        );
    }
}

#[test]
fn chains_that_drop_let_neighbour_discovery_and_broadcasts_of_the_lan_through() {
    let node = on_bridge();
    for iptables in ["iptables", "ip6tables"] {
        run(iptables, &["-P", "FORWARD", "DROP"]);
    }
    node.pass();
    let [v4, v6] = ["iptables", "ip6tables"].map(|iptables| run(iptables, &["-S", "FORWARD"]));
    for (rules, wanted) in [(&v4, "-d 255.255.255.255/32"), (&v4, "-d 224.0.0.0/24"), (&v6, "-d ff02::/16")] {
        assert!(rules.lines().any(|rule| rule.contains(wanted) && rule.ends_with("ACCEPT")), "{rules}");
    }
    assert!(v6.contains("-s fe80::/10") && v6.contains("-d fe80::/10"), "{v6}");
    node.assert_nothing_to_change();
    agent::uninstall(&node.settings, &node.paths(), false).unwrap();
    assert!(!run("ip6tables", &["-S", "FORWARD"]).contains("hostgw"));
}

#[test]
fn what_pods_may_say_on_the_lan_is_put_back_and_goes_with_the_pod() {
    let mut node = on_bridge();
    node.settings.lan.anti_spoof = true;
    node.pass();
    let pod = attach_on_lan(&node, "pod1", "br0");
    let guards = || run("nft", &["list", "chains", "netdev"]);
    node.pass();
    assert!(guards().contains(pod.host_link.as_str()), "{}", guards());
    run("nft", &["flush", "ruleset"]);
    node.pass();
    let listed = run("nft", &["list", "table", "netdev", "hostgw_lan"]);
    assert!(listed.contains("drop") && listed.contains(&pod.addresses[0].to_string()), "{listed}");
    change(|batch, _| link::delete(batch, index_of(pod.host_link.as_str())));
    node.pass();
    assert!(!guards().contains(pod.host_link.as_str()), "{}", guards());
}
