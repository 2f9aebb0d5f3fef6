//! Accept rules in iptables' chains.

use kernel::netlink::Socket;
use kernel::nftables::Transaction;
use kernel::nftables::xtables::filter_table;
use node_network::plan::ForwardRuleChange;

use super::ApplyError;
use crate::nft_table::version;
use crate::observe::accept_rule;

pub(crate) fn apply(change: &ForwardRuleChange, socket: &mut Socket) -> Result<(), ApplyError> {
    let mut transaction = Transaction::new();
    match change {
        ForwardRuleChange::Insert { place, accept } => {
            let table = filter_table(version(place.family));
            transaction.insert_rule(&table, place.position.chain_name(), &accept_rule(accept));
        }
        ForwardRuleChange::Remove { place, handle, .. } => {
            let table = filter_table(version(place.family));
            transaction.delete_rule(&table, place.position.chain_name(), *handle);
        }
    }
    match transaction.commit(socket) {
        Err(error) if error.is_absent() && matches!(change, ForwardRuleChange::Remove { .. }) => Ok(()),
        other => Ok(other?),
    }
}
