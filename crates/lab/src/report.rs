//! What a lab found, as the one JSON document of the contract; `schema/lab.json` describes it.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use crate::chaos::report::{ChaosFailure, ChaosReport, Churned, Flows, Outage, Repair};
pub use crate::chaos::restarts::RestartReport;
pub use crate::dhcp::{DhcpReport, Trial};
use crate::options::{Families, Fault, Mode};
pub use crate::probe::report::{ProbeKind, ProbeReport, Transport};
pub use crate::uplink::{FlowReport, UplinkReport};

/// The JSON Schema of [`Report`].
pub const SCHEMA: &str = include_str!("../schema/lab.json");
/// Version of the document; it grows with every change that a reader of an older one could stumble over.
pub const SCHEMA_VERSION: u32 = 1;

/// The whole document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    #[serde(rename = "schemaVersion")]
    pub schema_version: u32,
    /// Whether everything that was checked held.
    pub ok: bool,
    /// The lab's name.
    pub name: String,
    /// Whether the lab still runs.
    pub kept: bool,
    /// How pods were attached.
    pub mode: Mode,
    /// Which families the cluster had.
    pub family: Families,
    /// Decided the order of the probes.
    pub seed: u64,
    /// The fault that was planted, if one was.
    pub fault: Option<Fault>,
    /// The programs that were run.
    pub binaries: Binaries,
    /// The host beyond the cluster.
    pub outside: OutsideReport,
    /// Each node.
    pub nodes: Vec<NodeReport>,
    /// Each probe.
    pub probes: Vec<ProbeReport>,
    /// How fast the damage of chaos was repaired.
    pub repairs: Vec<Repair>,
    /// What else chaos brought about; absent without it.
    pub chaos: Option<ChaosReport>,
    /// What moving an uplink did to sessions over it; absent without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<UplinkReport>,
    /// What came of agents and nodes that started anew; absent without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<RestartReport>,
    /// What DHCP servers, and those who depend on them, went through; absent without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<DhcpReport>,
    /// What followed the removal of the last node; absent where no other node could tell, or the lab was kept.
    pub removed_node: Option<RemovedNode>,
    /// Whether what others had configured on the nodes is as before; absent where a fault was planted.
    pub foreign_objects: Vec<ForeignObjects>,
    /// What pods left behind on their nodes; absent where the lab was kept or a fault was planted.
    pub teardown: Vec<Teardown>,
    /// How long each step took.
    pub steps: Vec<Step>,
}

/// The programs that were run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Binaries {
    /// `hostgw`.
    pub agent: Binary,
    /// `hostgw-cni`.
    pub plugin: Binary,
}

/// A program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Binary {
    /// Where it was.
    pub path: PathBuf,
    /// What was executed, in hexadecimal.
    pub sha256: String,
}

/// The host beyond the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutsideReport {
    /// Towards these pods are masqueraded.
    pub ips: Vec<IpAddr>,
    /// Towards these they are not.
    pub unmasqueraded_ips: Vec<IpAddr>,
}

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub internal_ips: Vec<IpAddr>,
    /// Its pods' addresses.
    pub pod_cidrs: Vec<IpNet>,
    /// From the start of its agent to the appearance of the CNI configuration, in milliseconds.
    pub ready_ms: u64,
    /// Its pods.
    pub pods: Vec<PodReport>,
}

/// A pod.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PodReport {
    /// `node1/pod1`.
    pub name: String,
    /// Its addresses, as the plugin gave them.
    pub ips: Vec<IpAddr>,
    /// Its host port, UDP and TCP, if it has one.
    pub host_port: Option<u16>,
    /// Time of all plugins' ADD, in microseconds, as the runtime waited for it.
    pub add_us: u64,
}

/// What followed the removal of the last node from every list of nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemovedNode {
    /// The node.
    pub name: String,
    /// Whether every other node lost its routes and kept all others, and the removed node itself lost nothing.
    pub ok: bool,
    /// When the last of its routes was gone from the others, in milliseconds after the removal.
    pub routes_absent_ms: Option<u64>,
    /// What was wrong.
    pub errors: Vec<String>,
}

/// What others had configured on a node before the agent came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ForeignObjects {
    /// The node.
    pub node: String,
    /// Whether all of it is as it was.
    pub ok: bool,
    /// How many objects were compared.
    pub compared: usize,
    /// What is gone or changed.
    pub changed: Vec<String>,
}

