//! Our own table in nftables.

use kernel::KernelError;
use kernel::netlink::Socket;
use kernel::nftables::{
    BaseChain, Element, Family, Hook, ObservedChain, ObservedRule, Policy, Value, observe,
};
use node_network::desired::NftTable;
use node_network::family::host_prefix;
use node_network::observed::ObservedNftTable;

use crate::nft_table;

/// The table as it is, none where there is none. A rule is taken for the wanted one only if its expressions are: one
/// that was changed under its comment is not.
pub(super) fn observed_table(
    socket: &mut Socket,
    wanted: &NftTable,
) -> Result<Option<ObservedNftTable>, KernelError> {
    let Some(found) = observe(socket, &nft_table::table_name())? else { return Ok(None) };
    let mut table = ObservedNftTable::default();
    for chain in &found.chains {
        table.chains.insert(chain.name.clone(), describe(chain, found.dormant));
        for (index, rule) in chain.rules.iter().enumerate() {
            table.rules.push((chain.name.clone(), comment(wanted, chain, index, rule)));
        }
    }
    for observed in &found.sets {
        let mut elements: Vec<_> = observed.set.elements.iter().flat_map(prefixes).collect();
        elements.sort();
        elements.dedup();
        table.sets.insert(observed.set.name.clone(), elements);
    }
    Ok(Some(table))
}

fn comment(wanted: &NftTable, chain: &ObservedChain, index: usize, found: &ObservedRule) -> String {
    let said = found.comment.as_ref().map(|comment| comment.as_str().to_owned()).unwrap_or_default();
    let same_place = wanted.chains.iter().find(|wanted| wanted.name == chain.name);
    match same_place.and_then(|chain| chain.rules.get(index)).and_then(|rule| nft_table::rule(rule).ok()) {
        Some(rule) if !found.is(&rule, Family::Inet) => format!("{said} (changed)"),
        _ => said,
    }
}

/// In the words of the desired chain's `Display`.
fn describe(chain: &ObservedChain, dormant: bool) -> String {
    let Some(BaseChain { kind, hook, priority, policy }) = &chain.base else {
        return "no base chain".to_owned();
    };
    let hook = match hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
        Hook::Other(_) => "other",
    };
    let policy = if *policy == Policy::Accept { "accept" } else { "drop" };
    let dormant = if dormant { " (dormant)" } else { "" };
    format!("type {} hook {hook} priority {priority}; policy {policy}{dormant}", kind.as_str())
}

fn prefixes(element: &Element) -> Option<ipnet::IpNet> {
    match element.key.as_slice() {
        [Value::Ip(address)] => Some(host_prefix(*address)),
        [Value::Net(prefix)] => Some(*prefix),
        _ => None,
    }
}
