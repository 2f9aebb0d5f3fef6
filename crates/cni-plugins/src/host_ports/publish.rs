//! Opening and closing the host ports of one attachment.

use std::net::IpAddr;
use std::path::Path;

use attachment::{Attachment, HostPort, NetworkName, Record};
use kernel::KernelError;
use kernel::netlink::{self, Socket};
use kernel::nftables::{Element, Existing, Set, Transaction, elements, observe};
use rustix::io::Errno;

use super::HostPortError;
use super::elements::{Placed, elements_of, ports_of};
use super::flows::{forget_old_flows, forget_own_flows};
use super::owner::refuse_living;
use super::soundness::{Soundness, flaws};
use super::table::{empty_sets, set_names, table_name};

/// How often a transaction is tried again that met somebody else's.
const ATTEMPTS: usize = 4;

/// Opens the host ports of `record`. `link_is_gone` tells whether the owner of a clashing element is dead; `data_dir` is
/// where owners are looked for.
pub(crate) fn publish(
    record: &Record,
    data_dir: &Path,
    link_is_gone: impl Fn(&NetworkName, &Attachment, Option<&Record>) -> bool,
) -> Result<(), HostPortError> {
    let placed = elements_of(record);
    if placed.is_empty() {
        return Ok(());
    }
    let failed = |cause| failure("open", record, cause);
    let mut socket = Socket::open(netlink::Protocol::Netfilter).map_err(failed)?;
    let mut soundness = Soundness::look(&mut socket).map_err(failed)?;
    let mut stale: Vec<Placed> = Vec::new();
    let mut refused = KernelError::new("agree with other changes of the table", Errno::AGAIN);
    for _ in 0..ATTEMPTS {
        let mut transaction = Transaction::new();
        soundness.mend(&mut transaction).map_err(failed)?;
        write(&mut transaction, &stale, |transaction, set, element| {
            transaction.delete_exactly(&table_name(), set, element);
        });
        write(&mut transaction, &placed, |transaction, set, element| {
            transaction.add_elements(&table_name(), set, element, Existing::Keep);
        });
        match transaction.commit(&mut socket) {
            Ok(()) => return forget_old_flows(record, &mut socket),
            Err(error) if error.is_present() || error.errno == Errno::NOENT => refused = error,
            Err(error) => return Err(failed(error)),
        }
        // Somebody made, changed or deleted the table, or has one of the ports.
        soundness = Soundness::look(&mut socket).map_err(failed)?;
        stale = clashing(&mut socket, &placed).map_err(failed)?;
        if !stale.is_empty() {
            refuse_living(record, &stale, data_dir, &link_is_gone)?;
        }
    }
    Err(failed(refused))
}

/// Closes the host ports of `record`, as far as they lead to it; those that are closed already, or lead elsewhere by now,
/// are well.
///
/// The socket is given back to be held while links are deleted: whoever is the last to close a netfilter socket waits
/// for an RCU grace period (about 10 ms) if elements were removed lately, so let it be the child of `delete_link`.
pub(crate) fn withdraw(record: &Record) -> Result<Option<Socket>, HostPortError> {
    let placed = elements_of(record);
    if placed.is_empty() {
        return Ok(None);
    }
    let failed = |cause| failure("close", record, cause);
    let mut socket = Socket::open(netlink::Protocol::Netfilter).map_err(failed)?;
    let mut doomed = placed.clone();
    let mut refused = KernelError::new("agree with other changes of the table", Errno::AGAIN);
    for _ in 0..ATTEMPTS {
        let mut transaction = Transaction::new();
        write(&mut transaction, &doomed, |transaction, set, element| {
            transaction.delete_exactly(&table_name(), set, element);
        });
        match transaction.commit(&mut socket) {
            Ok(()) => return forget_own_flows(record, &mut socket).map(|()| Some(socket)),
            // The table is gone, or a port is another's: then only what is there and ours.
            Err(error) if error.is_present() || error.errno == Errno::NOENT => refused = error,
            Err(error) => return Err(failed(error)),
        }
        doomed = present(&mut socket, &placed).map_err(failed)?;
    }
    Err(failed(refused))
}

