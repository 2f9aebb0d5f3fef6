//! An ADD that fails at any stage leaves the node and the pod as they were, and what is somebody else's untouched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::os::fd::AsFd;
use std::process::Stdio;

use kernel::link::{Veth, VethEnd};
use kernel::route::{Hop, Route};
use kernel::{link, route};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount};
use rustix::thread::UnshareFlags;
use serde_json::{Value, json};
use support::assert_first_packets;
use support::node::{
    FIRST, GATEWAYS, Node, Pod, SECOND, add, addresses_of, change, check, del, foreign_veth, index_of, ip,
    name, observe,
};
use support::plugin::Call;

/// ADD that fails with `code` and `said`, after which node and pod are as before. The failure stays until it is mended:
/// it is tried twice.
fn refused(node: &Node, pod: &Pod, conf: &Value, code: u64, said: &[&str]) {
    let before = (node.state(), pod.ns.run(observe).unwrap());
    for _ in 0..2 {
        let (found, msg) = Call::about("ADD", pod, conf).run().error();
        assert_eq!(found, code, "{msg}");
        for said in said {
            assert!(msg.contains(said), "{msg}");
        }
        assert_eq!((node.state(), pod.ns.run(observe).unwrap()), before, "{msg}");
        del(pod, conf);
        assert_eq!((node.state(), pod.ns.run(observe).unwrap()), before, "DEL after: {msg}");
    }
}

/// A node on which a bridge exists, so that an ADD in bridge mode has nothing to make but the pod's own.
fn node_with_bridge() -> Node {
    let node = Node::enter();
    let pod = Pod::new("earlier");
    add(&pod, &node.conf("bridge"));
    del(&pod, &node.conf("bridge"));
    node
}

fn foreign_route(destination: &str, index: u32) {
    let hop = Hop { index: Some(index), ..Hop::default() };
    let metric = if destination.contains(':') { 1024 } else { 0 };
    let route = Route { protocol: 4, metric, hops: vec![hop], ..Route::to(destination.parse().unwrap()) };
    change(|batch, _| route::add(batch, &route));
}

#[test]
fn an_interface_that_the_pod_has_already() {
    for mode in ["ptp", "bridge"] {
        let node = node_with_bridge();
        let pod = Pod::new("first");
        pod.ns.run(|| foreign_veth("eth0", "other0")).unwrap();
        refused(
            &node,
            &pod,
            &node.conf(mode),
            101,
            &["interface `eth0` exists already", "choose another CNI_IFNAME"],
        );
    }
}

#[test]
fn a_foreign_route_to_the_pods_address() {
    for family in 0..2 {
        let node = node_with_bridge();
        foreign_veth("ext0", "ext1");
        foreign_route(["10.244.1.2/32", "fd00:10:244:1::2/128"][family], index_of("ext0"));
        let pod = Pod::new("first");
        // The bridge's pod had the first address: a full round brings it back.
        let conf = node.conf_with(json!({"runtimeConfig": {"ips": FIRST}}));
        refused(&node, &pod, &conf, 106, &["is in use", FIRST[family], "delete that route"]);
    }
}

#[test]
fn a_bridge_name_that_another_link_has() {
    let node = Node::enter();
    foreign_veth("ext0", "ext1");
    let conf = node.conf_with(json!({"mode": "bridge", "bridge": "ext0"}));
    refused(
        &node,
        &Pod::new("first"),
        &conf,
        7,
        &["`ext0` is a veth, not a bridge", "name another in `bridge`"],
    );
}

#[test]
fn a_route_that_the_kernel_refuses() {
    for (mode, route) in [
        ("ptp", json!({"dst": "10.0.0.0/8", "gw": "198.51.100.1"})),
        ("bridge", json!({"dst": "10.0.0.0/8", "gw": "198.51.100.1"})),
        ("ptp", json!({"dst": "fd00::/8", "gw": "2001:db8::1"})),
    ] {
        let node = node_with_bridge();
        let conf = node.conf_with(json!({"mode": mode, "routes": [route]}));
        let gateway = route["gw"].as_str().unwrap();
        refused(&node, &Pod::new("first"), &conf, 104, &["add route", gateway, "on eth0"]);
    }
}

