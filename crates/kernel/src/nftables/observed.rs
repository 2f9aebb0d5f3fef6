//! What nftables holds, as values.

use super::decode::parse_verdict;
use super::set::DATA_VERDICT;
use super::table::{BaseChain, TableName};
use super::{Comment, Set, Verdict, expression};
use crate::netlink::Attributes;

/// A table, and in [`observe`]'s answer all in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedTable {
    /// Its name.
    pub name: TableName,
    /// The kernel's number for it.
    pub handle: u64,
    /// Whether it is asleep (`NFT_TABLE_F_DORMANT`).
    pub dormant: bool,
    /// The netlink port of the program that alone may change it (`NFT_TABLE_F_OWNER`).
    pub owner: Option<u32>,
    /// A word on whose it is.
    pub comment: Option<Comment>,
    /// Its sets and maps.
    pub sets: Vec<ObservedSet>,
    /// Its chains, with their rules.
    pub chains: Vec<ObservedChain>,
}

/// A set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedSet {
    /// Its table.
    pub table: TableName,
    /// The kernel's number for it.
    pub handle: u64,
    /// What it is, and in [`observe`]'s answer its elements.
    pub set: Set,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedChain {
    /// Its table.
    pub table: TableName,
    /// Its name.
    pub name: String,
    /// The kernel's number for it.
    pub handle: u64,
    /// Where the kernel enters it.
    pub base: Option<BaseChain>,
    /// Its rules, in [`observe`]'s answer.
    pub rules: Vec<ObservedRule>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedRule {
    /// Its table.
    pub table: TableName,
    /// Its chain.
    pub chain: String,
    /// The kernel's number for it.
    pub handle: u64,
    /// The comment in its user data. (iptables' comments are expressions.)
    pub comment: Option<Comment>,
    /// The bytes of its expressions (`NFTA_RULE_EXPRESSIONS`).
    pub expressions: Vec<u8>,
}

impl ObservedRule {
    /// The names of its expressions, in order.
    #[must_use]
    pub fn expression_names(&self) -> Vec<String> {
        expression::parse(&self.expressions).map(|(name, _)| name).collect()
    }

    /// Whether it drops or rejects every packet that comes to it, also where iptables wrote it.
    #[must_use]
    pub fn refuses_everything(&self) -> bool {
        let mut refuses = false;
        for (name, data) in expression::parse(&self.expressions) {
            let attributes = Attributes::new(data);
            match name.as_str() {
                "counter" | "log" => {}
                "reject" => refuses = true,
                "target" => {
                    let target = attributes.get(1).map(|name| name.text());
                    refuses = matches!(target.as_deref(), Some("REJECT" | "DROP"));
                }
                "immediate" => refuses = immediate_verdict(&attributes) == Some(Verdict::Drop),
                // A match, or something that is no end.
                _ => return false,
            }
        }
        refuses
    }

    /// The chain to which it sends the packets that it is for, if that is what it does.
    #[must_use]
    pub fn jumps_to(&self) -> Option<String> {
        expression::parse(&self.expressions).filter(|(name, _)| name == "immediate").find_map(|(_, data)| {
            match immediate_verdict(&Attributes::new(data)) {
                Some(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(chain),
                _ => None,
            }
        })
    }

    /// The chain to which it sends every packet that comes to it, if that is what it does.
    #[must_use]
    pub fn sends_everything_to(&self) -> Option<String> {
        let mut to = None;
        for (name, data) in expression::parse(&self.expressions) {
            match name.as_str() {
                "counter" | "log" => {}
                "immediate" => match immediate_verdict(&Attributes::new(data)) {
                    Some(Verdict::Jump(chain) | Verdict::Goto(chain)) => to = Some(chain),
                    _ => return None,
                },
                _ => return None,
            }
        }
        to
    }
}

/// What `immediate` does with a packet, where that is what it sets.
fn immediate_verdict(attributes: &Attributes<'_>) -> Option<Verdict> {
    parse_verdict(attributes.get(2)?.nested().get(DATA_VERDICT)?)
}
