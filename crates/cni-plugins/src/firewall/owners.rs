//! Whose an address is for which there are rules: they are in the reference plugin's words, which have no place for it. So
//! sets of our own say it, and are gone at the next boot like the rules.

use std::net::IpAddr;

use cni_spec::{Attachment, NetworkName};
use kernel::KernelError;
use kernel::nftables::{DataType, Element, Family, Set, Table, Value};
use kernel::route;
use rustix::io::Errno;

use crate::chained::Valid;
use crate::netfilter;
use crate::owned_table::{DROP_IN_TABLES, Owned, OwnedTable, PutError};
use crate::owner_tag;

const TABLE: OwnedTable = OwnedTable { name: DROP_IN_TABLES[2], sets: &["pods4", "pods6"], uses: &[], frame };

fn frame() -> Table {
    let mut table = Table::new(Family::Inet, TABLE.name);
    table.sets = vec![
        Set::new("pods4", [DataType::address(route::Family::V4)]),
        Set::new("pods6", [DataType::address(route::Family::V6)]),
    ];
    table
}

fn address(owned: &Owned) -> Option<IpAddr> {
    match owned.element.key.first() {
        Some(Value::Ip(ip)) => Some(*ip),
        _ => None,
    }
}

/// Notes the owner of these addresses. Who had one before, and whose DEL was lost, has it no more.
pub(super) fn note(
    network: &NetworkName,
    attachment: &Attachment,
    pods: &[IpAddr],
) -> Result<(), KernelError> {
    let tag = owner_tag::of_attachment(network, attachment);
    let comment = format!("{tag} {attachment} of {network}");
    let owned = |pod: &IpAddr| Owned {
        set: if pod.is_ipv4() { "pods4" } else { "pods6" },
        element: Element::of([Value::Ip(*pod)]).comment(comment.as_str()),
    };
    let owned: Vec<Owned> = pods.iter().map(owned).collect();
    let mut socket = netfilter::socket()?;
    match TABLE.put(&mut socket, &owned, |_| {}, |_| true) {
        Ok(()) => Ok(()),
        Err(PutError::Kernel(error)) => Err(error.attempting("note the owner of the pod's addresses")),
        Err(PutError::Taken(_)) => {
            Err(KernelError::new("note the owner of the pod's addresses", Errno::EXIST))
        }
    }
}

/// Forgets an attachment, and gives the addresses whose rules can go: its own, and of those that it is told to have had
/// the ones that nobody else has by now.
pub(super) fn forget(
    network: &NetworkName,
    attachment: &Attachment,
    told: &[IpAddr],
) -> Result<Vec<IpAddr>, KernelError> {
    let tag = owner_tag::of_attachment(network, attachment);
    let mut socket = netfilter::socket()?;
    let removed = TABLE.remove(&mut socket, |owned| owned.is_of(&tag))?;
    let mut pods: Vec<IpAddr> = removed.iter().filter_map(address).collect();
    let unknown: Vec<IpAddr> = told.iter().filter(|told| !pods.contains(told)).copied().collect();
    if !unknown.is_empty() {
        let others: Vec<IpAddr> = TABLE.elements(&mut socket)?.iter().filter_map(address).collect();
        pods.extend(unknown.into_iter().filter(|pod| !others.contains(pod)));
    }
    if !removed.is_empty() {
        netfilter::removed();
    }
    Ok(pods)
}

/// Those of the addresses whose rules nobody here is known to have made.
pub(super) fn unknown(pods: &[IpAddr]) -> Result<Vec<IpAddr>, KernelError> {
    let known: Vec<IpAddr> = TABLE.elements(&mut *netfilter::socket()?)?.iter().filter_map(address).collect();
    Ok(pods.iter().filter(|pod| !known.contains(pod)).copied().collect())
}

/// Forgets the attachments of the network that are not valid, and gives their addresses.
pub(super) fn collect(valid: &Valid) -> Result<Vec<IpAddr>, KernelError> {
    let removed = TABLE.remove_invalid(&valid.network_tag, &valid.tags)?;
    Ok(removed.iter().filter_map(address).collect())
}
