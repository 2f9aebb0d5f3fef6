//! The verbs of the real program one after another, as a runtime calls them, and the packets between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use kernel::netlink::{Protocol, Socket};
use kernel::{address, link, neighbour, route};
use serde_json::json;
use support::assert_first_packets;
use support::node::{
    FIRST, GATEWAYS, Node, Pod, SECOND, add, addresses_of, change, check, del, host_link, index_of, ip,
    observe, pod_routes,
};
use support::plugin::Call;

const MODES: [&str; 2] = ["ptp", "bridge"];

#[test]
fn the_first_packet_works_each_way_in_each_family_and_mode_and_families() {
    let v4 = json!({"ranges": [[{"subnet": "10.244.1.0/24"}]]});
    let v6 = json!({"ranges": [[{"subnet": "fd00:10:244:1::/64"}]]});
    for mode in MODES {
        for (ipam, families) in [(json!({}), 0..2), (v4.clone(), 0..1), (v6.clone(), 1..2)] {
            let node = Node::enter();
            let conf = node.conf_with(json!({"mode": mode, "ipam": ipam}));
            let (one, two) = (Pod::new("one"), Pod::new("two"));
            let gateways: Vec<_> = families.clone().map(|family| ip(GATEWAYS[family])).collect();
            let first = add(&one, &conf);
            assert_eq!(
                addresses_of(&first),
                families.clone().map(|family| ip(FIRST[family])).collect::<Vec<_>>()
            );
            assert_first_packets(&node.ns, &gateways, &[(&one.ns, addresses_of(&first))]);
            let second = add(&two, &conf);
            assert_eq!(addresses_of(&second), families.map(|family| ip(SECOND[family])).collect::<Vec<_>>());
            assert_first_packets(
                &node.ns,
                &gateways,
                &[(&two.ns, addresses_of(&second)), (&one.ns, addresses_of(&first))],
            );
            for (pod, result) in [(&one, &first), (&two, &second)] {
                check(pod, &conf, result).silent();
            }
        }
    }
}

#[test]
fn a_new_pod_is_reached_at_once_at_an_address_that_another_had_before() {
    for mode in MODES {
        let node = Node::enter();
        let conf = node.conf_with(json!({"mode": mode, "ipam": {"ranges": [
            [{"subnet": "10.244.1.0/29", "rangeEnd": "10.244.1.3"}],
            [{"subnet": "fd00:10:244:1::/64", "rangeEnd": "fd00:10:244:1::3"}],
        ]}}));
        let stays = Pod::new("stays");
        let staying = add(&stays, &conf);
        for round in 0..5 {
            let pod = Pod::new(format!("round{round}"));
            let result = add(&pod, &conf);
            assert_first_packets(
                &node.ns,
                &GATEWAYS.map(ip),
                &[(&pod.ns, addresses_of(&result)), (&stays.ns, addresses_of(&staying))],
            );
            del(&pod, &conf);
        }
    }
}

#[test]
fn a_routed_pod_and_its_node_need_not_ask_for_each_other() {
    let node = Node::enter();
    let pod = Pod::new("first");
    add(&pod, &node.conf("ptp"));
    let known = || {
        let all = neighbour::dump(&mut Socket::open(Protocol::Route).unwrap(), false).unwrap();
        let permanent = all.into_iter().filter(|known| known.state == neighbour::PERMANENT);
        permanent.map(|known| (known.ip, known.mac.unwrap())).collect::<Vec<_>>()
    };
    let (of_pod, of_node) = ([0x0a, 0x58, 10, 244, 1, 2], [0x0e, 0x58, 10, 244, 1, 2]);
    assert_eq!(known(), FIRST.map(|address| (ip(address), of_pod)));
    assert_eq!(pod.ns.run(known).unwrap(), GATEWAYS.map(|gateway| (ip(gateway), of_node)));
}

