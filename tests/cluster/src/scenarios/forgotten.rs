//! With the runtime's socket given to the agents: a sandbox that the runtime has forgotten, so that its DEL never comes, is
//! freed by the runtime's word, and nothing that lives is touched, whatever is stopped meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::install::wait_until_rolled_out;
use crate::node::{Node, Part, RUNTIME_SOCKET};
use crate::wait::{Seen, wait_for};
use crate::workload::{PodSpec, delete_pods, wait_running};

use super::install::wait_ready;
use super::leaks::{nothing_left_over, records};
use super::node_state::{agent_memory, condition, passes, state};
use super::nodes::rebooted;
use super::reach::all_answered;
use super::traffic::under_traffic;

const LIMIT: Duration = Duration::from_secs(180);
/// The node on which it happens; the streams' client lives on it too.
const NODE: &str = "kn1";
const POD: &str = "forgotten";

pub(super) fn freed_by_the_runtimes_word(cluster: &mut Cluster) -> Outcome<String> {
    let without = agent_memory(cluster.node(NODE)?)?;
    let asks = json!({"resyncInterval": "1s", "runtime": {"socket": RUNTIME_SOCKET, "gracePeriod": "1s"}});
    cluster.chart.install_with("1", &asks)?;
    wait_until_rolled_out(cluster.api, cluster.nodes.len() as u64)?;
    let proven = proven_with_the_socket(cluster);
    if proven.is_err() {
        // What follows needs a node on which everything runs.
        let node = cluster.node_mut(NODE)?;
        node.restart(Part::Containerd)?;
        node.restart(Part::Kubelet)?;
    }
    let with = agent_memory(cluster.node(NODE)?);
    cluster.chart.install("1")?;
    let rolled_out = wait_until_rolled_out(cluster.api, cluster.nodes.len() as u64);
    let proven = proven?;
    rolled_out?;
    Ok(format!("{proven}; the agent's memory {} KiB, without the socket {without} KiB", with?))
}

fn proven_with_the_socket(cluster: &mut Cluster) -> Outcome<String> {
    PodSpec::server(POD, NODE).create(cluster.api)?;
    wait_running(cluster.api, &[POD])?;
    let mut freed = String::new();
    let traffic = under_traffic(cluster, |cluster| {
        silent_runtime_frees_nobody(cluster)?;
        freed = forgotten_sandbox_is_freed(cluster)?;
        Ok(())
    })?;
    delete_pods(cluster.api, &[POD])?;
    nothing_left_over(cluster)?;
    let rebooted = rebooted(cluster)?;
    Ok(format!("{freed}; meanwhile {traffic}; {rebooted}"))
}

/// A runtime that does not answer is told of, and everybody keeps what they hold.
fn silent_runtime_frees_nobody(cluster: &mut Cluster) -> Outcome {
    let before = attachments(cluster.node(NODE)?)?;
    let node = cluster.node_mut(NODE)?;
    node.stop(Part::Containerd)?;
    wait_for("the runtime's silence to be told", LIMIT, || condition(node, "runtime-silent", true))?;
    node.start_part(Part::Containerd)?;
    wait_for("the runtime to be heard again", LIMIT, || condition(node, "runtime-silent", false))?;
    kept(node, &before, &BTreeSet::new())
}

