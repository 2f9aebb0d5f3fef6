//! The drop-in plugin `firewall`, by each backend: judged by packets, checked, and removed again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use kernel::netns::NetNs;
use serde_json::{Value, json};
use support::PATIENCE;
use support::chain::{call, chained, refusal, run, shown};
use support::node::{NODE_ADDRESSES, Node, Pod, ROUTER_ADDRESSES, add, addresses_of, ip, uplink};
use support::plugin::Call;
use support::ports::SILENCE;

const BACKENDS: [Option<&str>; 3] = [None, Some("nftables"), Some("iptables")];

fn firewall(backend: Option<&str>, so_far: &Value) -> Value {
    let mut rest = json!({});
    if let Some(backend) = backend {
        rest["backend"] = backend.into();
    }
    chained("firewall", &rest, so_far)
}

fn reaches(client: &NetNs, to: SocketAddr, at: &NetNs) -> bool {
    connects_within(PATIENCE, client, to, at)
}

/// Silence proves it: a rule that drops says nothing.
fn is_kept_from(client: &NetNs, to: SocketAddr, at: &NetNs) -> bool {
    !connects_within(SILENCE, client, to, at)
}

fn connects_within(patience: Duration, client: &NetNs, to: SocketAddr, at: &NetNs) -> bool {
    let server = at.run(|| std::net::TcpListener::bind(to)).unwrap().unwrap();
    client.run(|| TcpStream::connect_timeout(&server.local_addr().unwrap(), patience)).unwrap().is_ok()
}

/// A router that knows the way back, and a node that forwards nothing that nobody asked for.
fn dropping_node() -> (Node, NetNs) {
    let node = Node::enter();
    let router = uplink(1500);
    router
        .run(|| {
            run(&format!("ip route add 10.244.1.0/24 via {}", NODE_ADDRESSES[0]));
            run(&format!("ip -6 route add fd00:10:244:1::/64 via {}", NODE_ADDRESSES[1]));
        })
        .unwrap();
    run("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP");
    (node, router)
}

fn filter_rules() -> String {
    shown("iptables-save", &["-t", "filter"]) + &shown("ip6tables-save", &["-t", "filter"])
}

fn at(address: &IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(*address, port)
}

#[test]
fn what_a_pod_begins_passes_a_dropping_forward_and_what_others_begin_does_not() {
    for backend in BACKENDS {
        let (node, router) = dropping_node();
        let pod = Pod::new("web");
        let so_far = add(&pod, &node.conf("bridge"));
        let outside: Vec<IpAddr> = ROUTER_ADDRESSES.iter().map(|address| ip(address)).collect();
        for (family, own) in addresses_of(&so_far).iter().enumerate() {
            assert!(
                is_kept_from(&pod.ns, at(&outside[family], 80), &router),
                "{backend:?}: nothing is dropped"
            );
            assert!(is_kept_from(&router, at(own, 80), &pod.ns));
        }
        let conf = firewall(backend, &so_far);
        assert_eq!(call("ADD", "firewall", &pod, &conf).result(), so_far);
        call("CHECK", "firewall", &pod, &conf).silent();
        for (family, own) in addresses_of(&so_far).iter().enumerate() {
            assert!(reaches(&pod.ns, at(&outside[family], 81), &router), "{backend:?}: {}", filter_rules());
            assert!(is_kept_from(&router, at(own, 81), &pod.ns), "{backend:?}");
        }
        call("DEL", "firewall", &pod, &conf).silent();
        for address in &outside {
            assert!(is_kept_from(&pod.ns, at(address, 82), &router), "{backend:?}: {}", filter_rules());
        }
        call("DEL", "firewall", &pod, &conf).silent();
    }
}

#[test]
fn the_rules_are_the_reference_plugins_word_for_word_and_once() {
    for backend in BACKENDS {
        let node = Node::enter();
        let pod = Pod::new("web");
        let conf = firewall(backend, &add(&pod, &node.conf("bridge")));
        call("ADD", "firewall", &pod, &conf).result();
        let once = filter_rules();
        let rules: Vec<&str> = once.lines().filter(|line| line.starts_with("-A")).collect();
        insta::assert_debug_snapshot!("rules_of_one_pod", rules);
        call("ADD", "firewall", &pod, &conf).result();
        let again = filter_rules();
        let again: Vec<&str> = again.lines().filter(|line| line.starts_with("-A")).collect();
        assert_eq!(again, rules, "{backend:?}");
        // A save and a restore, as many hosts make at boot, bring back the same.
        run(
            "iptables-save > /dev/shm/hostgw-rules-$$ && iptables-restore < /dev/shm/hostgw-rules-$$; rm /dev/shm/hostgw-rules-$$",
        );
        call("CHECK", "firewall", &pod, &conf).silent();
    }
}

