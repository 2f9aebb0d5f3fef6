//! The plugins `bridge` and `ptp` by the names of the reference's, with `host-local`, executed as runtimes do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use kernel::link::{Veth, VethEnd};
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::nftables::{self, TableName};
use kernel::{address, link, route};
use serde_json::{Value, json};
use support::assert_first_packets;
use support::drop_in_host::{Host, link_names};
use support::node::{Pod, addresses_of, change, host_link, index_of, ip, name, observe};
use support::plugin::Call;

const GATEWAYS: [&str; 2] = ["10.1.2.1", "fd00:1:2::1"];

#[test]
fn first_packets_go_through_both_ways_in_both_families() {
    for kind in ["bridge", "ptp"] {
        let host = Host::enter();
        let conf = host.conf(kind, &json!({}));
        let pods = [Pod::new("first"), Pod::new("second")];
        let results = pods.each_ref().map(|pod| host.add(pod, &conf));
        let [a, b] = results.each_ref().map(addresses_of);
        let gateways = GATEWAYS.map(ip);
        assert_first_packets(&host.node.ns, &gateways, &[(&pods[0].ns, a), (&pods[1].ns, b)]);
        for (pod, result) in pods.iter().zip(&results) {
            host.check(pod, &conf, result).silent();
        }
        let before = observe();
        for pod in &pods {
            host.del(pod, &conf);
            host.del(pod, &conf);
        }
        assert!(host.held().is_empty());
        assert!(observe().len() < before.len());
        assert!(link_names().iter().all(|name| !name.starts_with("veth")), "{:?}", link_names());
    }
}

#[test]
fn a_result_is_what_the_reference_answers_in_every_version() {
    let host = Host::enter();
    for kind in ["bridge", "ptp"] {
        for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let pod = Pod::new(format!("{kind}-{version}"));
            let name = format!("net-{kind}-{}", version.replace('.', "-"));
            let subnets =
                if kind == "ptp" { ["10.8.0.0/24", "fd08::/64"] } else { ["10.9.0.0/24", "fd09::/64"] };
            let mut conf = host.conf(kind, &json!({"cniVersion": version, "name": name}));
            conf["ipam"]["ranges"] = json!(subnets.map(|subnet| [json!({"subnet": subnet})]));
            let result = host.add(&pod, &conf);
            assert_eq!(result["cniVersion"], version);
            if version == "1.1.0" {
                let interfaces = result["interfaces"].as_array().unwrap();
                assert_eq!(interfaces.len(), if kind == "ptp" { 2 } else { 3 });
                let keys = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
                assert_eq!(keys(interfaces.last().unwrap()), ["mac", "name", "sandbox"]);
                assert_eq!(result["ips"][0]["interface"], interfaces.len() - 1);
                assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
            } else if version < "0.3.0" {
                assert!(result["ip4"]["ip"].is_string() && result["ip6"]["gateway"].is_string(), "{result}");
            }
            host.del(&pod, &conf);
        }
    }
}

#[test]
fn a_second_add_is_refused_and_takes_nothing_from_the_first() {
    for kind in ["bridge", "ptp"] {
        let host = Host::enter();
        let conf = host.conf(kind, &json!({}));
        let pod = Pod::new("first");
        let result = host.add(&pod, &conf);
        let before = (observe(), host.held());
        assert_eq!(host.call("ADD", &pod, &conf).run().error().0, 101);
        assert_eq!((observe(), host.held()), before);
        host.check(&pod, &conf, &result).silent();
    }
}

#[test]
fn a_failing_add_leaves_nothing_behind() {
    let host = Host::enter();
    let pod = Pod::new("first");
    for (kind, ranges, routes, code) in [
        (
            "ptp",
            json!([[{"subnet": "10.1.2.0/24", "rangeEnd": "10.1.2.1", "gateway": "10.1.2.2"}]]),
            json!([]),
            0,
        ),
        // Through a gateway that is on no link.
        (
            "ptp",
            json!([[{"subnet": "10.1.2.0/24"}]]),
            json!([{"dst": "10.7.0.0/16", "gw": "192.0.2.77"}]),
            104,
        ),
        (
            "bridge",
            json!([[{"subnet": "10.1.2.0/24"}]]),
            json!([{"dst": "10.7.0.0/16", "gw": "192.0.2.77"}]),
            104,
        ),
    ] {
        let mut conf = host.conf(kind, &json!({}));
        conf["ipam"]["ranges"] = ranges;
        conf["ipam"]["routes"] = routes;
        if code == 0 {
            host.add(&pod, &conf);
            let other = Pod::new("other");
            assert_eq!(host.call("ADD", &other, &conf).run().error().0, 100);
            host.del(&pod, &conf);
        } else {
            assert_eq!(host.call("ADD", &pod, &conf).run().error().0, code);
        }
        assert!(host.held().is_empty());
        assert!(link_names().iter().all(|name| !name.starts_with("veth")), "{:?}", link_names());
    }
}