#[test]
fn a_range_that_is_exhausted() {
    for mode in ["ptp", "bridge"] {
        let node = node_with_bridge();
        let conf = node.conf_with(json!({"mode": mode, "ipam": {"ranges": [
            [{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64", "rangeEnd": "fd00:10:244:1::2"}],
        ]}}));
        let (one, two) = (Pod::new("one"), Pod::new("two"));
        let result = add(&one, &conf);
        refused(
            &node,
            &two,
            &conf,
            100,
            &["fd00:10:244:1::1-fd00:10:244:1::2", "all 1 are taken", "delete pods"],
        );
        assert_first_packets(&node.ns, &GATEWAYS.map(ip), &[(&one.ns, addresses_of(&result))]);
        del(&one, &conf);
        add(&two, &conf);
    }
}

#[test]
fn an_attachment_that_is_there_already_goes_on_working() {
    for mode in ["ptp", "bridge"] {
        let node = Node::enter();
        let pod = Pod::new("first");
        let conf = node.conf(mode);
        let result = add(&pod, &conf);
        let before = node.state();
        let (code, msg) = Call::about("ADD", &pod, &conf).run().error();
        assert_eq!(code, 105);
        assert!(msg.contains("attachment first:eth0 of network `pods` exists already: run DEL"), "{msg}");
        assert_eq!(node.state(), before);
        check(&pod, &conf, &result).silent();
        assert_first_packets(&node.ns, &GATEWAYS.map(ip), &[(&pod.ns, addresses_of(&result))]);
    }
}

#[test]
fn an_address_that_another_pod_has_until_its_link_is_gone() {
    let node = Node::enter();
    let conf = node.conf_with(json!({"runtimeConfig": {"ips": [FIRST[1]]}}));
    let (other, pod) = (Pod::new("other"), Pod::new("first"));
    let result = add(&other, &conf);
    refused(
        &node,
        &pod,
        &conf,
        106,
        &["requested address fd00:10:244:1::2 is taken by other:eth0", "ask for another"],
    );
    let host = result["interfaces"][0]["name"].as_str().unwrap();
    change(|batch, _| link::delete(batch, index_of(host)));
    assert_eq!(addresses_of(&add(&pod, &conf))[1], ip(FIRST[1]));
}

#[test]
fn a_runtime_that_is_gone_before_it_is_answered() {
    for mode in ["ptp", "bridge"] {
        let node = node_with_bridge();
        let pod = Pod::new("first");
        let before = (node.state(), pod.ns.run(observe).unwrap());
        let call = Call::about("ADD", &pod, &node.conf(mode));
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = call.command().stdout(Stdio::from(writer)).spawn().unwrap();
        call.feed(&mut child);
        assert_eq!(child.wait().unwrap().code(), Some(1));
        assert_eq!((node.state(), pod.ns.run(observe).unwrap()), before);
    }
}

#[test]
fn a_link_of_the_attachments_name_is_what_an_earlier_life_left_and_is_replaced() {
    let node = Node::enter();
    let pod = Pod::new("first");
    let conf = node.conf("ptp");
    let clean = node.state();
    let result = add(&pod, &conf);
    let host = name(result["interfaces"][0]["name"].as_str().unwrap());
    del(&pod, &conf);
    assert_eq!(node.state(), clean);
    let elsewhere = Pod::new("earlier");
    let peer = name("eth0");
    let veth = Veth {
        host: VethEnd { name: &host, mac: None, netns: None },
        peer: VethEnd { name: &peer, mac: None, netns: Some(elsewhere.ns.as_fd()) },
        mtu: 1500,
        master: None,
        up: true,
    };
    change(|batch, _| link::create_veth(batch, &veth));
    let result = add(&pod, &conf);
    assert_first_packets(&node.ns, &GATEWAYS.map(ip), &[(&pod.ns, addresses_of(&result))]);
    del(&pod, &conf);
    assert_eq!(node.state(), clean);
}

#[test]
fn what_is_somebody_elses_survives_a_pods_whole_life() {
    for mode in ["ptp", "bridge"] {
        let node = node_with_bridge();
        foreign_veth("ext0", "ext1");
        for destination in ["10.244.0.0/16", "10.244.2.0/24", "fd00:10:244::/48", "fd00:10:244:2::/64"] {
            foreign_route(destination, index_of("ext0"));
        }
        let before = node.state();
        let pod = Pod::new("first");
        let conf = node.conf(mode);
        let result = add(&pod, &conf);
        assert_first_packets(&node.ns, &GATEWAYS.map(ip), &[(&pod.ns, addresses_of(&result))]);
        del(&pod, &conf);
        assert_eq!(node.state(), before);
    }
}

/// Puts a small file system of its own in the place of the node's data folder; this thread and its children alone see it.
fn mount_data_dir(node: &Node, options: &std::ffi::CStr) {
    // SAFETY: this thread gets a copy of its mounts; no memory is concerned.
    #[allow(unsafe_code, reason = "rustix marks unshare unsafe for flags that are not used here")]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)
            .expect("tests need CAP_SYS_ADMIN for a mount namespace");
    }
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
    std::fs::create_dir_all(node.data_dir()).unwrap();
    mount("tmpfs", node.data_dir(), "tmpfs", MountFlags::empty(), options).unwrap();
}

#[test]
fn a_data_folder_that_is_full() {
    let node = Node::enter();
    mount_data_dir(&node, c"size=64k,mode=700");
    let conf = node.conf("ptp");
    let (one, two) = (Pod::new("one"), Pod::new("two"));
    let result = add(&one, &conf);
    let filler = node.data_dir().join("filler");
    let fill = |size: usize| {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &vec![0; size]).is_ok() {}
    };
    fill(4096);
    fill(1);
    refused(&node, &two, &conf, 5, &["No space left on device", "free space or inodes", "`ipam.dataDir`"]);
    assert_first_packets(&node.ns, &GATEWAYS.map(ip), &[(&one.ns, addresses_of(&result))]);
    del(&one, &conf);
    std::fs::remove_file(filler).unwrap();
    assert_eq!(addresses_of(&add(&two, &conf)), SECOND.map(ip));
}