#[test]
fn rules_that_iptables_wrote_are_known_and_removed() {
    let node = Node::enter();
    let pod = Pod::new("web");
    let so_far = add(&pod, &node.conf("bridge"));
    let own = addresses_of(&so_far);
    for (program, address) in [("iptables", own[0]), ("ip6tables", own[1])] {
        run(&format!(
            "{program} -N CNI-FORWARD; {program} -N CNI-ADMIN; \
             {program} -I FORWARD -m comment --comment 'CNI firewall plugin rules' -j CNI-FORWARD; \
             {program} -I CNI-FORWARD -m comment --comment 'CNI firewall plugin admin overrides' -j CNI-ADMIN; \
             {program} -A CNI-FORWARD -d {address} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; \
             {program} -A CNI-FORWARD -s {address} -j ACCEPT"
        ));
    }
    let conf = firewall(None, &so_far);
    call("CHECK", "firewall", &pod, &conf).silent();
    let before = filter_rules();
    call("ADD", "firewall", &pod, &conf).result();
    assert_eq!(filter_rules().lines().count(), before.lines().count(), "{}", filter_rules());
    call("DEL", "firewall", &pod, &conf).silent();
    assert!(
        !filter_rules().contains("ACCEPT\n-A CNI-FORWARD") && !filter_rules().contains(&own[0].to_string())
    );
}

#[test]
fn del_needs_no_result_and_gc_no_del() {
    let node = Node::enter();
    let pods = ["a", "b", "c"].map(Pod::new);
    let confs: Vec<Value> = pods.iter().map(|pod| firewall(None, &add(pod, &node.conf("bridge")))).collect();
    for (pod, conf) in pods.iter().zip(&confs) {
        call("ADD", "firewall", pod, conf).result();
    }
    let own = |at: usize| addresses_of(&confs[at]["prevResult"])[0].to_string() + "/32";
    let bare = json!({"cniVersion": "1.1.0", "name": confs[0]["name"], "type": "firewall"});
    Call::about("DEL", &pods[0], &bare).by_name("firewall").without("CNI_NETNS").run().silent();
    assert!(!filter_rules().contains(&own(0)) && filter_rules().contains(&own(1)));
    Call::gc(&bare, &["c"]).by_name("firewall").run().silent();
    assert!(!filter_rules().contains(&own(1)) && filter_rules().contains(&own(2)));
    call("CHECK", "firewall", &pods[2], &confs[2]).silent();
}

#[test]
fn a_late_del_does_not_take_the_rules_of_who_has_the_address_now() {
    let node = Node::enter();
    let (old, new) = (Pod::new("old"), Pod::new("new"));
    let so_far = add(&old, &node.conf("bridge"));
    let conf = firewall(None, &so_far);
    call("ADD", "firewall", &old, &conf).result();
    call("ADD", "firewall", &new, &conf).result();
    call("DEL", "firewall", &old, &conf).silent();
    call("CHECK", "firewall", &new, &conf).silent();
}

#[test]
fn an_administrators_chain_comes_first() {
    let (node, router) = dropping_node();
    let pod = Pod::new("web");
    let mut conf = firewall(None, &add(&pod, &node.conf("bridge")));
    conf["iptablesAdminChainName"] = "MINE".into();
    call("ADD", "firewall", &pod, &conf).result();
    let outside = ip(ROUTER_ADDRESSES[0]);
    assert!(reaches(&pod.ns, at(&outside, 80), &router));
    run("iptables -A MINE -p tcp --dport 81 -j DROP");
    assert!(is_kept_from(&pod.ns, at(&outside, 81), &router));
}

