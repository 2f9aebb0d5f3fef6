//! What is proven, in this order; each scenario leaves the cluster as it found it.

mod agent;
mod daemons;
mod flat_network;
mod forgotten;
mod install;
mod leaks;
mod node_state;
mod nodes;
mod planted;
mod pod_cidrs;
mod pods;
mod reach;
mod reports;
mod rights;
mod scale;
mod services;
mod traffic;

use std::time::Instant;

use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::options::Options;
use crate::report::Report;

/// Proves one thing, and says what was proven.
type Scenario = fn(&mut Cluster) -> Outcome<String>;

const ALL: [(&str, Scenario); 18] = [
    ("manifest", install::plain_manifest_is_the_chart),
    ("reports", reports::each_node_tells_that_it_is_well),
    ("pods", pods::pods_reach_each_other),
    ("services", services::services_and_hairpin),
    ("host-ports", services::host_ports),
    ("flat-network", flat_network::services_and_hosts_of_the_lan),
    ("planted-faults", planted::planted_faults_are_seen),
    ("scale", scale::scaled_up_and_down),
    ("pod-cidrs", pod_cidrs::given_by_one_of_two),
    ("rights", rights::missing_rights_are_told),
    ("runtime-forgets", forgotten::freed_by_the_runtimes_word),
    ("agent-deleted", agent::deleted_under_traffic),
    ("agent-upgraded", agent::upgraded_under_traffic),
    ("api-server", daemons::api_server_restarted_under_traffic),
    ("kubelet", daemons::kubelet_restarted_under_traffic),
    ("containerd", daemons::containerd_restarted_under_traffic),
    ("node-added", nodes::added_drained_deleted),
    ("node-rebooted", nodes::rebooted),
];

/// Installs hostgw, and runs the scenarios that were asked for.
pub(crate) fn run_all(cluster: &mut Cluster, options: &Options, report: &mut Report) -> Outcome {
    for name in &options.scenarios {
        if !ALL.iter().any(|(known, _)| known == name) {
            let known: Vec<&str> = ALL.iter().map(|(known, _)| *known).collect();
            return Err(TierError::Wrong(format!("no scenario `{name}`: choose of {}", known.join(", "))));
        }
    }
    let began = Instant::now();
    let installed = install::nodes_become_ready_because_of_us(cluster);
    report.tell("install", began, &installed);
    if installed.is_err() {
        return Ok(());
    }
    for (name, scenario) in ALL {
        if options.scenarios.is_empty() || options.scenarios.iter().any(|wanted| wanted == name) {
            let began = Instant::now();
            let outcome = scenario(cluster).and_then(|proven| cluster.check_alive().map(|()| proven));
            report.tell(name, began, &outcome);
        }
    }
    Ok(())
}
