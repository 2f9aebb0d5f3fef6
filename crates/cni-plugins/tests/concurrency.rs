//! Two hundred calls at once, as when a node starts or is drained: several networks, both modes, with GC and the agent
//! in between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use support::assert_first_packets;
use support::node::{GATEWAYS, Node, Pod, addresses_of, ip};
use support::plugin::{Call, Outcome, Running};
use support::scene::Scene;

/// Calls at once, of which half are ADDs and half DELs.
const CALLS: usize = 200;

/// A configuration and the gateways of its pods.
struct Network {
    conf: Value,
    gateways: [IpAddr; 2],
}

/// Routed and bridged, two of them in one folder, one in a folder of its own, one over a bridge of its own.
fn networks(node: &Node) -> Vec<Network> {
    let other_folder = node.folder().join("run/hostgw/other");
    let network = |number: u8, patch: Value| {
        let (v4, v6) = (format!("10.24{number}.0.0/22"), format!("fd00:10:24{number}::/64"));
        let mut conf = node.conf_with(patch);
        conf["name"] = format!("network{number}").into();
        conf["ipam"]["ranges"] = json!([[{"subnet": v4}], [{"subnet": v6}]]);
        Network { conf, gateways: [ip(&format!("10.24{number}.0.1")), ip(&format!("fd00:10:24{number}::1"))] }
    };
    vec![
        network(5, json!({"mode": "ptp"})),
        network(6, json!({"mode": "bridge"})),
        network(7, json!({"mode": "ptp", "ipam": {"dataDir": other_folder}})),
        network(8, json!({"mode": "bridge", "bridge": "cni1"})),
    ]
}

/// A pod, its network's number, and what it is attached with: every second one has a host port of its own.
struct Member {
    pod: Pod,
    network: usize,
    conf: Value,
}

fn members(prefix: &str, first_port: usize, networks: &[Network]) -> Vec<Member> {
    let member = |number: usize| {
        let network = number % networks.len();
        let mut conf = networks[network].conf.clone();
        if (number / networks.len()).is_multiple_of(2) {
            conf["runtimeConfig"]["portMappings"] =
                json!([{"hostPort": first_port + number, "containerPort": 80}]);
        }
        Member { pod: Pod::new(format!("{prefix}{number}")), network, conf }
    };
    (0..CALLS / 2).map(member).collect()
}

fn start(verb: &str, members: &[Member]) -> Vec<Running> {
    members.iter().map(|member| Call::about(verb, &member.pod, &member.conf).start()).collect()
}

fn finish(running: Vec<Running>) -> Vec<Outcome> {
    running.into_iter().map(Running::finish).collect()
}

/// One after the other, so that both verbs are under way at any time.
fn mixed(added: &[Member], deleted: &[Member]) -> (Vec<Outcome>, Vec<Outcome>) {
    let pairs = added.iter().zip(deleted).map(|(one, other)| {
        (Call::about("ADD", &one.pod, &one.conf).start(), Call::about("DEL", &other.pod, &other.conf).start())
    });
    let (adds, dels): (Vec<_>, Vec<_>) = pairs.unzip();
    (finish(adds), finish(dels))
}

/// All succeeded, with addresses of their own, and the first packets of one pod of each network arrive.
fn prove(scene: &Scene, networks: &[Network], members: &[Member], outcomes: &[Outcome]) {
    let results: Vec<Value> = outcomes.iter().map(Outcome::result).collect();
    let held: BTreeSet<IpAddr> = results.iter().flat_map(addresses_of).collect();
    assert_eq!(held.len(), 2 * members.len());
    for member in [0, 1, 2, 3].map(|number| members.len() / 2 + number) {
        let Member { pod, network, .. } = &members[member];
        let pods = [(&pod.ns, addresses_of(&results[member]))];
        assert_first_packets(&scene.node.ns, &networks[*network].gateways, &pods);
    }
}

/// What pods hold, of all networks: links, map elements, routes, neighbours, files.
fn held(scene: &Scene) -> Vec<String> {
    let of_a_pod = |line: &String| {
        ["hgw", "hgi", "element of", "protocol 105", "neighbour ", "/claims/", "/records/", "pending"]
            .iter()
            .any(|sign| line.contains(sign))
    };
    let mut dump = scene.dump();
    dump.retain(|line| !line.starts_with("file "));
    dump.extend(support::scene::dump_files(&scene.node.folder().join("run/hostgw"), ""));
    dump.retain(of_a_pod);
    dump.retain(|line| !line.ends_with("table hostgw_hostport"));
    dump
}