#[test]
fn check_sees_each_planted_fault() {
    for fault in [
        "iptables -D FORWARD 1",
        "ip6tables -D CNI-FORWARD 1",
        "iptables -D CNI-FORWARD 2",
        "ip6tables -F CNI-FORWARD",
        "iptables -F CNI-ISOLATION-STAGE-1",
        "iptables -D CNI-ISOLATION-STAGE-2 1",
    ] {
        let node = Node::enter();
        let pod = Pod::new("web");
        let mut conf = firewall(None, &add(&pod, &node.conf("bridge")));
        conf["ingressPolicy"] = "isolated".into();
        call("ADD", "firewall", &pod, &conf).result();
        call("CHECK", "firewall", &pod, &conf).silent();
        run(fault);
        let (code, msg) = call("CHECK", "firewall", &pod, &conf).error();
        assert_eq!(code, 107, "{fault}: {msg}");
    }
}

/// Two bridges with two pods each: whether the first pod reaches each of the others.
fn assert_reached(policy: &str, backend: Option<&str>, wanted: [bool; 2]) {
    let node = Node::enter();
    let bridged = |bridge: &str, subnet: &str| {
        node.conf_with(json!({"mode": "bridge", "bridge": bridge, "name": bridge, "ipam": {"ranges": [[{"subnet": subnet}]]}}))
    };
    let confs =
        [bridged("one0", "10.1.0.0/24"), bridged("one0", "10.1.0.0/24"), bridged("two0", "10.2.0.0/24")];
    let pods = ["a", "b", "c"].map(Pod::new);
    let mut addresses = Vec::new();
    for (pod, conf) in pods.iter().zip(&confs) {
        let so_far = add(pod, conf);
        addresses.push(addresses_of(&so_far)[0]);
        let mut conf = firewall(backend, &so_far);
        conf["ingressPolicy"] = policy.into();
        call("ADD", "firewall", pod, &conf).result();
        call("ADD", "firewall", pod, &conf).result();
        call("CHECK", "firewall", pod, &conf).silent();
    }
    for (other, wanted) in [1, 2].into_iter().zip(wanted) {
        let judge = if wanted { reaches } else { is_kept_from };
        assert!(
            judge(&pods[0].ns, at(&addresses[other], 80), &pods[other].ns),
            "{policy} {backend:?} {other}"
        );
    }
}

#[test]
fn bridges_with_a_policy_are_kept_apart() {
    for backend in [None, Some("iptables")] {
        assert_reached("open", backend, [true, true]);
        assert_reached("same-bridge", backend, [true, false]);
    }
}

#[test]
fn an_isolated_bridge_drops_what_is_forwarded_among_its_own_pods() {
    let node = Node::enter();
    let pod = Pod::new("web");
    let mut conf = firewall(None, &add(&pod, &node.conf("bridge")));
    conf["ingressPolicy"] = "isolated".into();
    call("ADD", "firewall", &pod, &conf).result();
    let rules = filter_rules();
    let isolated: Vec<&str> = rules.lines().filter(|line| line.contains("ISOLATION")).collect();
    insta::assert_debug_snapshot!(isolated);
}

#[test]
fn the_first_pods_of_a_node_make_the_shared_chains_once() {
    let node = Node::enter();
    let pods: Vec<Pod> = (0..8).map(|number| Pod::new(format!("pod{number}"))).collect();
    let confs: Vec<Value> = pods
        .iter()
        .map(|pod| {
            let mut conf = firewall(None, &add(pod, &node.conf("bridge")));
            conf["ingressPolicy"] = "same-bridge".into();
            conf
        })
        .collect();
    let started: Vec<_> = pods
        .iter()
        .zip(&confs)
        .map(|(pod, conf)| Call::about("ADD", pod, conf).by_name("firewall").start())
        .collect();
    for running in started {
        running.finish().result();
    }
    let rules = filter_rules();
    let jumps =
        |to: &str| rules.lines().filter(|line| line.starts_with("-A FORWARD") && line.ends_with(to)).count();
    assert_eq!((jumps("-j CNI-FORWARD"), jumps("-j CNI-ISOLATION-STAGE-1")), (2, 2), "{rules}");
    for (pod, conf) in pods.iter().zip(&confs) {
        call("CHECK", "firewall", pod, conf).silent();
    }
}

