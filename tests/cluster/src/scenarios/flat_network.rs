//! Pods as hosts of the nodes' own LAN, behind routed links and on bridges: Services by kube-proxy, and hosts of the LAN that
//! know no pod CIDR.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::install::{NAMESPACE, agent_pod, wait_until_rolled_out};
use crate::lan::{CONTROL_PLANE, UPLINK, addresses, slice_of, subnets};
use crate::node::Node;
use crate::pod::PORT;
use crate::pod::ask::{Target, ask, ask_all};
use crate::pod::serve::serve;
use crate::wait::{Seen, wait_for};
use crate::workload::{PodSpec, delete_pods, wait_running};

use super::leaks::nothing_left_over;
use super::reach::all_answered;
use super::services::{HOST_PORT, NodePorts, Sources, prove_services};

const LIMIT: Duration = Duration::from_secs(180);
const CONFLIST: &str = "/etc/cni/net.d/10-hostgw.conflist";
/// The annotation that says which part of the LAN is a node's.
const SLICE: &str = "hostgw.io/lan-slice";

/// The host that has the control plane, as a server.
const HOST: &str = "lan-host";
/// The bridge to the LAN that the agents make of the nodes' links.
const BRIDGE: &str = "br0";

pub(super) fn services_and_hosts_of_the_lan(cluster: &mut Cluster) -> Outcome<String> {
    for (number, node) in (1..).zip(&cluster.nodes) {
        annotate(cluster, &node.name, &json!(slice_of(number).map(|slice| slice.to_string()).join(",")))?;
    }
    serve_on_the_lan()?;
    let lan = json!({"subnets": subnets(), "slices": "annotation"});
    let proven = behind_routed_links(cluster, &lan).and_then(|()| on_the_bridge(cluster, &lan));
    cluster.chart.install("1")?;
    wait_for_mode(cluster, "ptp")?;
    let left = cluster.nodes.iter().try_for_each(|node| leave_the_bridge(cluster, node));
    for node in &cluster.nodes {
        annotate(cluster, &node.name, &json!(null))?;
    }
    proven.and(left)?;
    Ok("by annotation each node has a slice of the LAN; behind routed links, and on bridges that the agents make of the nodes' \
        links, a host there and pods reach each other both ways by their own addresses; ClusterIP from both nodes and from the \
        pod itself, NodePort of every node from the LAN and from a pod; host ports; on bridges without br_netfilter and, but for \
        NodePorts of other nodes than the pod's, with it: TCP and UDP, IPv4 and IPv6"
        .to_owned())
}

fn behind_routed_links(cluster: &Cluster, lan: &Value) -> Outcome {
    cluster.chart.install_with("1", &json!({"mode": "l2-routed", "lan": lan}))?;
    wait_for_mode(cluster, "l2-routed")?;
    hosts_of_the_lan(cluster)?;
    // To kube-proxy, which is told the cluster's CIDRs, pods of the LAN come from outside.
    prove_services(cluster, ("kn1", "kn2"), Sources::OfTheNode, NodePorts::OfBoth)?;
    nothing_left_over(cluster)?;
    nobody_is_answered_for(cluster)
}

fn on_the_bridge(cluster: &Cluster, lan: &Value) -> Outcome {
    // Nobody is the router of this LAN.
    let uplink = json!({"link": UPLINK, "bridge": BRIDGE, "probes": addresses(CONTROL_PLANE)});
    let config = json!({"mode": "l2", "bridge": BRIDGE, "uplink": uplink, "lan": lan});
    cluster.chart.install_with("1", &config)?;
    wait_for_mode(cluster, "l2")?;
    hosts_of_the_lan(cluster)?;
    // Through the nodes' IP, forth and back, because kube-proxy puts its node in the place of these strangers.
    cluster.nodes.iter().try_for_each(|node| filter_frames(node, "0"))?;
    prove_services(cluster, ("kn1", "kn2"), Sources::OfTheNode, NodePorts::OfBoth)?;
    host_port(cluster, "kn1", Sources::OfTheNode)?;
    // Within the bridges: no bridge sends a frame back out by the port that it came in by (docs/flat-network.md).
    cluster.nodes.iter().try_for_each(|node| filter_frames(node, "1"))?;
    prove_services(cluster, ("kn2", "kn1"), Sources::OfTheNode, NodePorts::WhereThePodIs)?;
    host_port(cluster, "kn2", Sources::Kept)?;
    nothing_left_over(cluster)
}

/// Has the frames of the node's bridges pass its rules, or not: `br_netfilter` of its network namespace.
fn filter_frames(node: &Node, filtered: &str) -> Outcome {
    for program in ["iptables", "ip6tables"] {
        let write = format!("echo {filtered} > /proc/sys/net/bridge/bridge-nf-call-{program}");
        node.run("sh", &["-c", &write])?;
    }
    Ok(())
}

