//! Masquerading by the table `inet hostgw_masquerade`: each pod's address leads to the chain of its subnet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni_spec::{Attachment, NetworkName};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use kernel::KernelError;
use kernel::nftables::{
    BaseChain, Chain, ChainKind, DataType, Element, Family, Hook, MapData, NatFlags, Policy, Rule, Selector,
    Set, Statement, Table, Transaction, Value, Verdict, chain_uses, priority,
};
use kernel::route;
use rustix::io::Errno;

use super::Masquerade;
use crate::netfilter;
use crate::owned_table::{DROP_IN_TABLES, Owned, OwnedTable, PutError};
use crate::owner_tag;

const TABLE: OwnedTable =
    OwnedTable { name: DROP_IN_TABLES[1], sets: &["pods4", "pods6"], uses: &[("postrouting", 2)], frame };
/// How many rules the chain of a subnet has.
const SUBNET_RULES: u32 = 3;

fn frame() -> Table {
    let mut table = Table::new(Family::Inet, TABLE.name);
    let map = |name, version| Set::map(name, [DataType::address(version)], MapData::Verdict);
    table.sets = vec![map("pods4", route::Family::V4), map("pods6", route::Family::V6)];
    let look_up = |version, map: &str| {
        Rule::new([Statement::VerdictMap { selectors: vec![Selector::Saddr(version)], map: map.to_owned() }])
    };
    let postrouting = BaseChain {
        kind: ChainKind::Nat,
        hook: Hook::Postrouting,
        priority: priority::SRCNAT,
        policy: Policy::Accept,
    };
    table.chains = vec![Chain::base(
        "postrouting",
        postrouting,
        vec![look_up(route::Family::V4, "pods4"), look_up(route::Family::V6, "pods6")],
    )];
    table
}

fn version(ip: IpAddr) -> route::Family {
    if ip.is_ipv4() { route::Family::V4 } else { route::Family::V6 }
}

/// What goes to the subnet itself and what goes to many stays as it is: pods must know each other by their addresses.
fn subnet_chain(subnet: IpNet) -> Chain {
    let version = version(subnet.addr());
    let multicast: IpNet = match version {
        route::Family::V4 => Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4).into(),
        route::Family::V6 => Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8).into(),
    };
    let stays = |net: IpNet| {
        Rule::new([Statement::is(Selector::Daddr(version), net), Statement::Verdict(Verdict::Return)])
    };
    let masquerade = Rule::new([Statement::Masquerade { flags: NatFlags::default() }]);
    // nft's grammar has no colons in names.
    let name = format!("outside-{}", subnet.to_string().replace(':', "-"));
    Chain::regular(name, vec![stays(subnet), stays(multicast), masquerade])
}

fn chains_of(pods: &[IpNet]) -> Vec<Chain> {
    let mut subnets: Vec<IpNet> = pods.iter().map(IpNet::trunc).collect();
    subnets.sort();
    subnets.dedup();
    subnets.into_iter().map(subnet_chain).collect()
}

fn owned(masquerade: &Masquerade<'_>, pods: &[IpNet]) -> Vec<Owned> {
    let tag = owner_tag::of_attachment(masquerade.network, masquerade.attachment);
    let comment = format!("{tag} {} of {}", masquerade.attachment, masquerade.network);
    let element = |pod: &IpNet| {
        let to = Verdict::Goto(subnet_chain(pod.trunc()).name);
        let element = Element::deciding([Value::Ip(pod.addr())], to).comment(comment.as_str());
        Owned { set: if pod.addr().is_ipv4() { "pods4" } else { "pods6" }, element }
    };
    pods.iter().map(element).collect()
}

pub(super) fn install(masquerade: &Masquerade<'_>, pods: &[IpNet]) -> Result<(), KernelError> {
    let mut socket = netfilter::socket()?;
    let name = TABLE.full_name();
    let chains = chains_of(pods);
    let names: Vec<&str> = chains.iter().map(|chain| chain.name.as_str()).collect();
    let uses = chain_uses(&mut socket, &name, &names)?;
    let is_whole = |uses: &Option<u32>| uses.is_some_and(|uses| uses >= SUBNET_RULES);
    let wanting: Vec<&Chain> =
        chains.iter().zip(&uses).filter(|(_, uses)| !is_whole(uses)).map(|(chain, _)| chain).collect();
    let make_chains = |transaction: &mut Transaction| {
        for chain in &wanting {
            // Emptied in the same transaction, so that two who make it at once leave the rules of one.
            transaction.add_chain(&name, chain).flush_chain(&name, &chain.name);
            for rule in &chain.rules {
                transaction.append_rule(&name, &chain.name, rule);
            }
        }
    };
    // An address has one holder: who had it before, and whose DEL was lost, has it no more.
    match TABLE.put(&mut socket, &owned(masquerade, pods), make_chains, |_| true) {
        Ok(()) => Ok(()),
        Err(PutError::Kernel(error)) => Err(error.attempting("masquerade the pod's addresses")),
        Err(PutError::Taken(_)) => Err(KernelError::new("masquerade the pod's addresses", Errno::EXIST)),
    }
}

pub(super) fn differences(masquerade: &Masquerade<'_>, pods: &[IpNet]) -> Result<Vec<String>, KernelError> {
    let mut socket = netfilter::socket()?;
    let (mut differences, found) = TABLE.differences(&mut socket, &owned(masquerade, pods))?;
    let Some(found) = found else { return Ok(differences) };
    for wanted in chains_of(pods) {
        let held = found.chains.iter().find(|chain| chain.name == wanted.name);
        let is_whole = held.is_some_and(|held| {
            held.rules.len() == wanted.rules.len()
                && held.rules.iter().zip(&wanted.rules).all(|(held, wanted)| held.is(wanted, Family::Inet))
        });
        if !is_whole {
            differences.push(format!(
                "the rules of chain `{}` were changed (table `inet {}`)",
                wanted.name, TABLE.name
            ));
        }
    }
    Ok(differences)
}

pub(super) fn remove(masquerade: &Masquerade<'_>) -> Result<(), KernelError> {
    let tag = owner_tag::of_attachment(masquerade.network, masquerade.attachment);
    TABLE.remove_tagged(&tag).map(drop)
}

pub(super) fn collect(network: &NetworkName, valid: &[Attachment]) -> Result<(), KernelError> {
    let tags: Vec<String> =
        valid.iter().map(|attachment| owner_tag::of_attachment(network, attachment)).collect();
    TABLE.remove_invalid(&owner_tag::of_network(network), &tags).map(drop)
}
