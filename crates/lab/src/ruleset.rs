//! Rulesets: a foreign table to plant, tables of ours to break, and everybody else's to compare byte by byte.

use std::collections::BTreeMap;

use kernel::KernelError;
use kernel::netlink::{Attributes, Batch, Protocol, Socket};
use kernel::nftables::{
    self, BaseChain, Chain, ChainKind, Existing, Family, Hook, ObservedChain, Policy, Rule, Selector, Set,
    Statement, Table, TableName, Transaction, Value, priority,
};
use kernel::route::Family as Version;

/// Masquerading and protection, kept by the agent.
pub(crate) const AGENT_TABLE: &str = "hostgw";
/// Host ports, kept by the plugin.
pub(crate) const HOST_PORT_TABLE: &str = "hostgw_hostport";
/// The tables of the family `inet` that are ours.
const OURS: [&str; 2] = [AGENT_TABLE, HOST_PORT_TABLE];

/// Where iptables keeps its rules for what is forwarded.
const IPTABLES_FILTER: &str = "filter";
const IPTABLES_FORWARD: &str = "FORWARD";

/// `NFNL_SUBSYS_NFTABLES` and its requests for lists (`linux/netfilter/nf_tables.h`).
const GETTABLE: u16 = 0xa01;
const GETCHAIN: u16 = 0xa04;
const GETRULE: u16 = 0xa07;
const GETSET: u16 = 0xa0a;
const GETSETELEM: u16 = 0xa0d;
/// The first attribute of every object is its table's name, the second of a set its own.
const TABLE_NAME: u16 = 1;
const SET_NAME: u16 = 2;

/// A filter of somebody's, with a set, as a host firewall has it. It refuses nothing that the lab sends.
fn foreign_table() -> Result<Table, ipnet::AddrParseError> {
    let refused = Set::prefixes("refused", Version::V4, &["100.64.0.0/10".parse()?, "240.0.0.0/4".parse()?]);
    let base = |hook| BaseChain {
        kind: ChainKind::Filter,
        hook,
        priority: priority::FILTER,
        policy: Policy::Accept,
    };
    let drop_refused =
        || Rule::new([Statement::is_in([Selector::Saddr(Version::V4)], "refused"), Statement::drop()]);
    let mut table = Table::new(Family::Ip, "foreign");
    table.sets = vec![refused];
    table.chains = vec![
        Chain::base("input", base(Hook::Input), vec![drop_refused()]),
        Chain::base("forward", base(Hook::Forward), vec![drop_refused(), Rule::new([Statement::accept()])]),
    ];
    Ok(table)
}

/// Plants the foreign table.
pub(crate) fn plant_foreign_table() -> Result<(), KernelError> {
    let unreadable = |_| KernelError::new("plant a foreign table", rustix::io::Errno::INVAL);
    let table = foreign_table().map_err(unreadable)?;
    let mut transaction = Transaction::new();
    transaction.create(&table, Existing::Refuse);
    transaction.commit(&mut Socket::open(Protocol::Netfilter)?)
}

/// Plants the chains in which Docker and ufw drop by policy what a node forwards, as iptables makes them.
pub(crate) fn plant_dropping_forward() -> Result<(), KernelError> {
    let base = BaseChain {
        kind: ChainKind::Filter,
        hook: Hook::Forward,
        priority: priority::FILTER,
        policy: Policy::Drop,
    };
    let mut transaction = Transaction::new();
    for family in [Family::Ip, Family::Ip6] {
        let mut table = Table::new(family, IPTABLES_FILTER);
        table.chains = vec![Chain::base(IPTABLES_FORWARD, base.clone(), Vec::new())];
        transaction.create(&table, Existing::Refuse);
    }
    transaction.commit(&mut Socket::open(Protocol::Netfilter)?)
}

/// Deletes the rules of those chains, as `iptables -F FORWARD` does.
pub(crate) fn flush_forward() -> Result<(), KernelError> {
    let mut transaction = Transaction::new();
    for family in [Family::Ip, Family::Ip6] {
        transaction.flush_chain(&TableName::new(family, IPTABLES_FILTER), IPTABLES_FORWARD);
    }
    transaction.commit(&mut Socket::open(Protocol::Netfilter)?)
}

/// A table that drops what these addresses send.
const SILENCE: &str = "silence";

/// Drops whatever `sources` send, until [`end_silence`].
pub(crate) fn silence(sources: &[ipnet::IpNet]) -> Result<(), KernelError> {
    let version = |net: &ipnet::IpNet| if net.addr().is_ipv4() { Version::V4 } else { Version::V6 };
    let drop_from = |net: &ipnet::IpNet| {
        Rule::new([Statement::is(Selector::Saddr(version(net)), Value::Net(*net)), Statement::drop()])
    };
    let base = BaseChain {
        kind: ChainKind::Filter,
        hook: Hook::Prerouting,
        priority: priority::FILTER,
        policy: Policy::Accept,
    };
    let mut table = Table::new(Family::Inet, SILENCE);
    table.chains = vec![Chain::base("prerouting", base, sources.iter().map(drop_from).collect())];
    let mut transaction = Transaction::new();
    transaction.create(&table, Existing::Refuse);
    transaction.commit(&mut Socket::open(Protocol::Netfilter)?)
}