#[test]
fn two_hundred_mixed_calls_at_once_fail_nothing_share_nothing_and_leave_nothing() {
    let scene = Scene::enter("ptp", false, false);
    let networks = networks(&scene.node);
    let (one, other) = (members("one", 10_000, &networks), members("other", 20_000, &networks));
    // The first round makes the folders, the table and the bridges, while what was never there is removed.
    let (adds, dels) = mixed(&one, &other);
    prove(&scene, &networks, &one, &adds);
    dels.iter().for_each(Outcome::silent);
    for (added, deleted) in [(&other, &one), (&one, &other)] {
        let (adds, dels) = mixed(added, deleted);
        prove(&scene, &networks, added, &adds);
        dels.iter().for_each(Outcome::silent);
    }
    finish(start("DEL", &one)).iter().for_each(Outcome::silent);
    assert_eq!(held(&scene), [""; 0]);
}

#[test]
fn gc_and_the_agent_take_nothing_from_pods_that_come_and_go_at_the_same_time() {
    let scene = Scene::enter("ptp", false, false);
    let networks = networks(&scene.node);
    let (one, other) = (members("one", 10_000, &networks), members("other", 20_000, &networks));
    let valid: Vec<&str> = one.iter().chain(&other).map(|member| member.pod.id.as_str()).collect();
    let collect =
        || networks.iter().map(|network| Call::gc(&network.conf, &valid).start()).collect::<Vec<_>>();
    prove(&scene, &networks, &one, &finish(start("ADD", &one)));
    for (added, deleted) in [(&other, &one), (&one, &other)] {
        let adds = start("ADD", added);
        let early = collect();
        let dels = start("DEL", deleted);
        let late = collect();
        scene.agent_pass();
        finish(early).iter().chain(&finish(late)).for_each(Outcome::silent);
        prove(&scene, &networks, added, &finish(adds));
        finish(dels).iter().for_each(Outcome::silent);
    }
    scene.agent_pass();
    let results = held(&scene);
    assert_eq!(results.iter().filter(|line| line.contains("/records/")).count(), CALLS / 2, "{results:?}");
    finish(start("DEL", &one)).iter().for_each(Outcome::silent);
    assert_eq!(held(&scene), [""; 0]);
}

/// The pods' ranges, as a LAN.
const LAN: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/56"];

/// Passes of the agent, one after the other, in each mode.
const PASSES: usize = 8;

/// Attaches and detaches its pods, over and over, until it is told to stop: at last they are detached.
fn come_and_go(pods: &[(Pod, Value)], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for verb in ["ADD", "DEL"] {
            let running: Vec<Running> =
                pods.iter().map(|(pod, conf)| Call::about(verb, pod, conf).start()).collect();
            finish(running).iter().for_each(|outcome| drop(outcome.answer().to_owned()));
        }
    }
}

/// What a pass sees may be gone, or another pod's of the same name, when it acts on it.
#[test]
fn passes_beside_pods_that_come_and_go_under_the_same_names_fail_nothing_in_any_mode() {
    for (mode, settings) in [
        ("ptp", json!({})),
        ("bridge", json!({})),
        ("l2", json!({"bridge": "cni0", "lan": {"antiSpoof": true, "subnets": LAN}})),
        ("l2-routed", json!({"lan": {"subnets": LAN}})),
    ] {
        let scene = Scene::enter(mode, false, false);
        scene.configure(mode, settings);
        let limits = json!({
            "ingressRate": 80_000_000, "ingressBurst": 8_000_000, "egressRate": 80_000_000, "egressBurst": 8_000_000,
        });
        let member = |number: usize| {
            let mut conf = scene.conf.clone();
            conf["runtimeConfig"] = match number % 2 {
                0 => json!({"portMappings": [{"hostPort": 10_000 + number, "containerPort": 80}]}),
                _ => json!({"bandwidth": limits}),
            };
            (Pod::new(format!("pod{number}")), conf)
        };
        let pods: Vec<_> = (0..16).map(member).collect();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for some in pods.chunks(8) {
                scope.spawn(|| come_and_go(some, &stop));
            }
            let passes = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                (0..PASSES).for_each(|_| scene.agent_pass());
            }));
            stop.store(true, Ordering::Relaxed);
            passes.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
        });
        scene.agent_pass();
        assert_eq!(held(&scene), [""; 0], "{mode}");
    }
}

#[test]
fn of_many_adds_of_one_attachment_one_succeeds_and_the_others_say_why() {
    let node = Node::enter();
    let conf = node.conf("ptp");
    for _ in 0..5 {
        let pod = Pod::new("first");
        let running: Vec<Running> = (0..10).map(|_| Call::about("ADD", &pod, &conf).start()).collect();
        let done: Vec<_> = running.into_iter().map(Running::finish).collect();
        let (succeeded, failed): (Vec<_>, Vec<_>) = done.iter().partition(|outcome| outcome.is_ok());
        assert_eq!(succeeded.len(), 1);
        for outcome in failed {
            // In progress, or there.
            let (code, msg) = outcome.error();
            assert!([11, 105].contains(&code) && msg.contains("attachment first:eth0"), "{code} {msg}");
        }
        let result = succeeded[0].result();
        assert_first_packets(&node.ns, &GATEWAYS.map(ip), &[(&pod.ns, addresses_of(&result))]);
        support::node::del(&pod, &conf);
        assert_eq!(node.kept(), [""; 0]);
    }
}