/// What was left once a node's pods were gone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Teardown {
    /// The node.
    pub node: String,
    /// Whether nothing was.
    pub ok: bool,
    /// Links, routes and files that the pods left.
    pub left: Vec<String>,
}

/// A step of the lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Which.
    pub step: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

impl Report {
    /// Whether all that was checked held. A lab that proved nothing is no success.
    #[must_use]
    pub fn verdict(&self) -> bool {
        (!self.probes.is_empty() || self.uplink.is_some())
            && self.uplink.as_ref().is_none_or(UplinkReport::ok)
            && self.dhcp.as_ref().is_none_or(DhcpReport::ok)
            && self.probes.iter().all(|probe| probe.ok)
            && self.chaos.as_ref().is_none_or(|chaos| chaos.failures.is_empty() && !self.repairs.is_empty())
            && self
                .restarts
                .as_ref()
                .is_none_or(|restarts| restarts.failures.is_empty() && !self.repairs.is_empty())
            && self.removed_node.as_ref().is_none_or(|removed| removed.ok)
            && self.foreign_objects.iter().all(|node| node.ok)
            && self.teardown.iter().all(|node| node.ok)
    }

    /// What should not have happened after a fault or a restart.
    pub fn failures(&self) -> impl Iterator<Item = &ChaosFailure> {
        let of_chaos = self.chaos.iter().flat_map(|chaos| &chaos.failures);
        of_chaos.chain(self.restarts.iter().flat_map(|restarts| &restarts.failures))
    }

