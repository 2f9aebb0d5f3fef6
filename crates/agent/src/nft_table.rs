//! The desired table `inet hostgw` in the kernel's words.

use kernel::nftables::{
    BaseChain, Chain, ChainKind, Element, Family, Hook, NatFlags, Policy, Rule, Selector, Set, Statement,
    Table, TableName, Value, ct_state,
};
use kernel::route;
use link_name::{LinkName, LinkNameError};
use node_network::Family as Version;
use node_network::desired::{self, Match, NftTable, SetName, TABLE_NAME, Verdict};

/// What the table is called in the kernel.
pub(crate) fn table_name() -> TableName {
    TableName::new(Family::Inet, TABLE_NAME)
}

/// The kernel's version for ours.
pub(crate) const fn version(family: Version) -> route::Family {
    match family {
        Version::Ipv4 => route::Family::V4,
        Version::Ipv6 => route::Family::V6,
    }
}

/// The whole table. Fails only where a rule names a link whose name no ruleset can hold.
pub(crate) fn kernel_table(wanted: &NftTable) -> Result<Table, LinkNameError> {
    let chains = wanted.chains.iter().map(chain).collect::<Result<_, _>>()?;
    let sets = wanted.sets.iter().map(|(name, elements)| set(*name, elements)).collect();
    let comment = Some("maintained by hostgw agent".into());
    Ok(Table { comment, sets, chains, ..Table::new(Family::Inet, TABLE_NAME) })
}

/// A set with these elements.
pub(crate) fn set(name: SetName, elements: &[ipnet::IpNet]) -> Set {
    Set::prefixes(name.as_str(), version(name.family()), elements)
}

/// A prefix as an element.
pub(crate) fn element(prefix: ipnet::IpNet) -> Element {
    Element::of([Value::Net(prefix).canonical()])
}

fn chain(wanted: &desired::BaseChain) -> Result<Chain, LinkNameError> {
    let rules = wanted.rules.iter().map(rule).collect::<Result<_, _>>()?;
    Ok(Chain::base(wanted.name, base_chain(wanted), rules))
}

fn base_chain(wanted: &desired::BaseChain) -> BaseChain {
    BaseChain {
        kind: match wanted.kind {
            desired::ChainKind::Filter => ChainKind::Filter,
            desired::ChainKind::Nat => ChainKind::Nat,
        },
        hook: match wanted.hook {
            desired::Hook::Prerouting => Hook::Prerouting,
            desired::Hook::Forward => Hook::Forward,
            desired::Hook::Postrouting => Hook::Postrouting,
        },
        priority: wanted.priority,
        policy: Policy::Accept,
    }
}

/// One rule with its comment.
pub(crate) fn rule(wanted: &desired::Rule) -> Result<Rule, LinkNameError> {
    let mut statements = wanted.matches.iter().map(statement).collect::<Result<Vec<_>, _>>()?;
    statements.push(match wanted.verdict {
        Verdict::Accept => Statement::accept(),
        Verdict::Drop => Statement::drop(),
        Verdict::Snat(address) => Statement::snat_to(address),
        Verdict::Masquerade => Statement::Masquerade { flags: NatFlags::default() },
    });
    Ok(Rule::new(statements).comment(wanted.comment()))
}

fn statement(matched: &Match) -> Result<Statement, LinkNameError> {
    let saddr = |family| Selector::Saddr(version(family));
    let daddr = |family| Selector::Daddr(version(family));
    Ok(match matched {
        Match::IifnamePrefix(prefix) => Statement::iifname_starts_with(LinkName::new(*prefix)?),
        Match::Iifname(name) => Statement::is(Selector::IifName, LinkName::new(name.as_str())?),
        Match::Oifname(name) => Statement::is(Selector::OifName, LinkName::new(name.as_str())?),
        Match::Icmpv6Type(number) => Statement::is(Selector::Icmpv6Type, Value::Icmpv6Type(*number)),
        Match::SaddrIn(prefix) => {
            Statement::is(saddr(Version::of_net(prefix)), Value::Net(*prefix).canonical())
        }
        Match::SaddrInSet(set) => Statement::is_in([saddr(set.family())], set.as_str()),
        Match::DaddrInSet(set) => Statement::is_in([daddr(set.family())], set.as_str()),
        Match::DaddrNotInSet(set) => Statement::is_not_in([daddr(set.family())], set.as_str()),
        Match::Established => Statement::ct_state(ct_state::ESTABLISHED | ct_state::RELATED),
        Match::SourceNotBehindIif => Statement::fib_saddr_iif_missing(),
    })
}