/// How the host ports of `record` differ from what ADD left, for CHECK: elements that are missing or lead elsewhere, and
/// whatever is amiss with the table that makes them work.
pub(crate) fn differences(record: &Record) -> Result<Vec<String>, HostPortError> {
    let placed = elements_of(record);
    if placed.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |cause| failure("look up", record, cause);
    let mut socket = Socket::open(netlink::Protocol::Netfilter).map_err(failed)?;
    let found = observe(&mut socket, &table_name()).map_err(failed)?;
    let is_open = |wanted: &Placed| {
        let sets = found.iter().flat_map(|table| &table.sets).filter(|held| held.set.name == wanted.set);
        sets.flat_map(|held| &held.set.elements).any(|held| is_the_same(wanted, wanted.set, held))
    };
    let mut differences = Vec::new();
    if !placed.iter().all(is_open) {
        let ports: Vec<String> = record.host_ports.iter().map(ToString::to_string).collect();
        differences.push(format!("not all of the host ports {} are open", ports.join(", ")));
    }
    differences.extend(found.iter().flat_map(flaws));
    Ok(differences)
}

/// The host ports that lead to a pod, for one whose record was lost.
pub(crate) fn leading_to(pod: &[IpAddr]) -> Result<Vec<HostPort>, KernelError> {
    let mut socket = Socket::open(netlink::Protocol::Netfilter)?;
    let mut found = Vec::new();
    for set in empty_sets() {
        let Some(name) = set_names().find(|name| *name == set.name) else { continue };
        match elements(&mut socket, &table_name(), &set) {
            Ok(elements) => found.extend(elements.into_iter().map(|element| Placed { set: name, element })),
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ports_of(&found, pod))
}

pub(super) fn failure(attempted: &'static str, record: &Record, cause: KernelError) -> HostPortError {
    HostPortError::Kernel { attempted, attachment: record.attachment.to_string(), cause }
}

/// Hands the elements of each set to `put` together with the set's declaration: one message a set, so that however many
/// are refused, the refusals fit the socket's buffer.
fn write(
    transaction: &mut Transaction,
    placed: &[Placed],
    mut put: impl FnMut(&mut Transaction, &Set, &[Element]),
) {
    if placed.is_empty() {
        return;
    }
    for set in &empty_sets() {
        let elements: Vec<Element> = placed
            .iter()
            .filter(|placed| placed.set == set.name)
            .map(|placed| placed.element.clone())
            .collect();
        if !elements.is_empty() {
            put(transaction, set, &elements);
        }
    }
}

/// What the table holds in the sets that `placed` are of; nothing where there is no table.
fn held(socket: &mut Socket, placed: &[Placed]) -> Result<Vec<Placed>, KernelError> {
    let mut found = Vec::new();
    for set in empty_sets() {
        let Some(name) = placed.iter().map(|placed| placed.set).find(|name| *name == set.name) else {
            continue;
        };
        match elements(socket, &table_name(), &set) {
            Ok(elements) => found.extend(elements.into_iter().map(|element| Placed { set: name, element })),
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Those of `placed` that the table holds, as it holds them.
fn present(socket: &mut Socket, placed: &[Placed]) -> Result<Vec<Placed>, KernelError> {
    let mut held = held(socket, placed)?;
    held.retain(|held| placed.iter().any(|wanted| is_the_same(wanted, held.set, &held.element)));
    Ok(held)
}

/// Whether the element `held` of `set` is the one that is wanted. A way back to the pod itself is the pod's whatever
/// address of the node it names: the agent keeps that up to date, the record does not.
fn is_the_same(wanted: &Placed, set: &str, held: &Element) -> bool {
    wanted.set == set
        && wanted.element.key == held.key
        && (wanted.is_way_back() || wanted.element.data == held.data)
}

/// What the table holds in the place of `placed`.
fn clashing(socket: &mut Socket, placed: &[Placed]) -> Result<Vec<Placed>, KernelError> {
    let mut held = held(socket, placed)?;
    held.retain(|held| {
        placed.iter().any(|wanted| {
            wanted.set == held.set
                && wanted.element.key == held.element.key
                && wanted.element.data != held.element.data
        })
    });
    Ok(held)
}