#[test]
fn a_pod_whose_runtime_switched_ipv6_off_gets_it_back_on_its_interface() {
    let node = Node::enter();
    let pod = Pod::new("first");
    let switched_off = pod.ns.run(|| {
        let sysctls = kernel::sysctl::Sysctls::default();
        sysctls.write("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        sysctls.write("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    });
    switched_off.unwrap();
    let result = add(&pod, &node.conf("ptp"));
    assert_first_packets(&node.ns, &GATEWAYS.map(ip), &[(&pod.ns, addresses_of(&result))]);
}

#[test]
fn check_names_each_difference_to_what_add_left() {
    type Damage = fn(&Node, &Pod, &str);
    let remove_address: Damage = |_, pod, _| {
        pod.change(|batch, _| address::delete(batch, index_of("eth0"), "10.244.1.2/32".parse().unwrap()));
    };
    let link_down: Damage = |_, pod, _| pod.change(|batch, _| link::set_down(batch, index_of("eth0")));
    let remove_default: Damage = |_, pod, _| {
        pod.change(|batch, socket| {
            let all = route::dump(socket, route::Family::V4, route::Filter::default()).unwrap();
            route::delete(batch, all.iter().find(|route| route.destination.prefix_len() == 0).unwrap());
        });
    };
    let remove_host_route: Damage = |_, _, _| {
        let routes = pod_routes();
        change(|batch, _| {
            route::delete(batch, routes.iter().find(|r| r.destination.addr().is_ipv6()).unwrap());
        });
    };
    let host_down: Damage = |_, _, host| change(|batch, _| link::set_down(batch, index_of(host)));
    let delete_link: Damage = |_, _, host| change(|batch, _| link::delete(batch, index_of(host)));
    let other_mtu: Damage = |_, pod, _| pod.change(|batch, _| link::set_mtu(batch, index_of("eth0"), 1300));
    let other_mac: Damage =
        |_, pod, _| pod.change(|batch, _| link::set_mac(batch, index_of("eth0"), [2, 0, 0, 0, 0, 9]));
    let no_record: Damage = |node, _, _| std::fs::remove_file(node.stored("records/first:eth0")).unwrap();
    for (damage, code, said) in [
        (remove_address, 107, "address 10.244.1.2/32 is gone from `eth0`"),
        (link_down, 107, "interface `eth0` is down"),
        (remove_default, 107, "route 0.0.0.0/0 is gone from the pod"),
        (remove_host_route, 107, "the node's route to fd00:10:244:1::2 is gone"),
        (host_down, 107, "` is down; the node's route to 10.244.1.2 is gone"),
        (delete_link, 107, "interface `eth0` is gone from the pod; link `hgw"),
        (other_mtu, 107, "interface `eth0` has MTU 1300, not 1500"),
        (other_mac, 107, "interface `eth0` has another Ethernet address than 0a:58:0a:f4:01:02"),
        (no_record, 3, "attachment first:eth0 of network `pods` has no record"),
    ] {
        let node = Node::enter();
        let pod = Pod::new("first");
        let conf = node.conf("ptp");
        let result = add(&pod, &conf);
        check(&pod, &conf, &result).silent();
        damage(&node, &pod, host_link(&result));
        let (found, msg) = check(&pod, &conf, &result).error();
        assert_eq!(found, code, "{msg}");
        assert!(msg.contains(said), "{msg}");
    }
}

#[test]
fn check_of_a_bridged_pod_names_a_port_that_left_the_bridge() {
    let node = Node::enter();
    let pod = Pod::new("first");
    let conf = node.conf("bridge");
    let result = add(&pod, &conf);
    check(&pod, &conf, &result).silent();
    let host = host_link(&result);
    change(|batch, _| link::set_master(batch, index_of(host), 0));
    let (code, msg) = check(&pod, &conf, &result).error();
    assert_eq!(code, 107);
    assert!(msg.contains(&format!("link `{host}` is no port of bridge `cni0`")), "{msg}");
}

#[test]
fn check_compares_with_the_result_in_whichever_version_it_is_and_needs_one() {
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let node = Node::enter();
        let pod = Pod::new("first");
        let conf = node.conf_with(json!({"cniVersion": version}));
        let mut result = add(&pod, &conf);
        check(&pod, &conf, &result).silent();
        let (code, msg) = Call::about("CHECK", &pod, &conf).run().error();
        assert_eq!((code, msg.starts_with("`prevResult` is missing")), (7, true), "{msg}");
        result["ips"][0]["address"] = json!("10.244.1.77/32");
        let (code, msg) = check(&pod, &conf, &result).error();
        assert_eq!(code, 107);
        assert!(msg.contains("address 10.244.1.77 of prevResult is not reserved for it"), "{msg}");
    }
}

