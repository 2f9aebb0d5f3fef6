//! Making the whole table agree with the records, as the agent does after somebody flushed the ruleset.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;

use attachment::{Entry, Record, State, Store};
use kernel::KernelError;
use kernel::netlink::Socket;
use kernel::nftables::{
    Difference, Element, Existing, ObservedTable, Table, Transaction, Value, generation, observe,
};
use link_name::LinkName;

use super::elements::{Placed, elements_of, pod_of};
use super::owner::Strangers;
use super::table::{empty_table, exclude, set_names, table_name};

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
    let mut keys: HashSet<(&'static str, Vec<Value>)> = HashSet::new();
    for Placed { set, element } in records.flat_map(elements_of) {
        // Two records of one port cannot both be served; the store names them as contested.
        if keys.insert((set, element.key.clone())) {
            elements.entry(set).or_default().push(element);
        }
    }
    let mut table = empty_table();
    for set in &mut table.sets {
        set.elements = elements.remove(set.name.as_str()).unwrap_or_default();
        set.elements.sort();
        set.elements.dedup();
    }
    exclude(&mut table, excluded);
    table
}

/// Puts back what is missing of the records' host ports below `data_dir`, and removes what no record has, and no living pod. Where no pod
/// has a host port and there is no table, none is made. Established flows survive: only elements that differ are
/// touched, unless the rules themselves were changed.
///
/// The records are read after the table was. A plugin writes its record first and its elements after, so no element seen
/// can belong to a record not yet seen; and what is put back is put back while its record is held, so that no DEL is
/// under way that has just removed it. A removal is refused by the kernel (`ERESTART`) where somebody else changed the
/// ruleset meanwhile; then the next pass sees it.
///
/// `node_addresses` are the node's own now, at most one a family; they take the place of those that it had when a pod was
/// attached.
pub fn rebuild(
    socket: &mut Socket,
    data_dir: &Path,
    node_addresses: &[IpAddr],
    excluded: &[IpAddr],
    link_exists: impl Fn(&LinkName) -> bool,
) -> Result<RebuildReport, KernelError> {
    let generation = generation(socket)?;
    let found = observe(socket, &table_name())?;
    let kept = kept_records(data_dir, node_addresses, link_exists);
    let mut known = wanted_table(kept.iter().map(|kept| &kept.entry.record), excluded);
    if let Some(found) = &found {
        keep_strangers(found, &mut known, data_dir)?;
    }
    let mut transaction = Transaction::at_generation(generation);
    let report = match found {
        None if !has_ports(&known) => return Ok(RebuildReport::default()),
        None => {
            transaction.create(&known, Existing::Refuse);
            RebuildReport { declared: true, added: count(&known), removed: 0 }
        }
        Some(found) => {
            let differences = found.differences(&known);
            if !differences.iter().all(|difference| matches!(difference, Difference::Elements { .. })) {
                transaction.declare(&known);
                RebuildReport { declared: true, added: count(&known), removed: 0 }
            } else {
                return correct(socket, transaction, &known, differences, &kept);
            }
        }
    };
    transaction.commit(socket)?;
    Ok(report)
}

/// Host ports of pods that live and whose records are elsewhere are not ours to close.
fn keep_strangers(found: &ObservedTable, known: &mut Table, data_dir: &Path) -> Result<(), KernelError> {
    let mut strangers = None;
    for name in set_names() {
        let Some(held) = found.sets.iter().find(|observed| observed.set.name == name) else { continue };
        let Some(set) = known.sets.iter_mut().find(|set| set.name == name && set.data.is_some()) else {
            continue;
        };
        let wanted: HashSet<&Element> = set.elements.iter().collect();
        let mut kept: Vec<Element> = Vec::new();
        for element in held.set.elements.iter().filter(|element| !wanted.contains(element)) {
            let placed = Placed { set: name, element: element.clone() };
            let strangers = match &mut strangers {
                Some(strangers) => strangers,
                none => none.insert(Strangers::observe(data_dir)?),
            };
            if pod_of(&placed).is_some_and(|pod| strangers.at(pod).is_some()) {
                kept.push(placed.element);
            }
        }
        // Who came first has the port, also where a record of ours wants it.
        set.elements.retain(|element| !kept.iter().any(|stranger| stranger.key == element.key));
        set.elements.extend(kept);
        set.elements.sort();
    }
    Ok(())
}