    /// Whether something failed that this node has a part in.
    #[must_use]
    pub fn faults_on(&self, node: &str) -> bool {
        let at = |place: &str| place.split(['/', ':']).next() == Some(node);
        self.probes.iter().any(|probe| !probe.ok && (at(&probe.from) || at(&probe.to)))
            || self.failures().any(|failure| failure.node == node)
            || self.removed_node.iter().any(|removed| !removed.ok)
            || self.foreign_objects.iter().any(|found| !found.ok && found.node == node)
            || self.teardown.iter().any(|found| !found.ok && found.node == node)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::options::Family;

    /// A small report with one failure.
    pub(crate) fn example() -> Report {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let pod = |name: &str, v4: &str, v6: &str, host_port| PodReport {
            name: name.to_owned(),
            ips: vec![ip(v4), ip(v6)],
            host_port,
            add_us: 1800,
        };
        let node = |number: u8, pods| NodeReport {
            name: format!("node{number}"),
            internal_ips: vec![ip(&format!("192.0.2.1{number}")), ip(&format!("2001:db8:0:1::1{number}"))],
            pod_cidrs: [format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64")]
                .map(|cidr| cidr.parse().unwrap())
                .to_vec(),
            ready_ms: 12,
            pods,
        };
        let probe = |family, rtt_us: Option<u64>, error: Option<&str>| ProbeReport {
            from: "node1/pod1".to_owned(),
            to: "node2/pod1".to_owned(),
            family,
            kind: ProbeKind::PodPodRemote,
            transport: Transport::Udp,
            first_packet: false,
            ok: error.is_none(),
            rtt_us,
            seen_source: rtt_us.map(|_| ip("10.244.1.2")),
            error: error.map(str::to_owned),
        };
        let binary = |name: &str| Binary { path: name.into(), sha256: "0a".repeat(32) };
        Report {
            schema_version: SCHEMA_VERSION,
            ok: false,
            name: "lab-1".to_owned(),
            kept: false,
            mode: Mode::Ptp,
            family: Families::Dual,
            seed: 7,
            fault: None,
            binaries: Binaries { agent: binary("hostgw"), plugin: binary("hostgw-cni") },
            outside: OutsideReport {
                ips: vec![ip("192.0.2.2"), ip("2001:db8:0:1::2")],
                unmasqueraded_ips: vec![ip("198.51.100.2"), ip("2001:db8:0:2::2")],
            },
            nodes: vec![
                node(
                    1,
                    vec![
                        pod("node1/pod1", "10.244.1.2", "fd00:10:244:1::2", Some(18080)),
                        pod("node1/pod2", "10.244.1.3", "fd00:10:244:1::3", None),
                    ],
                ),
                node(2, vec![pod("node2/pod1", "10.244.2.2", "fd00:10:244:2::2", Some(18080))]),
            ],
            probes: vec![
                probe(Family::Ipv4, Some(85), None),
                probe(Family::Ipv6, None, Some("no answer within 2000 ms to the one datagram")),
            ],
            repairs: vec![Repair {
                fault: "routes-deleted".to_owned(),
                node: "node1".to_owned(),
                observed_broken_ms: 1,
                observed: "node1 lacks its route to 10.244.2.0/24".to_owned(),
                undone_ms: None,
                restored_ms: 7,
                notes: Vec::new(),
            }],
            uplink: None,
            restarts: None,
            dhcp: None,
            chaos: Some(ChaosReport {
                duration_s: 60,
                order: vec!["routes-deleted on node1".to_owned(), "uplink-down on node2".to_owned()],
                failures: vec![ChaosFailure {
                    fault: "uplink-down".to_owned(),
                    node: "node2".to_owned(),
                    code: "not_restored".to_owned(),
                    message: "node2 lacks its route to 10.244.1.0/24".to_owned(),
                }],
                outages: vec![Outage {
                    from: "node1/pod1".to_owned(),
                    to: "node2/pod1".to_owned(),
                    family: Family::Ipv4,
                    kind: ProbeKind::PodPodRemote,
                    sent: 900,
                    lost: 3,
                    longest_ms: 130,
                    during: Some("routes-deleted on node1".to_owned()),
                }],
                flows: Flows { opened: 8, alive: 8, excused: 0 },
                churn: Churned { added: 120, deleted: 120, retried: 0, failed: 0, excused: 0 },
                repeat: "hostgw lab --chaos --seed 7 --duration 60".to_owned(),
            }),
            removed_node: Some(RemovedNode {
                name: "node2".to_owned(),
                ok: true,
                routes_absent_ms: Some(9),
                errors: Vec::new(),
            }),
            foreign_objects: vec![ForeignObjects {
                node: "node1".to_owned(),
                ok: true,
                compared: 40,
                changed: vec![],
            }],
            teardown: vec![Teardown { node: "node1".to_owned(), ok: true, left: Vec::new() }],
            steps: vec![Step { step: "nodes".to_owned(), ms: 40 }],
        }
    }

    #[test]
    fn the_document_has_the_fields_of_the_contract() {
        insta::assert_json_snapshot!(example());
    }

    #[test]
    fn a_report_survives_the_way_from_the_first_process_to_the_launcher() {
        let text = serde_json::to_string(&example()).unwrap();
        let read: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert!(!text.contains('\n'));
    }

    #[test]
    fn a_lab_without_a_probe_proved_nothing() {
        let mut report = example();
        report.probes.retain(|probe| probe.ok);
        assert!(!report.verdict());
        report.chaos.iter_mut().for_each(|chaos| chaos.failures.clear());
        assert!(report.verdict());
        report.repairs.clear();
        assert!(!report.verdict(), "chaos that repaired nothing proved nothing");
        report.chaos = None;
        assert!(report.verdict());
        report.probes.clear();
        assert!(!report.verdict());
    }

    #[test]
    fn a_failure_concerns_both_its_ends_and_no_namesake() {
        let mut report = example();
        report.probes[1].to = "node12/pod1".to_owned();
        report.chaos = None;
        for (node, concerned) in [("node1", true), ("node12", true), ("node2", false), ("node", false)] {
            assert_eq!(report.faults_on(node), concerned, "{node}");
        }
    }

    #[test]
    fn every_field_of_the_document_is_in_its_schema() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        check(&serde_json::to_value(example()).unwrap(), &schema, &schema, "");
    }

    /// Follows a value through its schema: every field is described, every required one is there.
    fn check(value: &serde_json::Value, schema: &serde_json::Value, root: &serde_json::Value, at: &str) {
        let schema = schema["$ref"].as_str().map_or(schema, |to| root.pointer(&to[1..]).unwrap());
        match value {
            serde_json::Value::Object(fields) => {
                for (name, field) in fields {
                    let described = &schema["properties"][name];
                    assert!(described.is_object(), "{at}/{name} is not in the schema");
                    check(field, described, root, &format!("{at}/{name}"));
                }
                for name in schema["required"].as_array().unwrap() {
                    assert!(fields.contains_key(name.as_str().unwrap()), "{at} lacks {name}");
                }
            }
            serde_json::Value::Array(items) => {
                items.iter().for_each(|item| check(item, &schema["items"], root, at));
            }
            _ => {}
        }
    }
}
