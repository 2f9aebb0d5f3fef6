//! The table `inet hostgw`: each change is one transaction.

use ipnet::IpNet;
use kernel::netlink::Socket;
use kernel::nftables::{Existing, Transaction};
use node_network::plan::{ElementChange, NftChange};

use super::ApplyError;
use crate::nft_table::{element, kernel_table, set, table_name};

pub(super) fn apply(change: &NftChange, socket: &mut Socket) -> Result<(), ApplyError> {
    let mut transaction = Transaction::new();
    match change {
        NftChange::Create(table) => {
            transaction.create(&kernel_table(table)?, Existing::Refuse);
        }
        NftChange::Rebuild(table) => {
            transaction.declare(&kernel_table(table)?);
        }
        NftChange::Elements(changes) => return apply_elements(changes, socket),
    }
    Ok(transaction.commit(socket)?)
}

/// Only what differs; where the kernel refuses that, each set as a whole.
fn apply_elements(changes: &[ElementChange], socket: &mut Socket) -> Result<(), ApplyError> {
    let table = table_name();
    let elements = |prefixes: &[IpNet]| prefixes.iter().copied().map(element).collect::<Vec<_>>();
    let mut difference = Transaction::new();
    for change in changes {
        let set = set(change.set, &[]);
        difference.delete_elements(&table, &set, &elements(&change.remove));
        difference.add_elements(&table, &set, &elements(&change.add), Existing::Refuse);
    }
    if difference.commit(socket).is_ok() {
        return Ok(());
    }
    let mut whole = Transaction::new();
    for change in changes {
        let set = set(change.set, &[]);
        whole.flush_set(&table, change.set.as_str());
        whole.add_elements(&table, &set, &elements(&change.wanted), Existing::Refuse);
    }
    Ok(whole.commit(socket)?)
}
