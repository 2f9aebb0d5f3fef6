//! Services by kube-proxy on top of our network, a pod that reaches itself through its Service, and host ports.

use std::net::IpAddr;

use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::pod::PORT;
use crate::pod::ask::{Answer, Target, ask_all};
use crate::wait::{Seen, wait_for};
use crate::workload::{PODS_START, PodSpec, create_service, delete_pods, delete_service, wait_running};

use super::pods::ask_from_node;
use super::reach::all_answered;

/// A port of the nodes that nobody else uses.
pub(super) const HOST_PORT: u16 = 18_080;

pub(super) fn services_and_hairpin(cluster: &mut Cluster) -> Outcome<String> {
    prove_services(cluster, ("kn1", "kn2"), Sources::Kept, NodePorts::OfBoth)?;
    Ok("ClusterIP from both nodes, itself through its own Service, NodePort of every node from outside: TCP and UDP, \
        IPv4 and IPv6, kube-proxy with nftables"
        .to_owned())
}

/// Which source address a Service's pod sees when another pod asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sources {
    /// That pod's own.
    Kept,
    /// That of the pod's node.
    OfTheNode,
}

/// Which nodes' port of a Service is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodePorts {
    /// Of the node that has the Service's pod, and of one that has not.
    OfBoth,
    /// Of the node that has the pod alone.
    WhereThePodIs,
}

/// Services with their only pod on the first node, asked from that pod, from a pod on the second, and from outside.
pub(super) fn prove_services(
    cluster: &Cluster,
    (near, far): (&str, &str),
    sources: Sources,
    node_ports: NodePorts,
) -> Outcome {
    let api = cluster.api;
    PodSpec::server("web", near).create(api)?;
    PodSpec::server("client", far).create(api)?;
    let pods = wait_running(api, &["web", "client"])?;
    let (cluster_ips, node_port) = create_service(api, "web", false)?;
    let services: Vec<Target> = cluster_ips.iter().flat_map(|ip| Target::both(*ip, PORT)).collect();
    // kube-proxy needs a moment. From when it is there, every first packet counts.
    wait_for("kube-proxy on both nodes to know the Service", PODS_START, || {
        let mut answers = Vec::new();
        for node in [near, far] {
            for target in &services {
                answers.push(ask_from_node(cluster, node, *target)?);
            }
        }
        let silent = answers.iter().find(|answer| answer.answered.is_none());
        Ok(silent.map_or(Seen::Yes(()), |answer| Seen::NotYet(format!("{answer:?}"))))
    })?;
    let from_far = cluster.kubectl.ask("client", &services)?;
    let seen = match sources {
        Sources::Kept => pods[1].ips.clone(),
        Sources::OfTheNode => cluster.node(far)?.addresses().to_vec(),
    };
    all_answered("a pod elsewhere to the ClusterIP", &from_far, &["web"], &seen)?;
    let from_itself = cluster.kubectl.ask("web", &services)?;
    all_answered("a pod to itself through its Service", &from_itself, &["web"], &[])?;

    let mut nodes = cluster.node(near)?.addresses().to_vec();
    if node_ports == NodePorts::OfBoth {
        nodes.extend(cluster.node(far)?.addresses());
    }
    let ports: Vec<Target> = nodes.iter().flat_map(|ip| Target::both(*ip, node_port)).collect();
    all_answered("from outside to the NodePort", &ask_all(&ports), &["web"], &[])?;
    all_answered("a pod to the NodePort", &cluster.kubectl.ask("client", &ports)?, &["web"], &[])?;
    delete_service(api, "web")?;
    delete_pods(api, &["web", "client"])
}

pub(super) fn host_ports(cluster: &mut Cluster) -> Outcome<String> {
    let api = cluster.api;
    let server = PodSpec { host_port: Some(HOST_PORT), ..PodSpec::server("open", "kn1") };
    server.create(api)?;
    PodSpec::server("client", "kn2").create(api)?;
    wait_running(api, &["open", "client"])?;
    let own = cluster.node("kn1")?.addresses();
    let ports: Vec<Target> = own.iter().flat_map(|ip| Target::both(*ip, HOST_PORT)).collect();
    let outside: Vec<IpAddr> = crate::lan::addresses(crate::lan::CONTROL_PLANE).to_vec();
    all_answered("from outside to the host port", &ask_all(&ports), &["open"], &outside)?;
    all_answered(
        "a pod elsewhere to the host port",
        &cluster.kubectl.ask("client", &ports)?,
        &["open"],
        &[],
    )?;
    all_answered("a pod to its own host port", &cluster.kubectl.ask("open", &ports)?, &["open"], &[])?;
    for target in &ports {
        all_answered(
            "the node to its host port",
            &[ask_from_node(cluster, "kn1", *target)?],
            &["open"],
            &[],
        )?;
    }
    delete_pods(api, &["open"])?;
    // The port is free when the pod is gone: the node itself refuses.
    let after: Vec<Answer> = ask_all(&ports);
    if let Some(answer) = after.iter().find(|answer| answer.answered.is_some()) {
        return Err(TierError::Wrong(format!("the host port outlived its pod: {answer:?}")));
    }
    // The pod that takes it next is reached, though the old one's flows are known to conntrack.
    let next = PodSpec { host_port: Some(HOST_PORT), ..PodSpec::server("next", "kn1") };
    next.create(api)?;
    wait_running(api, &["next"])?;
    all_answered("from outside to the port's next pod", &ask_all(&ports), &["next"], &outside)?;
    delete_pods(api, &["next", "client"])?;
    Ok("from outside with its source kept, from another node's pod, from the node, from the pod itself; closed with \
        the pod, and the next pod's at once"
        .to_owned())
}
