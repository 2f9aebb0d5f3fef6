//! What each fault does, step by step: the damage, what the world itself puts right, and what is looked at afterwards.

use crate::chaos::fault::Fault;
use crate::chaos::field::Field;
use crate::chaos::setback::Setback;
use crate::chaos::{cluster_faults, disk_faults, kernel_faults, process_faults, storm_faults, uplink_faults};

/// One thing that is done to the node at a place in the order.
pub(crate) type Act = fn(&mut Field<'_>, usize) -> Result<(), Setback>;

/// What shows that the damage was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A look at the kernel, or a probe.
    Any,
    /// A probe: the cluster is broken until the world puts its part right.
    Probe,
}

/// One damage and its repair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    /// What it is called.
    pub(crate) name: &'static str,
    pub(crate) proof: Proof,
    /// Done at once. It may be done again where nobody noticed it.
    pub(crate) damage: Act,
    /// What no agent can do: the cable is put back, somebody starts the agent.
    pub(crate) undo: Option<Act>,
    /// What must work once everything is whole again.
    pub(crate) after: Option<Act>,
}

const fn by_itself(name: &'static str, damage: Act) -> Recipe {
    Recipe { name, proof: Proof::Any, damage, undo: None, after: None }
}

const fn undone(name: &'static str, proof: Proof, damage: Act, undo: Act) -> Recipe {
    Recipe { name, proof, damage, undo: Some(undo), after: None }
}

/// A fault's damages in order. The last leaves everything as it was before the first.
pub(crate) fn recipes(fault: Fault) -> Vec<Recipe> {
    match fault {
        Fault::NodeRemoved => vec![
            by_itself("node-removed", cluster_faults::remove_node),
            by_itself("node-added", cluster_faults::add_node),
        ],
        Fault::NodeAddressChanged => vec![
            by_itself("node-address-changed", cluster_faults::change_address),
            by_itself("node-address-changed-back", cluster_faults::change_address_back),
        ],
        Fault::PodCidrChanged => vec![
            Recipe {
                after: Some(cluster_faults::new_pod_is_reached),
                ..by_itself("pod-cidr-changed", cluster_faults::change_pod_cidrs)
            },
            by_itself("pod-cidr-changed-back", cluster_faults::change_pod_cidrs_back),
        ],
        Fault::RoutesDeleted => vec![by_itself("routes-deleted", kernel_faults::delete_routes)],
        Fault::RulesDeleted => vec![by_itself("rules-deleted", kernel_faults::delete_rules)],
        Fault::RulesetFlushed => vec![by_itself("ruleset-flushed", kernel_faults::flush_ruleset)],
        Fault::AgentKilled => {
            let (damage, undo) = (process_faults::kill_agent, process_faults::start_agent);
            vec![undone("agent-killed", Proof::Probe, damage, undo)]
        }
        Fault::PluginKilled => {
            let (damage, undo) = (process_faults::kill_plugin, process_faults::retry_plugin);
            vec![undone("plugin-killed", Proof::Any, damage, undo)]
        }
        Fault::UplinkCarrierLost => {
            let (damage, undo) = (uplink_faults::pull_cable, uplink_faults::put_cable);
            vec![undone("uplink-carrier-lost", Proof::Probe, damage, undo)]
        }
        Fault::UplinkDown => {
            let (damage, undo) = (uplink_faults::set_down, uplink_faults::set_up);
            vec![undone("uplink-down", Proof::Probe, damage, undo)]
        }
        Fault::UplinkRecreated => {
            let (damage, undo) = (uplink_faults::delete, uplink_faults::make_anew);
            vec![undone("uplink-recreated", Proof::Probe, damage, undo)]
        }
        Fault::UplinkRenamed => vec![
            by_itself("uplink-renamed", uplink_faults::rename),
            by_itself("uplink-renamed-back", uplink_faults::rename_back),
        ],
        Fault::UplinkMtuChanged => {
            let (damage, undo) = (uplink_faults::shrink_mtu, uplink_faults::restore_mtu);
            vec![undone("uplink-mtu-changed", Proof::Probe, damage, undo)]
        }
        Fault::NodeRebooted => {
            let (damage, undo) = (cluster_faults::reboot, cluster_faults::finish_boot);
            vec![undone("node-rebooted", Proof::Probe, damage, undo)]
        }
        Fault::ClockJumped => vec![
            undone(
                "clock-jumped",
                Proof::Probe,
                process_faults::kill_agent,
                process_faults::start_agent_later,
            ),
            by_itself("list-from-the-future", cluster_faults::remove_node_in_the_future),
            by_itself("list-from-the-past", cluster_faults::add_node),
        ],
        Fault::RunDiskFull => {
            let (damage, undo) = (disk_faults::fill_run, disk_faults::empty_run);
            vec![undone("run-disk-full", Proof::Any, damage, undo)]
        }
        Fault::StateDiskFull => {
            let (damage, undo) = (disk_faults::fill_state, disk_faults::empty_state);
            vec![undone("state-disk-full", Proof::Any, damage, undo)]
        }
        Fault::SocketOverflow => {
            let (damage, undo) = (storm_faults::overflow, storm_faults::resume);
            vec![undone("socket-overflow", Proof::Probe, damage, undo)]
        }
        Fault::RouteStorm => {
            let (damage, undo) = (storm_faults::storm, storm_faults::outlast_storm);
            vec![undone("route-storm", Proof::Any, damage, undo)]
        }
        Fault::RouteFight => {
            let (damage, undo) = (storm_faults::fight, storm_faults::end_fight);
            vec![undone("route-fight", Proof::Probe, damage, undo)]
        }
    }
}
