//! The drop-in plugin `portmap`, by each backend: reached by packets, checked, and closed again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::{SocketAddr, TcpStream};

use kernel::netns::NetNs;
use serde_json::{Value, json};
use support::chain::{call, chained, refusal, run, shown};
use support::node::{NODE_ADDRESSES, Node, Pod, ROUTER_ADDRESSES, add, addresses_of, ip, uplink};
use support::plugin::Call;
use support::ports::{SILENCE, connect, listen};

const BACKENDS: [Option<&str>; 3] = [None, Some("nftables"), Some("iptables")];

fn portmap(backend: Option<&str>, mappings: &Value, so_far: &Value) -> Value {
    let mut rest = json!({"runtimeConfig": {"portMappings": mappings}});
    if let Some(backend) = backend {
        rest["backend"] = backend.into();
    }
    chained("portmap", &rest, so_far)
}

fn web() -> Value {
    json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}])
}

fn is_closed(client: &NetNs, to: SocketAddr) -> bool {
    client.run(|| TcpStream::connect_timeout(&to, SILENCE)).unwrap().is_err()
}

/// Whatever rules there are, without counts.
fn ruleset() -> String {
    shown("nft", &["-s", "list", "ruleset"])
}

#[test]
fn a_port_works_from_outside_the_node_localhost_and_the_pod_itself_by_each_backend() {
    for backend in BACKENDS {
        for mode in ["bridge", "ptp"] {
            let node = Node::enter();
            let router = uplink(1500);
            let pod = Pod::new("web");
            let so_far = add(&pod, &node.conf(mode));
            let conf = portmap(backend, &web(), &so_far);
            let result = call("ADD", "portmap", &pod, &conf).result();
            assert_eq!(result, so_far, "the result is passed on as it was");
            call("CHECK", "portmap", &pod, &conf).silent();
            for (family, own) in addresses_of(&so_far).into_iter().enumerate() {
                let server = listen(&pod, own, 80);
                let to = SocketAddr::new(ip(NODE_ADDRESSES[family]), 8080);
                let what = format!("{backend:?} {mode} {own}");
                assert_eq!(connect(&router, to, &server), ip(ROUTER_ADDRESSES[family]), "{what}");
                connect(&node.ns, to, &server);
                connect(&pod.ns, to, &server);
                if own.is_ipv4() {
                    connect(&node.ns, "127.0.0.1:8080".parse().unwrap(), &server);
                }
            }
            call("DEL", "portmap", &pod, &conf).silent();
            for address in NODE_ADDRESSES {
                assert!(is_closed(&router, SocketAddr::new(ip(address), 8080)), "{backend:?} {mode}");
            }
            assert!(!ruleset().contains("8080"), "{}", ruleset());
            call("DEL", "portmap", &pod, &conf).silent();
        }
    }
}

#[test]
fn add_twice_is_add_once_by_each_backend() {
    for backend in BACKENDS {
        let node = Node::enter();
        let pod = Pod::new("web");
        let conf = portmap(backend, &web(), &add(&pod, &node.conf("bridge")));
        call("ADD", "portmap", &pod, &conf).result();
        let once = ruleset();
        call("ADD", "portmap", &pod, &conf).result();
        assert_eq!(ruleset().lines().count(), once.lines().count(), "{backend:?}: {}\n{once}", ruleset());
        call("CHECK", "portmap", &pod, &conf).silent();
    }
}

#[test]
fn del_needs_no_result_no_namespace_and_no_mappings() {
    for backend in BACKENDS {
        let node = Node::enter();
        let pod = Pod::new("web");
        let conf = portmap(backend, &web(), &add(&pod, &node.conf("bridge")));
        call("ADD", "portmap", &pod, &conf).result();
        let bare = json!({"cniVersion": "1.1.0", "name": conf["name"], "type": "portmap"});
        Call::about("DEL", &pod, &bare).by_name("portmap").without("CNI_NETNS").run().silent();
        assert!(!ruleset().contains("8080"), "{backend:?}: {}", ruleset());
    }
}

#[test]
fn check_sees_what_is_missing_by_each_backend() {
    let fault = |backend: Option<&str>| match backend {
        Some("iptables") => vec![
            "iptables -t nat -F CNI-HOSTPORT-DNAT",
            "iptables -t nat -F PREROUTING",
            "ip6tables -t nat -F POSTROUTING",
        ],
        _ => vec![
            "nft flush map inet hostgw_portmap any4",
            "nft flush chain inet hostgw_portmap hostports",
            "nft delete table inet hostgw_portmap",
        ],
    };
    for backend in BACKENDS {
        for fault in fault(backend) {
            let node = Node::enter();
            let pod = Pod::new("web");
            let conf = portmap(backend, &web(), &add(&pod, &node.conf("bridge")));
            call("ADD", "portmap", &pod, &conf).result();
            call("CHECK", "portmap", &pod, &conf).silent();
            run(fault);
            let (code, msg) = call("CHECK", "portmap", &pod, &conf).error();
            assert_eq!(code, 107, "{fault}: {msg}");
        }
    }
}