#[test]
fn where_the_legacy_flavour_decides_the_rules_are_there() {
    let node = Node::enter();
    let router = uplink(1500);
    router.run(|| run(&format!("ip route add 10.244.1.0/24 via {}", NODE_ADDRESSES[0]))).unwrap();
    run("iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP");
    let pod = Pod::new("web");
    let conf = firewall(None, &add(&pod, &node.conf("bridge")));
    let outside = ip(ROUTER_ADDRESSES[0]);
    assert!(is_kept_from(&pod.ns, at(&outside, 80), &router));
    call("ADD", "firewall", &pod, &conf).result();
    call("CHECK", "firewall", &pod, &conf).silent();
    assert!(reaches(&pod.ns, at(&outside, 81), &router));
    let once = shown("iptables-legacy-save", &["-t", "filter"]).lines().count();
    call("ADD", "firewall", &pod, &conf).result();
    assert_eq!(shown("iptables-legacy-save", &["-t", "filter"]).lines().count(), once);
    call("DEL", "firewall", &pod, &conf).silent();
    assert!(is_kept_from(&pod.ns, at(&outside, 82), &router));
    assert_eq!(call("CHECK", "firewall", &pod, &conf).error().0, 107);
}

#[test]
fn firewalld_is_told_of_the_pods_addresses_where_it_runs() {
    let node = Node::enter();
    let (bus, sources) = support::firewalld::start(node.folder());
    let pod = Pod::new("web");
    let mut conf = firewall(None, &add(&pod, &node.conf("bridge")));
    conf["firewalldZone"] = "pods".into();
    let address = format!("unix:path={}", bus.display());
    let call = |verb| {
        Call::about(verb, &pod, &conf).by_name("firewall").with("DBUS_SYSTEM_BUS_ADDRESS", &address).run()
    };
    call("ADD").result();
    call("ADD").result();
    let held: Vec<String> = sources.lock().unwrap().iter().cloned().collect();
    assert_eq!(held, ["pods 10.244.1.2/32", "pods fd00:10:244:1::2/128"]);
    call("CHECK").silent();
    assert!(!filter_rules().contains("10.244.1.2"), "firewalld keeps the rules");
    sources.lock().unwrap().remove("pods 10.244.1.2/32");
    let (code, msg) = call("CHECK").error();
    assert!(code == 107 && msg.contains("10.244.1.2"), "{msg}");
    call("DEL").silent();
    assert!(sources.lock().unwrap().is_empty());
}

#[test]
fn sources_of_firewalld_go_with_a_del_that_is_told_nothing_and_with_gc() {
    let node = Node::enter();
    let (bus, sources) = support::firewalld::start(node.folder());
    let address = format!("unix:path={}", bus.display());
    let [kept, late, lost] = ["kept", "late", "lost"].map(Pod::new);
    let conf = |pod: &Pod| firewall(None, &add(pod, &node.conf("ptp")));
    let [of_kept, mut of_late, of_lost] = [&kept, &late, &lost].map(conf);
    let call = |verb, pod: &Pod, conf: &Value| {
        Call::about(verb, pod, conf).by_name("firewall").with("DBUS_SYSTEM_BUS_ADDRESS", &address).run()
    };
    for (pod, conf) in [(&kept, &of_kept), (&late, &of_late), (&lost, &of_lost)] {
        call("ADD", pod, conf).result();
    }
    let held = || sources.lock().unwrap().iter().cloned().collect::<Vec<String>>();
    assert_eq!(held().len(), 6);
    of_late.as_object_mut().unwrap().remove("prevResult");
    call("DEL", &late, &of_late).silent();
    assert_eq!(held().len(), 4, "{:?}", held());
    let gc = Call::gc(&of_kept, &["kept"]).by_name("firewall");
    gc.with("DBUS_SYSTEM_BUS_ADDRESS", &address).run().silent();
    assert_eq!(held(), ["trusted 10.244.1.2/32", "trusted fd00:10:244:1::2/128"]);
    call("CHECK", &kept, &of_kept).silent();
}

#[test]
fn each_wrong_call_gets_a_clear_error() {
    let node = Node::enter();
    let pod = Pod::new("web");
    let so_far = add(&pod, &node.conf("ptp"));
    let refused = |rest: Value, so_far: &Value| refusal("firewall", &pod, &rest, so_far);
    let bare = json!({"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.2/24"}]});
    insta::assert_debug_snapshot!([
        refused(json!({}), &Value::Null),
        refused(json!({"backend": "pf"}), &so_far),
        refused(json!({"backend": "firewalld"}), &so_far),
        refused(json!({"ingressPolicy": "shut"}), &so_far),
        refused(json!({"ingressPolicy": "isolated"}), &bare),
    ]);
}
