//! The table `inet hostgw`: each change is one transaction.

use kernel::netlink::Socket;
use kernel::nftables::{Existing, Transaction};
use node_network::plan::NftChange;

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
        NftChange::Elements(changes) => {
            for change in changes {
                let set = set(change.set, &[]);
                let elements =
                    |prefixes: &[ipnet::IpNet]| prefixes.iter().copied().map(element).collect::<Vec<_>>();
                transaction.delete_elements(&table_name(), &set, &elements(&change.remove));
                transaction.add_elements(&table_name(), &set, &elements(&change.add), Existing::Refuse);
            }
        }
    }
    Ok(transaction.commit(socket)?)
}
