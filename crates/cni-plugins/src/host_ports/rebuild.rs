//! Making the whole table agree with the records, as the agent does after somebody flushed the ruleset.

use std::collections::HashMap;
use std::net::IpAddr;

use attachment::{Entry, Record, State};
use kernel::KernelError;
use kernel::netlink::Socket;
use kernel::nftables::{
    Difference, Element, Existing, Family, Table, TableName, Transaction, Value, generation, observe,
};

use super::table::{Names, Placed, TABLE, elements_of, empty_table};

/// What a rebuild did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebuildReport {
    /// Whether the table was missing or changed, and was made anew.
    pub declared: bool,
    /// Elements that were put back.
    pub added: usize,
    /// Elements that no record has, removed.
    pub removed: usize,
}

impl RebuildReport {
    /// Whether all was well.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The whole table for these records; `excluded` are the addresses of dummy links.
fn wanted_table<'a>(records: impl Iterator<Item = &'a Record>, excluded: &[IpAddr]) -> Table {
    let mut elements: HashMap<&'static str, Vec<Element>> = HashMap::new();
    let mut keys: std::collections::HashSet<(&'static str, Vec<Value>)> = std::collections::HashSet::new();
    for Placed { set, element } in records.flat_map(elements_of) {
        // Two records of one port cannot both be served; the store names them as contested.
        if keys.insert((set, element.key.clone())) {
            elements.entry(set).or_default().push(element);
        }
    }
    for ip in excluded {
        elements.entry(Names::of(*ip).excluded).or_default().push(Element::of([Value::Ip(*ip)]));
    }
    let mut table = empty_table();
    for set in &mut table.sets {
        set.elements = elements.remove(set.name.as_str()).unwrap_or_default();
        set.elements.sort();
        set.elements.dedup();
    }
    table
}

/// Puts back what is missing of the records' host ports and removes what no record has. Where no pod has a host port
/// and there is no table, none is made. Established flows survive: only elements that differ are touched, unless the
/// rules themselves were changed.
///
/// `records` is called after the table was read. A plugin writes its record first and its elements after, so no element
/// seen can belong to a record not yet seen. The change is refused by the kernel (`ERESTART`) where somebody else
/// changed the ruleset meanwhile; then the next pass sees it.
pub fn rebuild(
    socket: &mut Socket,
    records: impl FnOnce() -> Vec<Entry>,
    excluded: &[IpAddr],
) -> Result<RebuildReport, KernelError> {
    let name = TableName::new(Family::Inet, TABLE);
    let generation = generation(socket)?;
    let found = observe(socket, &name)?;
    let entries = records();
    let known = wanted_table(entries.iter().map(|entry| &entry.record), excluded);
    // What an ADD in progress has not published yet, it will.
    let attached = entries.iter().filter(|entry| entry.state == State::Attached).map(|entry| &entry.record);
    let restorable = wanted_table(attached, excluded);
    let mut transaction = Transaction::at_generation(generation);
    let report = match found {
        None if !has_ports(&restorable) => return Ok(RebuildReport::default()),
        None => {
            transaction.create(&restorable, Existing::Refuse);
            RebuildReport { declared: true, added: count(&restorable), removed: 0 }
        }
        Some(found) => {
            let differences = found.differences(&known);
            if differences.iter().all(|difference| matches!(difference, Difference::Elements { .. })) {
                correct(&mut transaction, &name, &restorable, differences)
            } else {
                transaction.declare(&known);
                RebuildReport { declared: true, added: count(&known), removed: 0 }
            }
        }
    };
    if !transaction.is_empty() {
        transaction.commit(socket)?;
    }
    Ok(report)
}

/// Element by element.
fn correct(
    transaction: &mut Transaction,
    name: &TableName,
    restorable: &Table,
    differences: Vec<Difference>,
) -> RebuildReport {
    let mut report = RebuildReport::default();
    for difference in differences {
        let Difference::Elements { set, mut missing, unexpected } = difference else { continue };
        let Some(declared) = restorable.sets.iter().find(|declared| declared.name == set) else { continue };
        missing.retain(|element| declared.elements.contains(element));
        transaction.delete_elements(name, declared, &unexpected);
        transaction.add_elements(name, declared, &missing, Existing::Keep);
        report.removed += unexpected.len();
        report.added += missing.len();
    }
    report
}

fn has_ports(table: &Table) -> bool {
    table.sets.iter().any(|set| set.data.is_some() && !set.elements.is_empty())
}

fn count(table: &Table) -> usize {
    table.sets.iter().map(|set| set.elements.len()).sum()
}