/// What somebody did between ADD and DEL, with the DEL that comes then.
type Before = fn(&Node, &Pod, Call) -> Call;

#[test]
fn del_leaves_nothing_whatever_happened_before_and_again_is_well() {
    let damages: [(&str, Before); 12] = [
        ("nothing", |_, _, del| del),
        ("no namespace given", |_, _, del| del.without("CNI_NETNS")),
        ("the namespace's path is gone", |_, _, del| del.with("CNI_NETNS", "/run/netns/gone")),
        ("the namespace's path is a file", |_, _, del| del.with("CNI_NETNS", env!("CARGO_MANIFEST_PATH"))),
        ("nonsense in the arguments", |_, _, del| del.with("CNI_ARGS", "IP=;;;x")),
        ("a result that cannot be read", |node, _, del| {
            del.reading(node.conf_with(json!({"prevResult": {"ips": [7]}})).to_string())
        }),
        ("a configuration that is wrong elsewhere", |node, _, del| {
            let wrong = json!({"ipam": {"ranges": "10.244.1.0/24"}, "mode": 7, "mtu": "x", "routes": 1});
            del.reading(node.conf_with(wrong).to_string())
        }),
        ("the link is gone", |_, _, del| {
            let links = link::dump_kind(&mut Socket::open(Protocol::Route).unwrap(), "veth").unwrap();
            change(|batch, _| link::delete(batch, links[0].index));
            del
        }),
        ("the record is empty", |node, _, del| {
            std::fs::write(node.stored("records/first:eth0"), "").unwrap();
            del
        }),
        ("the record is damaged", |node, _, del| {
            let record = node.stored("records/first:eth0");
            let bytes = std::fs::read(&record).unwrap();
            std::fs::write(record, &bytes[..bytes.len() / 2]).unwrap();
            del
        }),
        ("the record is missing", |node, _, del| {
            std::fs::remove_file(node.stored("records/first:eth0")).unwrap();
            std::fs::remove_dir_all(node.stored("claims")).unwrap();
            std::fs::create_dir(node.stored("claims")).unwrap();
            del
        }),
        ("the data folder is missing", |node, _, del| {
            std::fs::remove_dir_all(node.data_dir()).unwrap();
            del
        }),
    ];
    for mode in MODES {
        for (what, before) in damages {
            let node = Node::enter();
            let conf = node.conf(mode);
            // The bridge stays, for the next pod.
            if mode == "bridge" {
                let other = Pod::new("other");
                add(&other, &conf);
                del(&other, &conf);
            }
            let clean = node.state();
            let pod = Pod::new("first");
            let pod_before = pod.ns.run(observe).unwrap();
            add(&pod, &conf);
            let call = before(&node, &pod, Call::about("DEL", &pod, &conf));
            call.run().silent();
            assert_eq!(node.state(), clean, "{mode}: {what}");
            let pod_after = pod.ns.run(observe).unwrap();
            let gone = |line: &&String| !line.contains("route") && !line.contains("address");
            assert_eq!(
                pod_after.iter().filter(gone).count(),
                pod_before.iter().filter(gone).count(),
                "{mode}: {what}: {pod_after:?}"
            );
            call.run().silent();
            Call::about("DEL", &pod, &conf).run().silent();
            assert_eq!(node.state(), clean, "{mode}: {what}");
        }
    }
}