/// Lets them be heard again.
pub(crate) fn end_silence() -> Result<(), KernelError> {
    delete_our_table(SILENCE)
}

/// Deletes a table of ours, as `nft delete table inet NAME` does.
pub(crate) fn delete_our_table(name: &str) -> Result<(), KernelError> {
    let mut transaction = Transaction::new();
    transaction.delete_table(&TableName::new(Family::Inet, name));
    transaction.commit(&mut Socket::open(Protocol::Netfilter)?)
}

/// Deletes everybody's tables, as `nft flush ruleset` does.
pub(crate) fn flush_everything() -> Result<(), KernelError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut transaction = Transaction::new();
    for table in nftables::tables(&mut socket, None)? {
        transaction.delete_table(&table.name);
    }
    transaction.commit(&mut socket)
}

/// Deletes the rules of every chain of ours, as `nft flush table` does.
pub(crate) fn flush_our_rules() -> Result<(), KernelError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut transaction = Transaction::new();
    for chain in our_chains(&mut socket)? {
        transaction.flush_chain(&chain.table, &chain.name);
    }
    transaction.commit(&mut socket)
}

fn our_chains(socket: &mut Socket) -> Result<Vec<ObservedChain>, KernelError> {
    let mut chains = nftables::chains(socket, Some(Family::Inet))?;
    chains.retain(|chain| OURS.contains(&chain.table.name.as_str()));
    Ok(chains)
}

/// How many rules each chain of ours holds, by table and chain.
pub(crate) fn count_our_rules() -> Result<BTreeMap<String, usize>, KernelError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut counts: BTreeMap<_, _> = our_chains(&mut socket)?
        .into_iter()
        .map(|chain| (format!("{} {}", chain.table.name, chain.name), 0))
        .collect();
    for table in OURS {
        for rule in nftables::rules(&mut socket, &TableName::new(Family::Inet, table), None)? {
            *counts.entry(format!("{table} {}", rule.chain)).or_default() += 1;
        }
    }
    Ok(counts)
}

/// Every table, chain, rule, set and element that is not of ours, as the kernel's own bytes: typed values might leave
/// out the very part that changed.
pub(crate) fn dump_foreign() -> Result<Vec<Vec<u8>>, KernelError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut objects = Vec::new();
    for kind in [GETTABLE, GETRULE] {
        objects.extend(dump(&mut socket, kind, 0, |_| {})?);
    }
    objects.extend(dump(&mut socket, GETCHAIN, 0, |_| {})?.iter().map(|chain| without_use(chain)));
    for set in dump(&mut socket, GETSET, 0, |_| {})? {
        let (family, attributes) = (set[0], Attributes::new(&set[1..]));
        if let (Some(table), Some(name)) = (attributes.get(TABLE_NAME), attributes.get(SET_NAME)) {
            let (table, name) = (table.text(), name.text());
            objects.extend(dump(&mut socket, GETSETELEM, family, |request| {
                request.text(TABLE_NAME, &table).text(SET_NAME, &name);
            })?);
        }
        objects.push(set);
    }
    Ok(objects)
}

/// A chain without the count of its rules: what others add is theirs.
fn without_use(chain: &[u8]) -> Vec<u8> {
    /// `NFTA_CHAIN_USE`.
    const USE: u16 = 6;
    let (family, attributes) = chain.split_at(1);
    let mut kept = family.to_vec();
    for attribute in Attributes::new(attributes).filter(|attribute| attribute.kind() != USE) {
        kept.extend(attribute.kind().to_ne_bytes());
        kept.extend(attribute.value());
    }
    kept
}

fn dump(
    socket: &mut Socket,
    kind: u16,
    family: u8,
    narrow: impl FnOnce(&mut kernel::netlink::Message<'_>),
) -> Result<Vec<Vec<u8>>, KernelError> {
    let mut request = Batch::new();
    narrow(&mut request.message("list the ruleset", kind, 0, &[family, 0, 0, 0]));
    let mut objects = Vec::new();
    socket.dump(&mut request, |object| match object {
        Some((_, payload)) => objects.extend(foreign(payload)),
        None => objects.clear(),
    })?;
    Ok(objects)
}

/// The family and the attributes of an object that is not ours. Between them stands the ruleset's generation, which
/// every change of anybody's moves.
fn foreign(payload: &[u8]) -> Option<Vec<u8>> {
    /// `NFPROTO_INET`.
    const INET: u8 = 1;
    let (header, attributes) = payload.split_at_checked(4)?;
    let table = Attributes::new(attributes).get(TABLE_NAME)?.text();
    let ours = header[0] == INET && OURS.contains(&table.as_str());
    (!ours).then(|| [&header[..1], attributes].concat())
}
