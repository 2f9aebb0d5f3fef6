//! Thousands of Nodes that are objects only: made, kept alive and deleted over many connections at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::Api;
use crate::error::{Outcome, TierError};
use crate::wait::{Seen, wait_for};

/// Connections at once.
const CONNECTIONS: usize = 16;
/// Images that a Node tells of, as kubelets do: they make up most of its size.
const IMAGES: u32 = 40;
/// A label of all of them.
const LABEL: &str = "fleet";

/// The Nodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fleet {
    pub(super) api: Api,
    pub(super) nodes: u32,
}

impl Fleet {
    /// Makes them. The scheduler leaves them alone.
    pub(super) fn create(self) -> Outcome {
        self.for_each(|number| self.api.create("/api/v1/nodes", &node(number)).map(|_| ()))
    }

    /// Waits until each has pod CIDRs of both families.
    pub(super) fn wait_for_pod_cidrs(self, limit: Duration) -> Outcome {
        wait_for("pod CIDRs for all Nodes", limit, || {
            let nodes = self.api.list(&format!("/api/v1/nodes?resourceVersion=0&labelSelector={LABEL}"))?;
            let both =
                |node: &&Value| node["spec"]["podCIDRs"].as_array().is_some_and(|cidrs| cidrs.len() == 2);
            let given = nodes.iter().filter(both).count();
            Ok(if given == self.nodes as usize {
                Seen::Yes(())
            } else {
                Seen::NotYet(format!("{given} have them"))
            })
        })
    }

    /// Gives a Node another address of this family and tells its pod CIDR, and the time of the answer.
    pub(super) fn move_node(self, number: u32, to: Ipv4Addr) -> Outcome<(IpAddr, Instant)> {
        let [_, v6] = addresses(number);
        let change = json!({"status": {"addresses": listed(&[to.into(), v6])}});
        let changed = self.api.merge(&format!("/api/v1/nodes/{}/status", name(number)), &change)?;
        let answered = Instant::now();
        let cidr: Option<ipnet::IpNet> =
            changed["spec"]["podCIDRs"][0].as_str().and_then(|cidr| cidr.parse().ok());
        let cidr = cidr.ok_or_else(|| TierError::Wrong(format!("{} has no pod CIDR", name(number))))?;
        Ok((cidr.addr(), answered))
    }

    /// For so long, writes every Node's status once in `period_s` seconds, evenly, or as often as the API server keeps up
    /// with: on a busy machine fewer are written, and it takes no longer. Tells how many were.
    pub(super) fn heartbeats(self, length: Duration, period_s: u32) -> Outcome<u32> {
        let began = Instant::now();
        let interval = Duration::from_secs(period_s.into()) / self.nodes;
        let written = AtomicU32::new(0);
        in_turns(|turn| {
            let due = interval * turn;
            if due.max(began.elapsed()) >= length {
                return Ok(false);
            }
            thread::sleep(due.saturating_sub(began.elapsed()));
            let change = json!({"status": {"conditions": conditions(turn)}});
            self.api.merge(&format!("/api/v1/nodes/{}/status", name(turn % self.nodes)), &change)?;
            written.fetch_add(1, Ordering::Relaxed);
            Ok(true)
        })?;
        Ok(written.into_inner())
    }

    /// Deletes all at once. One request for all would be answered after the last one only, and nobody waits for so long.
    pub(super) fn delete(self) -> Outcome {
        self.for_each(|number| self.api.delete(&format!("/api/v1/nodes/{}", name(number))))
    }

    fn for_each(self, work: impl Fn(u32) -> Outcome + Sync) -> Outcome {
        in_turns(|number| {
            let is_one = number < self.nodes;
            if is_one {
                work(number)?;
            }
            Ok(is_one)
        })
    }
}

/// Does `work` for 0, 1, 2 and so on over several connections, until it says that there is no more.
fn in_turns(work: impl Fn(u32) -> Outcome<bool> + Sync) -> Outcome {
    let next = AtomicU32::new(0);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    while work(next.fetch_add(1, Ordering::Relaxed))? {}
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(TierError::Wrong("a worker ended early".to_owned())))
        })
    })
}

fn name(number: u32) -> String {
    format!("fleet-{number:05}")
}

/// Addresses on the LAN of the measured node: 172.29.0.0/16 and fd00:29::/64.
fn addresses(number: u32) -> [IpAddr; 2] {
    let [_, _, high, low] = (number + 1).to_be_bytes();
    [
        Ipv4Addr::new(172, 29, high, low).into(),
        Ipv6Addr::new(0xfd00, 0x29, 0, 0, 0, 0, 0, u16::from_be_bytes([high, low])).into(),
    ]
}

fn listed(addresses: &[IpAddr]) -> Value {
    addresses.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect()
}

/// What a kubelet says of itself; `turn` seconds after it began.
fn conditions(turn: u32) -> Value {
    let time = format!("2026-01-01T{:02}:{:02}:{:02}Z", turn / 3600 % 24, turn / 60 % 60, turn % 60);
    ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]
        .iter()
        .map(|kind| {
            json!({
                "type": kind, "status": if *kind == "Ready" { "True" } else { "False" }, "reason": "Kubelet",
                "message": "kubelet is posting its status", "lastHeartbeatTime": time,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        })
        .collect()
}

fn node(number: u32) -> Value {
    let images: Vec<Value> = (0..IMAGES)
        .map(|image| {
            let repository = format!("registry.example/project-{number}/component-{image}");
            json!({
                "names": [format!("{repository}@sha256:{image:064x}"), format!("{repository}:v1.{image}")],
                "sizeBytes": 100_000_000,
            })
        })
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name(number), "labels": {
            LABEL: "1", "kubernetes.io/hostname": name(number), "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
        }},
        "spec": {"unschedulable": true},
        "status": {
            "addresses": listed(&addresses(number)), "conditions": conditions(0), "images": images,
            "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn turns_end_with_the_first_that_finds_no_more_and_each_is_taken_once() {
        let taken = std::sync::Mutex::new(Vec::new());
        in_turns(|turn| {
            if turn < 1_000 {
                taken.lock().unwrap().push(turn);
            }
            Ok(turn < 1_000)
        })
        .unwrap();
        let mut taken = taken.into_inner().unwrap();
        taken.sort_unstable();
        assert_eq!(taken, (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn no_two_nodes_have_an_address_in_common() {
        let all: BTreeSet<IpAddr> = (0..15_000).flat_map(addresses).collect();
        assert_eq!(all.len(), 30_000);
    }
}
