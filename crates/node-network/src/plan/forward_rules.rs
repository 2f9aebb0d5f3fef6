//! Accept rules in iptables' FORWARD chains that drop what nothing accepts. They consist of what iptables can decode, so that a
//! save and restore by somebody else keeps their meaning.

use crate::condition::{Condition, ForwardingCondition};
use crate::desired::{ForwardAccept, OwnNetwork};
use crate::family::Family;
use crate::observed::{ChainPosition, ForwardChain, ObservedNode};

/// Where a rule of ours stands in somebody else's ruleset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardRulePlace {
    /// The table's family.
    pub family: Family,
    /// The table.
    pub table: String,
    /// The chain.
    pub position: ChainPosition,
}

/// One rule to insert or remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardRuleChange {
    /// At the top of the chain: rules further down may never be reached.
    Insert {
        /// Where.
        place: ForwardRulePlace,
        /// What it accepts.
        accept: ForwardAccept,
    },
    /// By the kernel's handle.
    Remove {
        /// Where.
        place: ForwardRulePlace,
        /// What it accepted.
        accept: ForwardAccept,
        /// The rule's handle.
        handle: u64,
    },
}

pub(super) fn plan_rules(
    own: &OwnNetwork,
    observed: &ObservedNode,
    conditions: &mut Vec<Condition>,
) -> Vec<ForwardRuleChange> {
    conditions.extend(super::obstacles::conditions(own, &observed.obstacles));
    let mut inserts = Vec::new();
    let mut removals = Vec::new();
    for chain in &observed.forward_chains {
        if chain.drops && own.has_pods_of(chain.family) {
            let ours_to_change = chain.owned_by_iptables && !own.forward_accepts.is_empty();
            if !ours_to_change {
                conditions.push(drops(own, chain));
            }
        }
        if chain.owned_by_iptables {
            plan_chain(own, chain, &mut inserts, &mut removals);
        }
    }
    // A rule that moves stands twice for a moment, and is never absent.
    inserts.append(&mut removals);
    inserts
}

fn plan_chain(
    own: &OwnNetwork,
    chain: &ForwardChain,
    inserts: &mut Vec<ForwardRuleChange>,
    removals: &mut Vec<ForwardRuleChange>,
) {
    let position = if chain.docker_user { ChainPosition::DockerUser } else { ChainPosition::Forward };
    let place = |position| ForwardRulePlace { family: chain.family, table: chain.table.clone(), position };
    let wanted = own.forward_accepts.iter().filter(|accept| Family::of_net(&accept.prefix) == chain.family);
    let mut kept = Vec::new();
    for accept in wanted {
        let stands = chain.accepts.iter().find(|seen| {
            seen.accept == *accept && seen.position == position && seen.on_top && !kept.contains(&seen.handle)
        });
        match stands {
            Some(seen) => kept.push(seen.handle),
            None if chain.drops => {
                inserts.push(ForwardRuleChange::Insert { place: place(position), accept: *accept });
            }
            // The policy has become accept: one that stands somewhere does no harm, and Docker may turn back to drop.
            None => {
                kept.extend(chain.accepts.iter().find(|seen| seen.accept == *accept).map(|seen| seen.handle));
            }
        }
    }
    let stale = chain.accepts.iter().filter(|seen| !kept.contains(&seen.handle));
    removals.extend(stale.map(|seen| ForwardRuleChange::Remove {
        place: place(seen.position),
        accept: seen.accept,
        handle: seen.handle,
    }));
}

fn drops(own: &OwnNetwork, chain: &ForwardChain) -> Condition {
    let of_family = own.pod_prefixes.iter().filter(|prefix| Family::of_net(prefix) == chain.family);
    Condition::Forwarding(ForwardingCondition::ForeignChainDrops {
        table: chain.table.clone(),
        chain: chain.chain.clone(),
        family: chain.family,
        prefixes: of_family.map(ToString::to_string).collect::<Vec<_>>().join(", "),
    })
}
