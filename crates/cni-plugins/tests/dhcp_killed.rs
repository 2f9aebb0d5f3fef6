//! `kill -9` at system calls of an ADD and a DEL with a DHCP server: whatever comes next, a DEL, a GC or the same ADD, sets
//! it right. `HOSTGW_SWEEP=full` takes every boundary, otherwise some.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use kernel::neighbour;
use kernel::netlink::{Protocol, Socket};
use serde_json::{Value, json};
use support::dhcp_server::{BRIDGE, lan, right};
use support::node::{Node, Pod, add, addresses_of, del};
use support::plugin::Call;
use support::sweep::{Share, Sweep};
use support::tracer::{End, Victims, kill, survey, wait_for_end};

/// So many kills a sweep make a sample.
const SAMPLES: usize = 12;

/// What clears away what a killed call left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Del,
    Gc,
    Retry,
}

struct Scene {
    node: Node,
    pod: Pod,
    conf: Value,
}

impl Scene {
    fn enter(mode: &str) -> Self {
        let node = Node::enter();
        let mut conf = node.conf_with(json!({
            "mode": mode, "nodeAddresses": ["198.51.100.2"],
            "ipam": {"type": "dhcp", "ranges": null, "leaseDir": node.folder().join("leases"), "timeout": 5},
        }));
        conf[if mode == "l2-routed" { "uplink" } else { "bridge" }] = json!(BRIDGE);
        Self { node, pod: Pod::new("victim"), conf }
    }

    fn call(&self, verb: &str) -> Call {
        if verb == "GC" { Call::gc(&self.conf, &[]) } else { Call::about(verb, &self.pod, &self.conf) }
    }

    /// All that is on the node, with what it answers for, and the leases that it has.
    fn state(&self) -> Vec<String> {
        let mut state = self.node.state();
        // The address of a bridge without ports comes and goes in the kernel's own time.
        state.retain(|line| !line.contains(" table 255 "));
        let proxied = neighbour::dump(&mut Socket::open(Protocol::Route).unwrap(), true).unwrap();
        state.extend(proxied.into_iter().map(|proxied| format!("proxied {}", proxied.ip)));
        let leases = std::fs::read_dir(self.node.folder().join("leases/pods")).into_iter().flatten();
        let names = leases.map(|file| file.unwrap().file_name().into_string().unwrap());
        state.extend(names.filter(|name| name.ends_with(".json")).map(|name| format!("lease {name}")));
        state
    }

    fn clear(&self, way: Way) {
        match way {
            Way::Del => del(&self.pod, &self.conf),
            Way::Gc => self.call("GC").run().silent(),
            Way::Retry => {
                let again = self.call("ADD").run();
                // Where it had succeeded, that is for the runtime to know, by its answer.
                assert!(again.is_ok() || again.error().0 == 105, "{:?}", again.error());
                del(&self.pod, &self.conf);
            }
        }
    }
}

/// Kills `verb` at the chosen places, and lets `way` follow each time.
fn sweep(mode: &str, verb: &str, way: Way) {
    let sweep = Sweep::chosen();
    let scene = Scene::enter(mode);
    let _lan = lan(right);
    let prepare = || {
        if verb == "DEL" {
            add(&scene.pod, &scene.conf);
        }
    };
    add(&scene.pod, &scene.conf);
    del(&scene.pod, &scene.conf);
    let clean = scene.state();
    prepare();
    let (boundaries, outcome) = survey(&scene.call(verb));
    assert!(outcome.is_ok(), "{outcome:?}");
    scene.clear(way);
    assert_eq!(scene.state(), clean);
    let places: Vec<usize> = (0..boundaries.len()).collect();
    let name = format!("{mode} {verb} {way:?}");
    for at in sweep.of(&places, SAMPLES, &name, Share::ALL, |at| boundaries[*at].call) {
        prepare();
        if let End::Killed { orphan: Some(orphan) } = kill(&scene.call(verb), at, Victims::Caller) {
            wait_for_end(orphan);
        }
        scene.clear(way);
        let killed =
            format!("{verb} in mode {mode} killed at boundary {at}, then {way:?}; {}", sweep.again());
        assert_eq!(scene.state(), clean, "{killed}");
        let result = add(&scene.pod, &scene.conf);
        assert_eq!(addresses_of(&result).len(), 1, "{killed}");
        del(&scene.pod, &scene.conf);
        assert_eq!(scene.state(), clean, "{killed}");
    }
}

#[test]
fn del_follows_a_kill_of_a_call_that_asks_a_server() {
    for mode in ["l2-routed", "l2"] {
        sweep(mode, "ADD", Way::Del);
        sweep(mode, "DEL", Way::Del);
    }
}

#[test]
fn gc_follows_a_kill_of_a_call_that_asks_a_server() {
    sweep("l2-routed", "ADD", Way::Gc);
    sweep("l2", "DEL", Way::Gc);
}

#[test]
fn an_add_that_was_killed_while_it_asked_a_server_is_tried_again() {
    sweep("l2-routed", "ADD", Way::Retry);
    sweep("l2", "ADD", Way::Retry);
}