/// The kubelet is stopped, so that nobody asks for a DEL. The sandbox dies, which the runtime knows, and nothing is freed;
/// then it is removed behind the runtime's back, the runtime is started again, and knows nothing of it any more.
fn forgotten_sandbox_is_freed(cluster: &mut Cluster) -> Outcome<String> {
    let before = attachments(cluster.node(NODE)?)?;
    let containers = containers_of_pod(cluster.node(NODE)?)?;
    let was = wait_running(cluster.api, &[POD])?;
    let node = cluster.node_mut(NODE)?;
    node.stop(Part::Kubelet)?;
    let lost: BTreeSet<String> = before
        .iter()
        .filter(|record| containers.iter().any(|id| record.starts_with(id.as_str())))
        .cloned()
        .collect();
    if lost.len() != 1 {
        return Err(TierError::Wrong(format!("{POD} has the records {lost:?} among {before:?}")));
    }
    for id in &containers {
        ctr(node, &["tasks", "kill", "--signal", "SIGKILL", id])?;
    }
    // The runtime sees that they ended, and takes them away itself.
    wait_for("the end of the pod's processes", LIMIT, || {
        let tasks = ctr(node, &["tasks", "list", "--quiet"])?;
        let left = tasks.split_whitespace().any(|task| containers.iter().any(|id| id == task));
        Ok(if left { Seen::NotYet(tasks) } else { Seen::Yes(()) })
    })?;
    passes(node, 5)?;
    kept(node, &before, &BTreeSet::new())?;

    for id in &containers {
        ctr(node, &["containers", "delete", id])?;
    }
    for id in lost.iter().filter_map(|record| record.split(':').next()) {
        // Where there is no such entry the sandbox is a container only.
        let _ = ctr(node, &["sandboxes", "remove", "--force", id]);
    }
    node.restart(Part::Containerd)?;
    let began = Instant::now();
    wait_for("the forgotten sandbox to be freed", LIMIT, || {
        let now = attachments(node)?;
        Ok(if now.is_disjoint(&lost) {
            Seen::Yes(())
        } else {
            Seen::NotYet(format!("{now:?}; {}", state(node)?))
        })
    })?;
    let seconds = began.elapsed().as_secs_f64();
    passes(node, 5)?;
    kept(node, &before, &lost)?;

    node.start_part(Part::Kubelet)?;
    wait_ready(cluster, NODE)?;
    PodSpec::server("asks", "kn2").create(cluster.api)?;
    let pods = wait_running(cluster.api, &["asks"])?;
    // Its own pod is made anew by the kubelet.
    wait_for("the pod to have another sandbox", LIMIT, || {
        let more = attachments(cluster.node(NODE)?)?.difference(&before).count();
        Ok(if more == 1 { Seen::Yes(()) } else { Seen::NotYet(format!("{more} new attachments")) })
    })?;
    // The API tells of the one before until the kubelet has written.
    let anew = wait_for("the addresses of the pod that was made anew", LIMIT, || {
        let now = wait_running(cluster.api, &[POD])?;
        let same = now.iter().zip(&was).any(|(now, was)| now.ips == was.ips);
        Ok(if same { Seen::NotYet(format!("{:?}", now[0].ips)) } else { Seen::Yes(now) })
    })?;
    let answers = cluster.kubectl.ask("asks", &anew[0].targets())?;
    all_answered("the pod that was made anew", &answers, &[POD], &pods[0].ips)?;
    delete_pods(cluster.api, &["asks"])?;
    nothing_left_over(cluster)?;
    Ok(format!(
        "a silent runtime and a dead sandbox freed nobody; one that containerd had forgotten was freed {seconds:.1} s after \
         its restart, without a kubelet, and nobody else was"
    ))
}

/// The records of a node, as a set.
fn attachments(node: &Node) -> Outcome<BTreeSet<String>> {
    Ok(records(node)?.into_iter().collect())
}

/// An error unless what is attached is what was, without `lost`.
fn kept(node: &Node, before: &BTreeSet<String>, lost: &BTreeSet<String>) -> Outcome {
    let now = attachments(node)?;
    let expected: BTreeSet<String> = before.difference(lost).cloned().collect();
    if now == expected {
        return Ok(());
    }
    Err(TierError::Wrong(format!("attached should be {expected:?}, and is {now:?}")))
}

/// The pod's sandbox and container, by the labels that the runtime keeps.
fn containers_of_pod(node: &Node) -> Outcome<Vec<String>> {
    let filter = format!("labels.\"io.kubernetes.pod.name\"=={POD}");
    let found = ctr(node, &["containers", "list", "--quiet", &filter])?;
    Ok(found.split_whitespace().map(str::to_owned).collect())
}

fn ctr(node: &Node, arguments: &[&str]) -> Outcome<String> {
    node.run("ctr", &[&["-a", RUNTIME_SOCKET, "-n", "k8s.io"], arguments].concat())
}