/// A record, and the store that it is in.
struct Kept {
    store: Rc<Store>,
    entry: Entry,
}

/// The records whose host ports are to be open: those of an ADD under way, which it may have opened already, and those of
/// pods that live.
fn kept_records(
    data_dir: &Path,
    node_addresses: &[IpAddr],
    link_exists: impl Fn(&LinkName) -> bool,
) -> Vec<Kept> {
    let mut kept = Vec::new();
    for network in attachment::networks(data_dir).unwrap_or_default() {
        let Ok(Some(store)) = Store::find(data_dir, &network) else { continue };
        let store = Rc::new(store);
        let Ok(records) = store.records() else { continue };
        for mut entry in records.flatten().filter(|entry| !entry.record.host_ports.is_empty()) {
            // What an ADD under way has opened agrees with its own record.
            if entry.state == State::Attached {
                entry.record.wiring.node_addresses.splice(0..0, node_addresses.iter().copied());
            }
            if entry.state == State::Adding || link_exists(&entry.record.wiring.host_link) {
                kept.push(Kept { store: Rc::clone(&store), entry });
            }
        }
    }
    kept
}

/// Element by element: removes what no record has in the given transaction, then puts back what pods that are attached
/// lack, each while its record is held.
fn correct(
    socket: &mut Socket,
    mut removal: Transaction,
    known: &Table,
    differences: Vec<Difference>,
    kept: &[Kept],
) -> Result<RebuildReport, KernelError> {
    let mut report = RebuildReport::default();
    let mut missing: HashSet<(String, Element)> = HashSet::new();
    for difference in differences {
        let Difference::Elements { set, missing: lacking, unexpected } = difference else { continue };
        if let Some(declared) = known.sets.iter().find(|declared| declared.name == set) {
            removal.delete_elements(&known.name, declared, &unexpected);
            report.removed += unexpected.len();
            // Addresses of dummy links belong to nobody who could hold them.
            if declared.data.is_none() {
                removal.add_elements(&known.name, declared, &lacking, Existing::Keep);
                report.added += lacking.len();
                continue;
            }
        }
        missing.extend(lacking.into_iter().map(|element| (set.clone(), element)));
    }
    if !removal.is_empty() {
        removal.commit(socket)?;
    }
    if missing.is_empty() {
        return Ok(report);
    }
    for Kept { store, entry } in kept.iter().filter(|kept| kept.entry.state == State::Attached) {
        let lacking: Vec<Placed> = elements_of(&entry.record)
            .into_iter()
            .filter(|placed| missing.contains(&(placed.set.to_owned(), placed.element.clone())))
            .collect();
        if lacking.is_empty() {
            continue;
        }
        // Being removed, or gone: nothing of it is to come back.
        let Ok(Some(held)) = store.detach(&entry.record.attachment) else { continue };
        let mut transaction = Transaction::new();
        for Placed { set, element } in &lacking {
            if let Some(declared) = known.sets.iter().find(|declared| declared.name == *set) {
                transaction.add_elements(
                    &known.name,
                    declared,
                    std::slice::from_ref(element),
                    Existing::Refuse,
                );
            }
        }
        let done = transaction.commit(socket);
        drop(held);
        match done {
            Ok(()) => report.added += lacking.len(),
            // Opened by the pod's own ADD since the table was read, or taken away with the whole table: either brings about
            // another pass.
            Err(error) if error.is_present() || error.is_absent() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

fn has_ports(table: &Table) -> bool {
    table.sets.iter().any(|set| set.data.is_some() && !set.elements.is_empty())
}

fn count(table: &Table) -> usize {
    table.sets.iter().map(|set| set.elements.len()).sum()
}