#[test]
fn a_bridge_that_holds_another_address_is_refused_unless_it_is_forced() {
    let host = Host::enter();
    let conf = host.conf("bridge", &json!({}));
    let pod = Pod::new("first");
    host.add(&pod, &conf);
    host.del(&pod, &conf);
    let mut other = host.conf("bridge", &json!({"name": "other"}));
    other["ipam"]["ranges"] = json!([[{"subnet": "10.9.9.0/24"}]]);
    let (code, msg) = host.call("ADD", &pod, &other).run().error();
    assert_eq!(code, 7);
    assert!(msg.contains("`cni0` holds 10.1.2.1/24") && msg.contains("forceAddress"), "{msg}");
    other["forceAddress"] = json!(true);
    host.add(&pod, &other);
    let cni0 = index_of("cni0");
    let held = address::dump(&mut Socket::open(Protocol::Route).unwrap()).unwrap();
    let held: Vec<String> = held
        .iter()
        .filter(|held| held.index == cni0 && held.ip.addr().is_ipv4())
        .map(|held| held.ip.to_string())
        .collect();
    assert_eq!(held, ["10.9.9.1/24"]);
}

#[test]
fn the_keys_of_a_port_take_effect_and_check_finds_each_undone() {
    let host = Host::enter();
    let conf = host.conf(
        "bridge",
        &json!({"hairpinMode": true, "portIsolation": true, "isDefaultGateway": true, "macspoofchk": true,
               "runtimeConfig": {"mac": "02:00:00:00:00:07"}, "mtu": 1400, "ipMasq": true}),
    );
    let pod = Pod::new("first");
    let result = host.add(&pod, &conf);
    let by_name =
        |name: &str| link::by_name(&mut Socket::open(Protocol::Route).unwrap(), name).unwrap().unwrap();
    let port = by_name(host_link(&result));
    assert_eq!((port.hairpin, port.isolated, port.mtu), (Some(true), Some(true), 1400));
    assert_eq!(result["interfaces"][2]["mac"], "02:00:00:00:00:07");
    let default = json!({"dst": "0.0.0.0/0", "gw": "10.1.2.1"});
    assert!(result["routes"].as_array().unwrap().contains(&default), "{result}");
    host.check(&pod, &conf, &result).silent();
    let cni0 = index_of("cni0");
    let gateway = "10.1.2.1/24".parse().unwrap();
    type Fault<'a> = &'a dyn Fn(&mut Batch);
    let faults: [(Fault<'_>, &str); 5] = [
        (&|batch| link::set_hairpin(batch, port.index, false), "back to where"),
        (&|batch| link::set_isolated(batch, port.index, false), "not isolated"),
        (&|batch| link::set_promiscuous(batch, cni0), "is promiscuous"),
        (&|batch| address::delete(batch, cni0, gateway), "address 10.1.2.1/24 is gone"),
        (&|batch| link::set_down(batch, port.index), "is down"),
    ];
    for (fault, told) in faults {
        change(|batch, _| fault(batch));
        let (code, msg) = host.check(&pod, &conf, &result).error();
        assert_eq!(code, 107);
        assert!(msg.contains(told), "{msg}");
    }
    assert_eq!(spoof_rules(), 4);
    host.del(&pod, &conf);
    assert_eq!(spoof_rules(), 0);
}

/// Rules of the table in which Ethernet addresses are checked.
fn spoof_rules() -> usize {
    let mut socket = Socket::open(Protocol::Netfilter).unwrap();
    let table = TableName::new(nftables::Family::Bridge, "nat");
    let table = nftables::observe(&mut socket, &table).unwrap();
    table.map_or(0, |table| table.chains.iter().map(|chain| chain.rules.len()).sum())
}

#[test]
fn without_ipam_a_pod_has_a_link_of_layer_2() {
    let host = Host::enter();
    let mut conf = host.conf("bridge", &json!({"isGateway": false, "bridge": "l2"}));
    conf["ipam"] = json!({});
    let pod = Pod::new("first");
    let result = host.add(&pod, &conf);
    assert_eq!(result["interfaces"].as_array().unwrap().len(), 3);
    assert!(result["ips"].is_null());
    let up = |pod: &Pod| {
        let found = pod.ns.run(|| link::by_name(&mut Socket::open(Protocol::Route).unwrap(), "eth0"));
        found.unwrap().unwrap().unwrap().is_up()
    };
    assert!(up(&pod));
    host.check(&pod, &conf, &result).silent();
    conf["disableContainerInterface"] = json!(true);
    let other = Pod::new("other");
    host.add(&other, &conf);
    assert!(!up(&other));
    for pod in [&pod, &other] {
        host.del(pod, &conf);
    }
}

#[test]
fn a_foreign_ipam_plugin_is_executed_with_the_calls_own_input() {
    let host = Host::enter();
    let seen = host.folder().join("seen");
    let script = |body: &str| {
        let path = host.bin().join("foreign");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let mut conf = host.conf("bridge", &json!({}));
    conf["ipam"] = json!({"type": "foreign", "wish": 7});
    let pod = Pod::new("first");
    let answer = r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.9/24","gateway":"10.1.2.1"}],"dns":{"domain":"example"}}"#;
    let note =
        format!("echo \"$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME\" >> {}; /bin/cat >> {0}", seen.display());
    script(&format!("{note}; if [ $CNI_COMMAND = ADD ]; then echo '{answer}'; fi"));
    let result = host.add(&pod, &conf);
    assert_eq!(result["ips"], json!([{"address": "10.1.2.9/24", "gateway": "10.1.2.1", "interface": 2}]));
    assert_eq!(result["dns"], json!({"domain": "example"}));
    host.check(&pod, &conf, &result).silent();
    host.del(&pod, &conf);
    let calls = std::fs::read_to_string(&seen).unwrap();
    for verb in ["ADD", "CHECK", "DEL"] {
        assert!(calls.contains(&format!("{verb} first eth0")), "{calls}");
    }
    assert!(calls.contains(r#""wish":7"#));
    script(r#"echo '{"code":4242,"msg":"no more","details":"try a larger one"}'; exit 1"#);
    assert_eq!(host.call("ADD", &pod, &conf).run().error(), (4242, "no more; try a larger one".to_owned()));
    script("exit 3");
    assert_eq!(host.call("ADD", &pod, &conf).run().error().0, 999);
    script("echo '{}'");
    assert_eq!(host.call("ADD", &pod, &conf).run().error().0, 7);
    conf["ipam"]["type"] = json!("absent");
    let (code, msg) = host.call("ADD", &pod, &conf).run().error();
    assert_eq!(code, 7);
    assert!(msg.contains("`absent`") && msg.contains("CNI_PATH"), "{msg}");
    assert!(link_names().iter().all(|name| !name.starts_with("veth")));
}

#[test]
fn gc_removes_link_address_and_check_of_what_is_not_valid() {
    for kind in ["bridge", "ptp"] {
        let host = Host::enter();
        let conf = host.conf(kind, &json!({"macspoofchk": true}));
        let other_network = host.conf(
            kind,
            &json!({"name": "other", "ipam": {
            "type": "static", "addresses": [{"address": "10.1.2.200/24", "gateway": "10.1.2.1"}]}}),
        );
        let [kept, gone, foreign] = ["kept", "gone", "foreign"].map(Pod::new);
        let result = host.add(&kept, &conf);
        let lost = host.add(&gone, &conf);
        let foreign_result = host.add(&foreign, &other_network);
        let gc = Call::gc(&conf, &["kept"]).by_name(if kind == "ptp" { "ptp" } else { "bridge" });
        gc.with("CNI_PATH", host.bin()).run().silent();
        host.check(&kept, &conf, &result).silent();
        let names = link_names();
        assert!(!names.iter().any(|name| name == host_link(&lost)));
        assert!(names.iter().any(|name| name == host_link(&foreign_result)));
        assert_eq!(host.held(), ["10.1.2.2", "fd00:1:2::2"]);
    }
}

#[test]
fn what_the_reference_made_is_removed_by_the_pods_end() {
    let host = Host::enter();
    let conf = host.conf("bridge", &json!({}));
    let pod = Pod::new("first");
    let (host_end, pod_end) = (name("veth1234abcd"), name("eth0"));
    let veth = Veth {
        host: VethEnd { name: &host_end, mac: None, netns: None },
        peer: VethEnd { name: &pod_end, mac: None, netns: Some(pod.ns.as_fd()) },
        mtu: 1500,
        master: None,
        up: true,
    };
    change(|batch, _| link::create_veth(batch, &veth));
    std::fs::create_dir_all(host.networks().join("net")).unwrap();
    std::fs::write(host.networks().join("net/10.1.2.7"), "first\r\neth0").unwrap();
    host.del(&pod, &conf);
    assert!(link_names().iter().all(|name| !name.starts_with("veth")), "{:?}", link_names());
    assert!(host.held().is_empty());
}

#[test]
fn gc_removes_links_of_the_reference_of_which_host_local_tells_whose_they_are() {
    for kind in ["bridge", "ptp"] {
        let host = Host::enter();
        let conf = host.conf(kind, &json!({}));
        let [kept, gone, disputed] = ["kept", "gone", "disputed"].map(Pod::new);
        let results = [&kept, &gone, &disputed].map(|pod| host.add(pod, &conf));
        // As the reference leaves them: nothing on a link tells whose it is.
        for link in results.each_ref().map(host_link) {
            change(|batch, socket| {
                link::set_alias(batch, link::by_name(socket, link).unwrap().unwrap().index, "");
            });
        }
        std::fs::create_dir_all(host.networks().join("other")).unwrap();
        for address in ["10.1.2.4", "fd00:1:2::4"] {
            std::fs::write(host.networks().join("other").join(address), "somebody\r\neth0").unwrap();
        }
        let gc = Call::gc(&conf, &["kept"]).by_name(if kind == "ptp" { "ptp" } else { "bridge" });
        gc.with("CNI_PATH", host.bin()).run().silent();
        let names = link_names();
        let has = |result| names.iter().any(|name| name == host_link(result));
        assert_eq!(results.each_ref().map(has), [true, false, true], "{kind}");
        host.check(&kept, &conf, &results[0]).silent();
        assert_eq!(host.held(), ["10.1.2.2", "fd00:1:2::2"]);
    }
}

#[test]
fn the_nodes_own_namespace_is_refused_by_every_verb() {
    let host = Host::enter();
    let conf = host.conf("bridge", &json!({}));
    let pod = Pod::new("first");
    for verb in ["ADD", "DEL", "CHECK"] {
        let mut conf = conf.clone();
        conf["prevResult"] = json!({"cniVersion": "1.1.0"});
        let own =
            format!("/proc/{}/task/{}/ns/net", std::process::id(), rustix::thread::gettid().as_raw_nonzero());
        let call = host.call(verb, &pod, &conf).with("CNI_NETNS", own);
        assert_eq!(call.run().error().0, if verb == "CHECK" { 3 } else { 8 }, "{verb}");
    }
}

#[test]
fn thirty_at_once_are_attached_without_an_error() {
    let host = Host::enter();
    let conf = host.conf("bridge", &json!({"ipMasq": true}));
    let pods: Vec<Pod> = (0..30).map(|number| Pod::new(format!("pod{number}"))).collect();
    let running: Vec<_> = pods.iter().map(|pod| host.call("ADD", pod, &conf).start()).collect();
    let mut addresses: Vec<_> =
        running.into_iter().flat_map(|running| addresses_of(&running.finish().result())).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 60);
    let running: Vec<_> = pods.iter().map(|pod| host.call("DEL", pod, &conf).start()).collect();
    running.into_iter().for_each(|running| running.finish().silent());
    assert!(host.held().is_empty());
}

#[test]
fn vlans_need_a_kernel_that_has_them_and_are_refused_by_their_key() {
    let host = Host::enter();
    let conf = host.conf("bridge", &json!({"vlan": 100, "bridge": "vbr"}));
    let pod = Pod::new("first");
    let outcome = host.call("ADD", &pod, &conf).run();
    if outcome.is_ok() {
        // This kernel has them: the gateway is in the VLAN.
        assert!(link_names().contains(&"vbr.100".to_owned()));
        host.del(&pod, &conf);
    } else {
        let (code, msg) = outcome.error();
        assert_eq!(code, 2);
        assert!(msg.contains("`vlan`") && msg.contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{msg}");
        assert!(host.held().is_empty());
    }
}

#[test]
fn a_pods_router_advertisements_are_nothing_to_the_node() {
    let host = Host::enter();
    // The node forwards no IPv6, as where pods have IPv4 alone: this is when the kernel would listen.
    let sysctls = kernel::sysctl::Sysctls::default();
    sysctls.write("net/ipv6/conf/all/forwarding", "0").unwrap();
    let mut conf = host.conf("ptp", &json!({}));
    conf["ipam"]["ranges"] = json!([[{"subnet": "10.1.2.0/24"}]]);
    conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}]);
    let result = host.add(&Pod::new("first"), &conf);
    let heard = sysctls.read(&format!("net/ipv6/conf/{}/accept_ra", host_link(&result))).unwrap();
    assert_eq!(heard.as_deref(), Some("0"));
}

#[test]
fn of_two_default_routes_the_last_networks_is_preferred() {
    let host = Host::enter();
    let pod = Pod::new("first");
    host.add(&pod, &host.conf("bridge", &json!({})));
    let mut other = host.conf("ptp", &json!({"name": "other"}));
    other["ipam"]["ranges"] = json!([[{"subnet": "10.6.6.0/24"}], [{"subnet": "fd00:6:6::/64"}]]);
    host.call("ADD", &pod, &other).with("CNI_IFNAME", "net1").run().result();
    let taken = pod.ns.run(|| route::resolve(&mut Socket::open(Protocol::Route).unwrap(), ip("192.0.2.200")));
    assert_eq!(taken.unwrap().unwrap().hops[0].gateway, Some(ip("10.6.6.1")));
}
