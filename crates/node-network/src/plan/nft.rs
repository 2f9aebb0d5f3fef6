//! The table `inet hostgw`: made whole in one transaction, or only its sets' elements changed.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::desired::{NftTable, SetName};
use crate::observed::ObservedNftTable;

/// What becomes of the table, in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NftChange {
    /// It does not exist.
    Create(NftTable),
    /// Its chains, sets or rules are not the desired ones: delete and create in one transaction.
    Rebuild(NftTable),
    /// Only elements differ.
    Elements(Vec<ElementChange>),
}

/// Elements of one set. Removals come first within the transaction, since an interval set refuses overlaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElementChange {
    /// The set.
    pub set: SetName,
    /// To be removed.
    pub remove: Vec<IpNet>,
    /// To be added.
    pub add: Vec<IpNet>,
    /// What the set holds then, for when the kernel refuses a removal: somebody may have added a range that is no
    /// prefix, which goes only as a whole.
    pub wanted: Vec<IpNet>,
}

pub(super) fn plan_table(wanted: &NftTable, observed: Option<&ObservedNftTable>) -> Option<NftChange> {
    let Some(observed) = observed else {
        return Some(NftChange::Create(wanted.clone()));
    };
    if !same_rules(wanted, observed) {
        return Some(NftChange::Rebuild(wanted.clone()));
    }
    let changes: Vec<_> = wanted
        .sets
        .iter()
        .filter_map(|(set, elements)| element_change(*set, elements, observed.sets.get(set.as_str())?))
        .collect();
    (!changes.is_empty()).then_some(NftChange::Elements(changes))
}

fn same_rules(wanted: &NftTable, observed: &ObservedNftTable) -> bool {
    let sets = wanted.sets.keys().map(|set| set.as_str()).collect::<BTreeSet<_>>();
    let observed_sets = observed.sets.keys().map(String::as_str).collect::<BTreeSet<_>>();
    let chains_agree = wanted.chains.len() == observed.chains.len()
        && wanted.chains.iter().all(|chain| observed.chains.get(chain.name) == Some(&chain.to_string()));
    let rules_agree = wanted.chains.iter().all(|chain| {
        let found = observed.rules.iter().filter(|(of, _)| of == chain.name).map(|(_, comment)| comment);
        found.eq(&chain.rules.iter().map(super::super::desired::Rule::comment).collect::<Vec<_>>())
    });
    sets == observed_sets && chains_agree && rules_agree
}

fn element_change(set: SetName, wanted: &[IpNet], observed: &[IpNet]) -> Option<ElementChange> {
    if wanted == observed {
        return None;
    }
    // Both are in order, also as the kernel told them; a few of thousands differ.
    let (mut remove, mut add) = (Vec::new(), Vec::new());
    let mut observed = observed.iter().copied().peekable();
    for element in wanted {
        while let Some(gone) = observed.next_if(|observed| observed < element) {
            remove.push(gone);
        }
        if observed.next_if_eq(element).is_none() {
            add.push(*element);
        }
    }
    remove.extend(observed);
    let changed = !remove.is_empty() || !add.is_empty();
    changed.then(|| ElementChange { set, remove, add, wanted: wanted.to_vec() })
}
