//! Where a table in the kernel differs from the table that is wanted.

use std::collections::BTreeSet;

use super::encode::write_rule;
use super::table::{Chain, Table};
use super::transaction::RULE_EXPRESSIONS;
use super::{Element, Family, ObservedChain, ObservedRule, ObservedTable, Rule, Set, expression};
use crate::netlink::{Attributes, Batch};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The table's comment, or it is asleep.
    Table,
    /// A chain is missing, or its hook, priority or policy is another.
    Chain(String),
    /// A chain is there that should not be.
    UnexpectedChain(String),
    /// The rules of a chain: missing, changed, added, or in another order.
    Rules(String),
    /// A set is missing, or is of another type.
    Set(String),
    /// A set is there that should not be.
    UnexpectedSet(String),
    /// Elements of a set.
    Elements {
        /// The set's name.
        set: String,
        /// What is missing, or maps to something else.
        missing: Vec<Element>,
        /// What should not be there.
        unexpected: Vec<Element>,
    },
}

impl ObservedTable {
    /// Where this table differs from `wanted`; nothing where they are the same.
    #[must_use]
    pub fn differences(&self, wanted: &Table) -> Vec<Difference> {
        let mut found = Vec::new();
        if self.dormant || self.comment != wanted.comment {
            found.push(Difference::Table);
        }
        for set in &wanted.sets {
            match self.sets.iter().find(|observed| observed.set.name == set.name) {
                Some(observed) if same_type(&observed.set, set) => {
                    found.extend(element_differences(&observed.set, set));
                }
                _ => found.push(Difference::Set(set.name.clone())),
            }
        }
        for observed in &self.sets {
            if !wanted.sets.iter().any(|set| set.name == observed.set.name) {
                found.push(Difference::UnexpectedSet(observed.set.name.clone()));
            }
        }
        for chain in &wanted.chains {
            match self.chains.iter().find(|observed| observed.name == chain.name) {
                Some(observed) if observed.base == chain.base => {
                    if !same_rules(observed, chain, wanted.name.family) {
                        found.push(Difference::Rules(chain.name.clone()));
                    }
                }
                _ => found.push(Difference::Chain(chain.name.clone())),
            }
        }
        for observed in &self.chains {
            if !wanted.chains.iter().any(|chain| chain.name == observed.name) {
                found.push(Difference::UnexpectedChain(observed.name.clone()));
            }
        }
        found
    }
}

impl ObservedRule {
    /// Whether this is `rule`: its comment, and every expression. How much a counter has counted does not matter.
    #[must_use]
    pub fn is(&self, rule: &Rule, family: Family) -> bool {
        self.comment == rule.comment && expression::same(&self.expressions, &encoded(rule, family))
    }
}

fn same_type(observed: &Set, wanted: &Set) -> bool {
    observed.key == wanted.key
        && observed.data == wanted.data
        && observed.interval == wanted.interval
        && observed.constant == wanted.constant
        && observed.comment == wanted.comment
}

fn element_differences(observed: &Set, wanted: &Set) -> Option<Difference> {
    let wanted: BTreeSet<Element> = wanted.elements.iter().cloned().map(Element::canonical).collect();
    let held: BTreeSet<Element> = observed.elements.iter().cloned().collect();
    if wanted == held {
        return None;
    }
    Some(Difference::Elements {
        set: observed.name.clone(),
        missing: wanted.difference(&held).cloned().collect(),
        unexpected: held.difference(&wanted).cloned().collect(),
    })
}

fn same_rules(observed: &ObservedChain, wanted: &Chain, family: Family) -> bool {
    observed.rules.len() == wanted.rules.len()
        && observed.rules.iter().zip(&wanted.rules).all(|(observed, rule)| observed.is(rule, family))
}

/// The bytes of `NFTA_RULE_EXPRESSIONS` that we would write.
fn encoded(rule: &Rule, family: Family) -> Vec<u8> {
    let mut batch = Batch::new();
    batch
        .message("compare a rule", 0, 0, &[])
        .nest_unflagged(RULE_EXPRESSIONS, |list| write_rule(rule, family, list));
    let attributes = batch.bytes().get(16..).unwrap_or_default();
    Attributes::new(attributes).get(RULE_EXPRESSIONS).map(|list| list.value().to_vec()).unwrap_or_default()
}