#[test]
fn gc_closes_what_belongs_to_no_valid_attachment_of_this_network() {
    for backend in BACKENDS {
        let node = Node::enter();
        let (kept, gone) = (Pod::new("kept"), Pod::new("gone"));
        let mapping = |port: u16| json!([{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]);
        let first = portmap(backend, &mapping(8080), &add(&kept, &node.conf("bridge")));
        let second = portmap(backend, &mapping(8081), &add(&gone, &node.conf("bridge")));
        call("ADD", "portmap", &kept, &first).result();
        call("ADD", "portmap", &gone, &second).result();
        let mut others = first.clone();
        others["name"] = "another".into();
        Call::gc(&others, &[]).by_name("portmap").run().silent();
        assert!(ruleset().contains("8080") && ruleset().contains("8081"), "{backend:?}");
        Call::gc(&first, &["kept"]).by_name("portmap").run().silent();
        assert!(ruleset().contains("8080") && !ruleset().contains("8081"), "{backend:?}: {}", ruleset());
        call("CHECK", "portmap", &kept, &first).silent();
    }
}

#[test]
fn a_port_of_a_pod_that_lives_is_refused_and_one_of_a_pod_that_is_gone_is_taken_over() {
    let node = Node::enter();
    let (first, second) = (Pod::new("first"), Pod::new("second"));
    let held = portmap(None, &web(), &add(&first, &node.conf("bridge")));
    call("ADD", "portmap", &first, &held).result();
    let wanted = portmap(None, &web(), &add(&second, &node.conf("bridge")));
    let (code, msg) = call("ADD", "portmap", &second, &wanted).error();
    assert_eq!(code, 102);
    assert!(msg.contains("8080") && msg.contains("first"), "{msg}");
    call("CHECK", "portmap", &first, &held).silent();
    // Its links die with it, and nobody runs DEL.
    Call::about("DEL", &first, &node.conf("bridge")).run().silent();
    call("ADD", "portmap", &second, &wanted).result();
    call("DEL", "portmap", &first, &held).silent();
    call("CHECK", "portmap", &second, &wanted).silent();
}

#[test]
fn what_the_reference_plugin_left_goes_with_its_container() {
    let node = Node::enter();
    let pod = Pod::new("web");
    let so_far = add(&pod, &node.conf("bridge"));
    for version in ["ip", "ip6"] {
        run(&format!(
            "nft add table {version} cni_hostport; nft add chain {version} cni_hostport hostports; \
             nft add chain {version} cni_hostport masquerading; \
             nft add rule {version} cni_hostport hostports tcp dport 8080 comment '\"web\"'; \
             nft add rule {version} cni_hostport hostports tcp dport 8081 comment '\"other\"'"
        ));
    }
    call("DEL", "portmap", &pod, &portmap(None, &web(), &so_far)).silent();
    assert!(!ruleset().contains("8080") && ruleset().contains("8081"), "{}", ruleset());
}

#[test]
fn check_takes_the_rules_that_the_reference_plugin_made_and_finds_what_is_missing_of_them() {
    for fault in
        ["", "ip cni_hostport hostports", "ip6 cni_hostport prerouting", "ip cni_hostport masquerading"]
    {
        let node = Node::enter();
        let pod = Pod::new("web");
        let so_far = add(&pod, &node.conf("bridge"));
        for own in addresses_of(&so_far) {
            let (version, target) = match own.is_ipv4() {
                true => ("ip", format!("{own}:80")),
                false => ("ip6", format!("[{own}]:80")),
            };
            // As its release 1.9 writes them.
            run(&format!(
                "nft -f - <<'END'
                table {version} cni_hostport {{
                  chain hostports {{ tcp dport 8080 dnat to {target} comment \"web\"; }}
                  chain hostip_hostports {{ }}
                  chain hostports_all {{ jump hostip_hostports; jump hostports; }}
                  chain prerouting {{ type nat hook prerouting priority dstnat; fib daddr type local jump hostports_all; }}
                  chain output {{ type nat hook output priority -100; fib daddr type local jump hostports_all; }}
                  chain masquerading {{
                    type nat hook postrouting priority srcnat
                    {version} saddr {own} {version} daddr {own} masquerade comment \"web\"
                  }}
                }}
END"
            ));
        }
        for backend in [None, Some("nftables")] {
            let outcome = |fault: &str| {
                let checked = call("CHECK", "portmap", &pod, &portmap(backend, &web(), &so_far));
                match fault {
                    "" => checked.silent(),
                    fault => assert_eq!(checked.error().0, 107, "{backend:?} {fault}"),
                }
            };
            if !fault.is_empty() {
                outcome("");
                let kept = shown("nft", &["-s", "list", "ruleset"]);
                run(&format!("nft flush chain {fault}"));
                outcome(fault);
                run(&format!("nft -f - <<'END'\nflush ruleset\n{kept}\nEND"));
            }
            outcome("");
        }
    }
}

#[test]
fn a_pod_does_not_reach_the_nodes_loopback() {
    for mode in ["bridge", "ptp"] {
        let node = Node::enter();
        let _router = uplink(1500);
        let pod = Pod::new("web");
        let so_far = add(&pod, &node.conf(mode));
        call("ADD", "portmap", &pod, &portmap(None, &web(), &so_far)).result();
        let secret = std::net::TcpListener::bind("127.0.0.1:9999").unwrap();
        // The pod may write any packet that it likes.
        pod.ns.run(|| run("ip addr del 127.0.0.1/8 dev lo; ip rule add pref 0 to 127.0.0.0/8 lookup 7; ip rule del pref 0 lookup local; ip rule add pref 10 lookup local; ip route add 127.0.0.1/32 via 10.244.1.1 dev eth0 onlink table 7; sysctl -qw net.ipv4.conf.all.route_localnet=1")).unwrap();
        assert!(is_closed(&pod.ns, secret.local_addr().unwrap()), "{mode}");
        // The same without the guard tells that the attempt is one.
        run("nft flush chain inet hostgw_portmap guard");
        assert!(!is_closed(&pod.ns, secret.local_addr().unwrap()), "{mode}");
        drop(node);
    }
}

#[test]
fn conditions_and_marks_are_those_of_the_configuration() {
    let node = Node::enter();
    let router = uplink(1500);
    let pod = Pod::new("web");
    let so_far = add(&pod, &node.conf("bridge"));
    let mut conf = portmap(None, &web(), &so_far);
    conf["conditionsV4"] = json!(["!", "-s", ROUTER_ADDRESSES[0]]);
    conf["markMasqBit"] = 5.into();
    call("ADD", "portmap", &pod, &conf).result();
    let own = addresses_of(&so_far);
    let server = listen(&pod, own[0], 80);
    assert!(is_closed(&router, SocketAddr::new(ip(NODE_ADDRESSES[0]), 8080)));
    connect(&node.ns, SocketAddr::new(ip(NODE_ADDRESSES[0]), 8080), &server);
    assert!(shown("iptables-save", &["-t", "nat"]).contains("--set-xmark 0x20/0x20"));
    // Of another network, with another mark, both work.
    let other = Pod::new("other");
    let mut second = portmap(
        Some("iptables"),
        &json!([{"hostPort": 8081, "containerPort": 80}]),
        &add(&other, &node.conf("bridge")),
    );
    second["name"] = "second".into();
    call("ADD", "portmap", &other, &second).result();
    let saved = shown("iptables-save", &["-t", "nat"]);
    assert!(saved.contains("0x20/0x20") && saved.contains("0x2000/0x2000"), "{saved}");
    call("CHECK", "portmap", &pod, &conf).silent();
}

#[test]
fn all_are_shown_as_the_node_where_that_is_wanted() {
    for backend in BACKENDS {
        let node = Node::enter();
        let router = uplink(1500);
        let pod = Pod::new("web");
        let so_far = add(&pod, &node.conf("bridge"));
        let mut conf = portmap(backend, &web(), &so_far);
        conf["masqAll"] = true.into();
        call("ADD", "portmap", &pod, &conf).result();
        let own = addresses_of(&so_far);
        let server = listen(&pod, own[0], 80);
        let seen = connect(&router, SocketAddr::new(ip(NODE_ADDRESSES[0]), 8080), &server);
        assert_ne!(seen, ip(ROUTER_ADDRESSES[0]), "{backend:?}");
    }
}

#[test]
fn each_wrong_call_gets_a_clear_error_and_leaves_nothing() {
    let node = Node::enter();
    let pod = Pod::new("web");
    let so_far = add(&pod, &node.conf("bridge"));
    let refused = |rest: Value, so_far: &Value| refusal("portmap", &pod, &rest, so_far);
    let ports = json!({"portMappings": web()});
    let refused = [
        refused(json!({"runtimeConfig": ports}), &Value::Null),
        refused(json!({"runtimeConfig": ports, "backend": "pf"}), &so_far),
        refused(json!({"runtimeConfig": ports, "conditionsV4": ["ip", "saddr", "10.0.0.1"]}), &so_far),
        refused(json!({"runtimeConfig": ports, "conditionsV4": ["-s", "nonsense"]}), &so_far),
        refused(json!({"runtimeConfig": {"portMappings": [{"hostPort": 70_000}]}}), &so_far),
    ];
    let refused: Vec<String> =
        refused.iter().map(|told| told.split(" refused the rules: ").next().unwrap().to_owned()).collect();
    insta::assert_debug_snapshot!(refused);
    assert!(!ruleset().contains("8080"), "{}", ruleset());
}