#[test]
fn a_data_folder_that_cannot_be_written_or_is_a_file() {
    let node = Node::enter();
    mount_data_dir(&node, c"size=64k,mode=700");
    let conf = node.conf("ptp");
    let pod = Pod::new("first");
    mount_remount(node.data_dir(), MountFlags::RDONLY, "").unwrap();
    let data_dir = node.data_dir().display().to_string();
    refused(&node, &pod, &conf, 5, &[&data_dir, "set `ipam.dataDir` to a folder that can be written"]);
    mount_remount(node.data_dir(), MountFlags::empty(), "").unwrap();
    add(&pod, &conf);
    let other = Pod::new("other");
    mount_remount(node.data_dir(), MountFlags::RDONLY, "").unwrap();
    let (code, msg) = Call::about("ADD", &other, &conf).run().error();
    assert_eq!((code, msg.contains("set `ipam.dataDir`")), (5, true), "{msg}");
    // The link goes, the record cannot: the runtime is told to come again, and then all is well.
    let (code, msg) = Call::about("DEL", &pod, &conf).run().error();
    assert_eq!((code, msg.contains("set `ipam.dataDir`")), (5, true), "{msg}");
    mount_remount(node.data_dir(), MountFlags::empty(), "").unwrap();
    del(&pod, &conf);
    assert_eq!(node.kept(), [""; 0]);

    let file = node.folder().join("file");
    std::fs::write(&file, "").unwrap();
    for wrong in [file.join("ipam"), file.clone()] {
        let conf = node.conf_with(json!({"ipam": {"dataDir": wrong}}));
        let (code, msg) = Call::about("ADD", &pod, &conf).run().error();
        assert_eq!(code, 5, "{msg}");
        assert!(msg.contains(file.to_str().unwrap()) && msg.contains("where a folder is expected"), "{msg}");
    }
}
