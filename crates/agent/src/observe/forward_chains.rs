//! Others' chains at the forward hook, and our accept rules in those of iptables.

use std::collections::BTreeSet;

use ipnet::IpNet;
use kernel::KernelError;
use kernel::netlink::Socket;
use kernel::nftables::xtables::{Accept, comment_of};
use kernel::nftables::{
    BaseChain, ChainKind, Family, Hook, ObservedChain, ObservedRule, Policy, Rule, TableName, base_chains,
    rules,
};
use node_network::Family as Version;
use node_network::desired::{Direction, ForwardAccept};
use node_network::observed::{ChainPosition, ForwardChain, ObservedAccept};

/// Comments of our rules begin so.
pub(crate) const COMMENT: &str = "hostgw: pods ";

/// The rule that accepts these pods' packets, in iptables' words.
pub(crate) fn accept_rule(accept: &ForwardAccept) -> Rule {
    let (word, source, destination) = match accept.direction {
        Direction::From => ("from", Some(accept.prefix), None),
        Direction::To => ("to", None, Some(accept.prefix)),
    };
    let comment = format!("{COMMENT}{word} {}", accept.prefix);
    Accept { from_links: None, to_links: None, source, destination, comment }.rule()
}

fn parse_comment(comment: &str) -> Option<ForwardAccept> {
    let (word, prefix) = comment.strip_prefix(COMMENT)?.split_once(' ')?;
    let prefix: IpNet = prefix.parse().ok()?;
    match word {
        "from" => Some(ForwardAccept { prefix, direction: Direction::From }),
        "to" => Some(ForwardAccept { prefix, direction: Direction::To }),
        _ => None,
    }
}

/// Every chain of others at the forward hook of IPv4 and IPv6.
pub(crate) fn forward_chains(socket: &mut Socket) -> Result<Vec<ForwardChain>, KernelError> {
    let mut found = Vec::new();
    for (chain, base) in base_chains(socket, Hook::Forward)? {
        if chain.table.name == node_network::desired::TABLE_NAME && chain.table.family == Family::Inet {
            continue;
        }
        let versions: &[Version] = match chain.table.family {
            Family::Ip => &[Version::Ipv4],
            Family::Ip6 => &[Version::Ipv6],
            Family::Inet => &Version::BOTH,
            Family::Arp | Family::Bridge | Family::Netdev => &[],
        };
        for version in versions {
            found.push(forward_chain(socket, *version, &chain, &base)?);
        }
    }
    Ok(found)
}

fn forward_chain(
    socket: &mut Socket,
    family: Version,
    chain: &ObservedChain,
    base: &BaseChain,
) -> Result<ForwardChain, KernelError> {
    let owned_by_iptables = chain.table.name == "filter"
        && chain.name == ChainPosition::Forward.chain_name()
        && chain.table.family != Family::Inet
        && base.kind == ChainKind::Filter;
    let mut observed = ForwardChain {
        family,
        table: chain.table.name.clone(),
        chain: chain.name.clone(),
        drops: base.policy == Policy::Drop,
        owned_by_iptables,
        docker_user: false,
        accepts: Vec::new(),
    };
    if owned_by_iptables {
        let own = rules(socket, &chain.table, Some(&chain.name))?;
        observed.drops |= refuse_everything(socket, &own)?;
        observed.docker_user = own.iter().any(jumps_to_docker_user);
        observed.accepts = accepts(&chain.table, ChainPosition::Forward, &own);
        if observed.docker_user {
            let name = ChainPosition::DockerUser.chain_name();
            let of_docker = rules(socket, &chain.table, Some(name))?;
            observed.accepts.extend(accepts(&chain.table, ChainPosition::DockerUser, &of_docker));
        }
    }
    Ok(observed)
}

/// Whether one of a chain's rules, or of the chains to which these send everything, refuses whatever comes to it. What
/// only some packets are sent to is an administrator's choice, and theirs to keep.
pub(super) fn refuse_everything(socket: &mut Socket, chain: &[ObservedRule]) -> Result<bool, KernelError> {
    let mut seen = BTreeSet::new();
    let mut ahead = chain.to_vec();
    while let Some(rule) = ahead.pop() {
        if rule.refuses_everything() {
            return Ok(true);
        }
        if let Some(next) = rule.sends_everything_to()
            && seen.insert(next.clone())
        {
            ahead.extend(rules(socket, &rule.table, Some(&next))?);
        }
    }
    Ok(false)
}

/// A verdict names its chain as a text that ends in NUL; nothing else in a rule of `FORWARD` would hold this one.
fn jumps_to_docker_user(rule: &ObservedRule) -> bool {
    let name = b"DOCKER-USER\0";
    rule.expressions.windows(name.len()).any(|window| window == name)
}

fn accepts(table: &TableName, position: ChainPosition, rules: &[ObservedRule]) -> Vec<ObservedAccept> {
    let mut on_top = true;
    let mut accepts = Vec::new();
    for rule in rules {
        match comment_of(rule).as_deref().and_then(parse_comment) {
            // A rule that only carries our comment is of no use; not to stand on top has it replaced.
            Some(accept) => {
                let whole = rule.is(&accept_rule(&accept), table.family);
                accepts.push(ObservedAccept {
                    position,
                    accept,
                    on_top: on_top && whole,
                    handle: rule.handle,
                });
            }
            None => on_top = false,
        }
    }
    accepts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_tells_what_its_rule_accepts() {
        let accept =
            ForwardAccept { prefix: "fd00:10:244:1::/64".parse().unwrap(), direction: Direction::To };
        assert_eq!(parse_comment("hostgw: pods to fd00:10:244:1::/64"), Some(accept));
        assert_eq!(parse_comment("hostgw: pods through 10.0.0.0/8"), None);
        assert_eq!(parse_comment("somebody else's"), None);
    }
}