#[test]
fn del_of_a_pod_whose_namespace_died_first_frees_its_addresses() {
    let node = Node::enter();
    let clean = node.state();
    let conf = node.conf("ptp");
    let pod = Pod::new("first");
    add(&pod, &conf);
    let call = Call::about("DEL", &pod, &conf);
    drop(pod);
    call.run().silent();
    assert_eq!(node.state(), clean);
}

#[test]
fn del_of_what_was_never_added_is_well_and_makes_no_folder() {
    let node = Node::enter();
    del(&Pod::new("never"), &node.conf("ptp"));
    assert!(!node.data_dir().exists());
}

#[test]
fn a_second_network_of_a_pod_is_an_attachment_of_its_own() {
    let node = Node::enter();
    let pod = Pod::new("first");
    let conf = node.conf("ptp");
    let other = node.conf_with(json!({
        "name": "storage", "ipam": {"ranges": [[{"subnet": "10.99.1.0/24"}]]}, "routes": [{"dst": "10.99.0.0/16"}],
    }));
    let net1 = |verb| Call::about(verb, &pod, &other).with("CNI_IFNAME", "net1").run();
    let first = add(&pod, &conf);
    let second = net1("ADD").result();
    for (gateway, result) in [(GATEWAYS[0], &first), ("10.99.1.1", &second)] {
        assert_first_packets(&node.ns, &[ip(gateway)], &[(&pod.ns, addresses_of(result))]);
    }
    del(&pod, &conf);
    assert_first_packets(&node.ns, &[ip("10.99.1.1")], &[(&pod.ns, addresses_of(&second))]);
    net1("DEL").silent();
    assert_eq!(link::dump_kind(&mut Socket::open(Protocol::Route).unwrap(), "veth").unwrap(), []);
}

#[test]
fn status_is_silent_unless_a_ready_file_is_configured_and_missing() {
    let node = Node::enter();
    let ready_file = node.folder().join("ready");
    let status = |patch| Call::new("STATUS", &node.conf_with(patch)).run();
    status(json!({})).silent();
    let with_file = json!({"readyFile": ready_file});
    let (code, msg) = status(with_file.clone()).error();
    assert_eq!(code, 50);
    assert!(msg.contains("`readyFile`") && msg.contains(ready_file.to_str().unwrap()), "{msg}");
    std::fs::write(&ready_file, "").unwrap();
    status(with_file.clone()).silent();
    // A fault in the rest of the configuration evicts nobody.
    status(json!({"readyFile": ready_file, "ipam": 7, "mtu": "x"})).silent();
    // Neither does a range that is full.
    std::fs::remove_file(&ready_file).unwrap();
    std::fs::create_dir(&ready_file).unwrap();
    status(with_file).silent();
}

#[test]
fn a_strict_status_tells_a_full_range_a_lost_address_and_a_broken_configuration() {
    let node = Node::enter();
    let status = |patch| Call::new("STATUS", &node.conf_with(patch)).run();
    let two = json!([[{"subnet": "10.99.7.0/24", "rangeStart": "10.99.7.8", "rangeEnd": "10.99.7.9"}]]);
    let strict = json!({"strictStatus": true, "ipam": {"dataDir": node.data_dir(), "ranges": two}});
    status(strict.clone()).silent();
    let pods = [Pod::new("first"), Pod::new("second")];
    for pod in &pods {
        status(strict.clone()).silent();
        add(pod, &node.conf_with(strict.clone()));
    }
    let (code, msg) = status(strict.clone()).error();
    assert_eq!(code, 50);
    assert!(msg.contains("10.99.7.8") && msg.contains("widen the range"), "{msg}");
    // What a dead pod holds, the next ADD takes.
    change(|batch, socket| {
        let links = link::dump_kind(socket, "veth").unwrap();
        link::delete(batch, links.first().unwrap().index);
    });
    status(strict).silent();

    let (code, msg) = status(json!({"strictStatus": true, "nodeAddresses": ["192.0.2.77"]})).error();
    assert_eq!(code, 51);
    assert!(msg.contains("192.0.2.77"), "{msg}");
    let (code, _) = status(json!({"strictStatus": true, "mtu": "x"})).error();
    assert_eq!(code, 7);
    status(json!({"nodeAddresses": ["192.0.2.77"]})).silent();
}

