//! Opening and closing the host ports of one attachment.

use std::path::Path;

use attachment::{Attachment, Claim, NetworkName, Protocol, Record, Store};
use kernel::KernelError;
use kernel::conntrack;
use kernel::netlink::{self, Socket};
use kernel::nftables::{Element, Existing, Family, Set, TableName, Transaction, elements};
use rustix::io::Errno;

use super::HostPortError;
use super::table::{Placed, TABLE, elements_of, empty_sets, empty_table, number};

/// Whether a record's host ports are known to be in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// Its ADD succeeded: under these keys there is nothing of anybody else.
    Surely,
    /// Its ADD died or failed: under these keys may be what it clashed with.
    Perhaps,
}

/// How often a transaction is tried again that met another ADD's.
const ATTEMPTS: usize = 4;

fn table_name() -> TableName {
    TableName::new(Family::Inet, TABLE)
}

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
    let mut stale: Vec<Placed> = Vec::new();
    let mut table_is_there = true;
    for _ in 0..ATTEMPTS {
        let mut transaction = Transaction::new();
        if !table_is_there {
            // Two first pods at once: one makes table, chains and rules, the other is refused and comes back.
            transaction.create(&empty_table(), Existing::Refuse);
        }
        write(&mut transaction, &stale, |transaction, set, element| {
            transaction.delete_elements(&table_name(), set, element);
        });
        write(&mut transaction, &placed, |transaction, set, element| {
            transaction.add_elements(&table_name(), set, element, Existing::Keep);
        });
        match transaction.commit(&mut socket) {
            Ok(()) => return forget_old_flows(record, &mut socket),
            Err(error) if error.errno == Errno::NOENT && table_is_there && stale.is_empty() => {
                table_is_there = false;
            }
            Err(error) if error.is_present() && !table_is_there => table_is_there = true,
            // What was stale has gone by itself.
            Err(error) if error.errno == Errno::NOENT && !stale.is_empty() => stale.clear(),
            Err(error) if error.is_present() => {
                stale = clashing(&mut socket, &placed).map_err(failed)?;
                refuse_living(record, data_dir, &link_is_gone)?;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(KernelError::new("agree with other changes of the table", Errno::AGAIN)))
}

/// Closes the host ports of `record`; those that are closed already are well.
///
/// The socket is given back to be held while links are deleted: whoever is the last to close a netfilter socket waits
/// for an RCU grace period (about 10 ms) if elements were removed lately, so let it be the child of `delete_link`.
pub(crate) fn withdraw(record: &Record, published: Published) -> Result<Option<Socket>, HostPortError> {
    let placed = elements_of(record);
    if placed.is_empty() {
        return Ok(None);
    }
    let failed = |cause| failure("close", record, cause);
    let mut socket = Socket::open(netlink::Protocol::Netfilter).map_err(failed)?;
    let mut doomed = placed.clone();
    let mut sure = published == Published::Surely;
    for _ in 0..ATTEMPTS {
        if !sure {
            doomed = present(&mut socket, &placed).map_err(failed)?;
        }
        let mut transaction = Transaction::new();
        write(&mut transaction, &doomed, |transaction, set, element| {
            transaction.delete_elements(&table_name(), set, element);
        });
        match transaction.commit(&mut socket) {
            Ok(()) => return forget_own_flows(record, &mut socket).map(|()| Some(socket)),
            // One of them is gone, after a flush of the ruleset, say: then only those that are there.
            Err(error) if error.errno == Errno::NOENT => sure = false,
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(KernelError::new("agree with other changes of the table", Errno::AGAIN)))
}

/// The host ports of `record` that are not in the table, for CHECK.
pub(crate) fn missing(record: &Record) -> Result<Vec<String>, HostPortError> {
    let placed = elements_of(record);
    if placed.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |cause| failure("look up", record, cause);
    let mut socket = Socket::open(netlink::Protocol::Netfilter).map_err(failed)?;
    let found = present(&mut socket, &placed).map_err(failed)?;
    if found.len() == placed.len() {
        return Ok(Vec::new());
    }
    let ports: Vec<String> = record.host_ports.iter().map(ToString::to_string).collect();
    Ok(vec![format!("not all of the host ports {} are open", ports.join(", "))])
}

fn failure(attempted: &'static str, record: &Record, cause: KernelError) -> HostPortError {
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

/// Those of `placed` that the table holds just so.
fn present(socket: &mut Socket, placed: &[Placed]) -> Result<Vec<Placed>, KernelError> {
    let held = held(socket, placed)?;
    Ok(placed.iter().filter(|placed| held.contains(placed)).cloned().collect())
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

/// An element that clashes belongs to another network's pod, or to a pod that is gone. In the first case it stays.
fn refuse_living(
    record: &Record,
    data_dir: &Path,
    link_is_gone: &impl Fn(&NetworkName, &Attachment, Option<&Record>) -> bool,
) -> Result<(), HostPortError> {
    for network in attachment::networks(data_dir).unwrap_or_default() {
        let Ok(Some(store)) = Store::find(data_dir, &network) else { continue };
        for port in &record.host_ports {
            for claim in port.claims() {
                let Some(owner) = owner(&store, &claim, record) else { continue };
                let entry = store.lookup(&owner).ok().flatten();
                if !link_is_gone(&network, &owner, entry.as_ref().map(|entry| &entry.record)) {
                    let owner = format!("attachment {owner} of network `{network}`");
                    return Err(HostPortError::Taken { port: port.to_string(), owner });
                }
            }
        }
    }
    Ok(())
}

/// Whose claim it is, if somebody else's.
fn owner(store: &Store, claim: &Claim, record: &Record) -> Option<Attachment> {
    let owner = store.owner_of_claim(claim).ok().flatten()?;
    (*store.network() != record.network || owner != record.attachment).then_some(owner)
}

/// Flows that were there before the port was opened go on past it: UDP and SCTP have no other beginning to wait for.
fn forget_old_flows(record: &Record, socket: &mut Socket) -> Result<(), HostPortError> {
    for port in record.host_ports.iter().filter(|port| port.protocol != Protocol::Tcp) {
        for allocation in &record.addresses {
            let pod = allocation.address.addr();
            let host_ip = port.host_ip.filter(|ip| !ip.is_unspecified());
            if host_ip.is_some_and(|ip| ip.is_ipv4() != pod.is_ipv4()) {
                continue;
            }
            conntrack::delete_to_port(
                socket,
                family(pod),
                number(port.protocol),
                port.host_port.get(),
                host_ip,
            )
            .map_err(|cause| failure("forget old flows to", record, cause))?;
        }
    }
    Ok(())
}

/// Flows that lead to the pod would lead to whoever gets its address next.
fn forget_own_flows(record: &Record, socket: &mut Socket) -> Result<(), HostPortError> {
    for port in record.host_ports.iter().filter(|port| port.protocol != Protocol::Tcp) {
        for allocation in &record.addresses {
            let pod = allocation.address.addr();
            conntrack::delete_replies_from(socket, pod, number(port.protocol), port.container_port.get())
                .map_err(|cause| failure("forget flows of", record, cause))?;
        }
    }
    Ok(())
}

fn family(ip: std::net::IpAddr) -> kernel::route::Family {
    if ip.is_ipv4() { kernel::route::Family::V4 } else { kernel::route::Family::V6 }
}
