//! The faults, and the order in which a seed lets them come. Values only.

use crate::seeded::Seeded;

/// Something that goes wrong in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// A node is taken off every list, and comes back.
    NodeRemoved,
    /// A node gets other addresses, and its old ones again.
    NodeAddressChanged,
    /// A node gets other pod CIDRs, and its old ones again.
    PodCidrChanged,
    /// Our routes are deleted by hand.
    RoutesDeleted,
    /// The rules of our chains are deleted by hand.
    RulesDeleted,
    /// `nft flush ruleset`.
    RulesetFlushed,
    /// `kill -9` of the agent; our routes go while it is dead.
    AgentKilled,
    /// `kill -9` of the plugin in the middle of ADD.
    PluginKilled,
    /// The cable is pulled.
    UplinkCarrierLost,
    /// `ip link set eth0 down`, and up again as a network manager does.
    UplinkDown,
    /// The uplink goes and comes back as another link of the same name.
    UplinkRecreated,
    /// The uplink gets another name, and its old one again.
    UplinkRenamed,
    /// The uplink's MTU falls below what IPv6 takes.
    UplinkMtuChanged,
    /// A node boots anew: namespaces, processes and `/run` are gone.
    NodeRebooted,
    /// The clocks jump.
    ClockJumped,
    /// `/run` is full.
    RunDiskFull,
    /// `/var/lib/hostgw` is full.
    StateDiskFull,
    /// The kernel has to drop netlink messages to the agent.
    SocketOverflow,
    /// Somebody changes 10,000 routes a second.
    RouteStorm,
    /// Somebody deletes our routes as soon as they come.
    RouteFight,
}

impl Fault {
    /// Each of them.
    pub(crate) const ALL: [Self; 20] = [
        Self::NodeRemoved,
        Self::NodeAddressChanged,
        Self::PodCidrChanged,
        Self::RoutesDeleted,
        Self::RulesDeleted,
        Self::RulesetFlushed,
        Self::AgentKilled,
        Self::PluginKilled,
        Self::UplinkCarrierLost,
        Self::UplinkDown,
        Self::UplinkRecreated,
        Self::UplinkRenamed,
        Self::UplinkMtuChanged,
        Self::NodeRebooted,
        Self::ClockJumped,
        Self::RunDiskFull,
        Self::StateDiskFull,
        Self::SocketOverflow,
        Self::RouteStorm,
        Self::RouteFight,
    ];
}

/// Faults without end, each with the node that it meets: round after round, in each round every fault once.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    seeded: Seeded,
    nodes: usize,
    round: Vec<Fault>,
}

impl Schedule {
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        Self { seeded: Seeded::new(seed), nodes, round: Vec::new() }
    }

    /// Whether every fault of the present round has come.
    pub(crate) fn round_is_over(&self) -> bool {
        self.round.is_empty()
    }

    /// The next fault, and the node that it meets.
    pub(crate) fn next(&mut self) -> (Fault, usize) {
        if self.round.is_empty() {
            self.round = Fault::ALL.to_vec();
            self.seeded.shuffle(&mut self.round);
        }
        let fault = self.round.pop().unwrap_or(Fault::RoutesDeleted);
        (fault, self.seeded.below(self.nodes))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_seed_decides_faults_and_nodes_and_every_round_has_each_fault_once(seed in any::<u64>(), nodes in 1usize..9) {
            let faults = |count: usize| {
                let mut schedule = Schedule::new(seed, nodes);
                (0..count).map(|_| schedule.next()).collect::<Vec<_>>()
            };
            let two_rounds = faults(2 * Fault::ALL.len());
            prop_assert_eq!(&two_rounds, &faults(2 * Fault::ALL.len()));
            prop_assert!(two_rounds.iter().all(|(_, node)| *node < nodes));
            for round in two_rounds.chunks(Fault::ALL.len()) {
                let once: BTreeSet<_> = round.iter().map(|(fault, _)| *fault).collect();
                prop_assert_eq!(once.len(), Fault::ALL.len());
            }
        }
    }
}
