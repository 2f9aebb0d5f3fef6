//! The plugin `bridge` by the name of the reference's, with the reference's configuration of `dhcp`, and no daemon.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::PathBuf;

use dhcp_client::{Kind, code};
use serde_json::{Value, json};
use support::assert_first_packets;
use support::dhcp_server::{BRIDGE, SERVER, lan, right};
use support::drop_in_host::{Host, link_names};
use support::node::{Pod, addresses_of, observe};

fn conf(host: &Host, patch: &Value) -> Value {
    let mut conf = host.conf(
        "bridge",
        &json!({
            "bridge": BRIDGE, "isGateway": false,
            "ipam": {
                "type": "dhcp", "daemonSocketPath": "/run/cni/dhcp.sock", "timeout": 2,
                "leaseDir": host.folder().join("leases"),
            },
        }),
    );
    for (key, value) in patch.as_object().unwrap() {
        conf[key] = value.clone();
    }
    conf
}

fn leases(host: &Host) -> Vec<PathBuf> {
    let files = std::fs::read_dir(host.folder().join("leases/net")).into_iter().flatten();
    let paths = files.map(|file| file.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|is| is == "json")).collect()
}

fn assert_nothing_left(host: &Host) {
    assert_eq!(leases(host), [] as [PathBuf; 0]);
    assert!(link_names().iter().all(|name| !name.starts_with("veth")), "{:?}", link_names());
}

#[test]
fn a_pod_of_the_references_configuration_is_a_host_of_the_lan_and_gives_its_address_back() {
    for patch in [json!({}), json!({"macspoofchk": true, "hairpinMode": true, "isDefaultGateway": false})] {
        let host = Host::enter();
        let lan = lan(right);
        let (pod, conf) = (Pod::new("pod"), conf(&host, &patch));
        let result = host.add(&pod, &conf);
        assert_eq!(result["ips"][0]["address"], "198.51.100.10/24");
        assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": SERVER.to_string()}]));
        assert_eq!(lan.hears(Kind::Request).options.get(code::CLIENT_ID), Some(&b"\0pod/net/eth0"[..]));
        assert_first_packets(&lan.ns, &[SERVER.into()], &[(&pod.ns, addresses_of(&result))]);
        host.check(&pod, &conf, &result).silent();
        host.del(&pod, &conf);
        lan.hears(Kind::Release);
        assert_nothing_left(&host);
        host.del(&pod, &conf);
    }
}

#[test]
fn silence_fails_an_add_within_its_time_and_leaves_nothing() {
    let host = Host::enter();
    let _lan = lan(|_, _| Vec::new());
    let before = observe();
    let (code, error) = host.call("ADD", &Pod::new("pod"), &conf(&host, &json!({}))).run().error();
    assert_eq!((code, error.contains("no DHCP server answered within 2 s")), (11, true), "{error}");
    assert_nothing_left(&host);
    assert_eq!(observe(), before);
}

#[test]
fn gc_gives_back_what_was_lent_to_an_attachment_that_is_not_valid() {
    let host = Host::enter();
    let lan = lan(right);
    let conf = conf(&host, &json!({}));
    let pods = ["kept", "lost"].map(Pod::new);
    for pod in &pods {
        host.add(pod, &conf);
    }
    let mut request = conf.clone();
    request["cni.dev/valid-attachments"] = json!([{"containerID": "kept", "ifname": "eth0"}]);
    host.call("GC", &pods[0], &request).run().silent();
    assert_eq!(lan.hears(Kind::Release).options.get(code::CLIENT_ID), Some(&b"\0lost/net/eth0"[..]));
    assert_eq!(leases(&host).len(), 1);
    assert_eq!(link_names().iter().filter(|name| name.starts_with("veth")).count(), 1);
}

#[test]
fn the_plugin_ptp_says_that_no_server_is_on_its_link() {
    let host = Host::enter();
    let mut conf = conf(&host, &json!({"type": "ptp"}));
    for key in ["bridge", "isGateway"] {
        conf.as_object_mut().unwrap().remove(key);
    }
    let (code, error) = host.call("ADD", &Pod::new("pod"), &conf).run().error();
    assert_eq!((code, error.contains("mode `l2-routed`")), (7, true), "{error}");
    assert_nothing_left(&host);
}
