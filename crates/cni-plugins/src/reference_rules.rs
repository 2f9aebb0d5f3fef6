//! Rules in the tables of nftables that the reference plugins keep: known by their comments, and by the addresses in them.
//! They are read and removed, never written.

use std::net::IpAddr;

use kernel::KernelError;
use kernel::nftables::{ObservedRule, TableName, Transaction, chain_uses, rules};
use rustix::io::Errno;

use crate::netfilter;

/// How often a removal is tried again that met somebody else's.
const ATTEMPTS: usize = 8;

/// Every rule of such a table; none where there is no such table.
pub(crate) fn kept(table: &TableName) -> Result<Vec<ObservedRule>, KernelError> {
    match rules(&mut *netfilter::socket()?, table, None) {
        Err(error) if error.is_absent() => Ok(Vec::new()),
        other => other,
    }
}

/// The rule's comment.
pub(crate) fn comment(rule: &ObservedRule) -> &str {
    rule.comment.as_ref().map_or("", |comment| comment.as_str())
}

/// Whether the rule compares with this address, or translates to it.
pub(crate) fn names(rule: &ObservedRule, address: IpAddr) -> bool {
    let has = |bytes: &[u8]| rule.expressions.windows(bytes.len()).any(|found| found == bytes);
    match address {
        IpAddr::V4(ip) => has(&ip.octets()),
        IpAddr::V6(ip) => has(&ip.octets()),
    }
}

/// Whether one chain leads to another, by a jump or by two.
pub(crate) fn leads(rules: &[ObservedRule], from: &str, to: &str) -> bool {
    jumps(rules, from).any(|next| next == to || jumps(rules, &next).any(|next| next == to))
}

fn jumps(rules: &[ObservedRule], from: &str) -> impl Iterator<Item = String> {
    rules.iter().filter(move |rule| rule.chain == from).filter_map(ObservedRule::jumps_to)
}

/// Removes the rules of these chains that are `doomed`.
pub(crate) fn remove(
    table: &TableName,
    chains: &[&str],
    doomed: impl Fn(&ObservedRule) -> bool,
) -> Result<(), KernelError> {
    let mut socket = netfilter::socket()?;
    let present = chain_uses(&mut socket, table, chains)?;
    if present.iter().all(Option::is_none) {
        return Ok(());
    }
    let mut refused = KernelError::new("agree with other changes of the table", Errno::AGAIN);
    for _ in 0..ATTEMPTS {
        let mut transaction = Transaction::new();
        for rule in rules(&mut socket, table, None)? {
            if chains.contains(&rule.chain.as_str()) && doomed(&rule) {
                transaction.delete_rule(table, &rule.chain, rule.handle);
            }
        }
        if transaction.is_empty() {
            return Ok(());
        }
        match transaction.commit(&mut socket) {
            Ok(()) => {
                netfilter::removed();
                return Ok(());
            }
            Err(error) if error.is_absent() => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}