/// A host port that a host of the LAN asks.
fn host_port(cluster: &Cluster, node: &str, sources: Sources) -> Outcome {
    let api = cluster.api;
    PodSpec { host_port: Some(HOST_PORT), ..PodSpec::server("open", node) }.create(api)?;
    wait_running(api, &["open"])?;
    let own = cluster.node(node)?.addresses();
    let ports: Vec<Target> = own.iter().flat_map(|ip| Target::both(*ip, HOST_PORT)).collect();
    let seen = match sources {
        Sources::Kept => addresses(CONTROL_PLANE),
        Sources::OfTheNode => own,
    };
    all_answered("a host of the LAN to a host port", &ask_all(&ports), &["open"], &seen)?;
    delete_pods(api, &["open"])
}

/// Makes the node's link what it was.
fn leave_the_bridge(cluster: &Cluster, node: &Node) -> Outcome {
    let agent = agent_pod(cluster.api, &node.name)?;
    let pod = agent["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let probes = addresses(CONTROL_PLANE).map(|ip| format!("--probe={ip}"));
    let mut arguments =
        vec!["exec", "-n", NAMESPACE, &pod, "--", "/hostgw", "uplink", "leave", "--link", UPLINK];
    arguments.extend(["--confirm-within=0s", "--sysctls=/host/proc/sys"]);
    arguments.extend(probes.iter().map(String::as_str));
    cluster.kubectl.run(&arguments).map(drop)
}

/// Has the host that has the control plane answer, for as long as the tier runs.
fn serve_on_the_lan() -> Outcome {
    let [ip, _] = addresses(CONTROL_PLANE);
    thread::spawn(|| serve(HOST, PORT));
    wait_for("a server on the LAN", LIMIT, || {
        let answer = ask(Target { tcp: true, address: (ip, PORT).into() });
        Ok(answer.answered.map_or(Seen::NotYet(answer.error.unwrap_or_default()), |_| Seen::Yes(())))
    })
}

fn annotate(cluster: &Cluster, node: &str, slices: &Value) -> Outcome {
    let change = json!({"metadata": {"annotations": {SLICE: slices}}});
    cluster.api.merge(&format!("/api/v1/nodes/{node}"), &change).map(drop)
}

/// Waits until every agent runs with its new configuration, and pods will be attached by it.
fn wait_for_mode(cluster: &Cluster, mode: &str) -> Outcome {
    wait_until_rolled_out(cluster.api, cluster.nodes.len() as u64)?;
    cluster.nodes.iter().try_for_each(|node| {
        wait_for(&format!("mode {mode} on {}", node.name), LIMIT, || {
            let conflist = node.run("cat", &[CONFLIST])?;
            let there = conflist.contains(&format!("\"mode\": \"{mode}\""));
            Ok(if there { Seen::Yes(()) } else { Seen::NotYet(conflist) })
        })
    })
}

/// The first packets between a pod of each node and the host that has the control plane: it has no route but its own LAN's.
fn hosts_of_the_lan(cluster: &Cluster) -> Outcome {
    let api = cluster.api;
    PodSpec::server("one", "kn1").create(api)?;
    PodSpec::server("other", "kn2").create(api)?;
    let pods = wait_running(api, &["one", "other"])?;
    let host: Vec<IpAddr> = addresses(CONTROL_PLANE).to_vec();
    for (number, pod) in (1..).zip(&pods) {
        let slices = slice_of(number);
        if let Some(ip) = pod.ips.iter().find(|ip| !slices.iter().any(|slice| slice.contains(*ip))) {
            return Err(TierError::Wrong(format!("{} has {ip}, which is in none of {slices:?}", pod.name)));
        }
        all_answered("a host of the LAN to a pod", &ask_all(&pod.targets()), &[&pod.name], &host)?;
        let back: Vec<Target> = host.iter().flat_map(|ip| Target::both(*ip, PORT)).collect();
        let back = cluster.kubectl.ask(&pod.name, &back)?;
        all_answered("a pod to a host of the LAN", &back, &[HOST], &pod.ips)?;
    }
    let across = cluster.kubectl.ask("one", &pods[1].targets())?;
    all_answered("a pod of the LAN to one of another node", &across, &["other"], &pods[0].ips)?;
    delete_pods(api, &["one", "other"])
}

fn nobody_is_answered_for(cluster: &Cluster) -> Outcome {
    cluster.nodes.iter().try_for_each(|node| {
        wait_for(&format!("{} to answer for nobody", node.name), LIMIT, || {
            let left = node.run("ip", &["neigh", "show", "proxy"])?;
            Ok(if left.trim().is_empty() { Seen::Yes(()) } else { Seen::NotYet(left) })
        })
    })
}