#[test]
fn what_was_done_and_what_failed_is_logged_where_the_configuration_says() {
    let node = Node::enter();
    let pod = Pod::new("first");
    let log = node.folder().join("hostgw.log");
    let conf = node.conf_with(json!({"logFile": log}));
    add(&pod, &conf);
    Call::about("ADD", &pod, &conf).run().error();
    del(&pod, &conf);
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(
        lines,
        [
            "info ADD pods first:eth0 attached",
            "error ADD pods first:eth0 attachment first:eth0 of network `pods` exists already: run DEL for it first",
            "info DEL pods first:eth0 detached",
        ]
    );
}

#[test]
fn a_log_that_cannot_be_written_holds_nobody_and_is_told_once() {
    let node = Node::enter();
    let pod = Pod::new("first");
    let fifo = node.folder().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    for log in [fifo.to_str().unwrap(), "/proc/no/such/file", "/dev/null"] {
        let conf = node.conf_with(json!({"logFile": log, "logLevel": "debug"}));
        for verb in ["ADD", "DEL"] {
            let outcome = Call::about(verb, &pod, &conf).run();
            outcome.answer();
            let warnings = outcome.warnings();
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            let about = format!("{verb} pods first:eth0 `logFile` {log} cannot be written: ");
            assert!(warnings[0].starts_with(&about), "{warnings:?}");
        }
    }
}

#[test]
fn what_is_odd_is_told_on_standard_error_where_there_is_no_log() {
    let node = Node::enter();
    let pod = Pod::new("first");
    let odd = json!({"nodeAddresses": ["192.0.2.99"], "mtuu": 9000, "runtimeConfig": {"portMapping": []}});
    let conf = node.conf_with(odd.clone());
    let outcome = Call::about("ADD", &pod, &conf).run();
    outcome.answer();
    insta::assert_snapshot!(outcome.warnings().join("\n"), @r"
    ADD pods first:eth0 key `mtuu` is not known and ignored: was `mtu` meant?
    ADD pods first:eth0 key `portMapping` is not known and ignored: was `portMappings` meant?
    ADD pods first:eth0 `nodeAddresses`: 192.0.2.99 is no address of this node, it is ignored
    ");
    del(&pod, &conf);
    let mut quiet = node.conf_with(odd);
    quiet["logLevel"] = json!("error");
    let outcome = Call::about("ADD", &pod, &quiet).run();
    outcome.answer();
    assert_eq!(outcome.warnings(), [""; 0]);
}

#[test]
fn debug_tells_what_was_found_and_planned_and_when() {
    let node = Node::enter();
    let pod = Pod::new("first");
    let log = node.folder().join("log");
    let conf = node.conf_with(json!({"logFile": log, "logLevel": "debug", "mtu": 1400}));
    add(&pod, &conf);
    let text = std::fs::read_to_string(&log).unwrap();
    for part in [
        "debug ADD pods first:eth0 the configuration is read (after ",
        "debug ADD pods first:eth0 node: pods' mtu 1400 (after ",
        "debug ADD pods first:eth0 reserved, and planned: hg",
        "; pod: add address 10.244.1.2/32; ",
        "debug ADD pods first:eth0 answered (after ",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}
