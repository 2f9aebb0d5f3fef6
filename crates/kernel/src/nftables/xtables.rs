//! Rules for chains that iptables owns, in the only words that it can read: what stands here is, expression by
//! expression, what iptables-nft 1.8 itself writes, so that `iptables-save` shows it and a restore brings it back.
//!
//! A native set match in such a chain would be shown as no match at all, and a save and restore would make of it a rule
//! that accepts everything.

use ipnet::IpNet;
use link_name::LinkName;

use super::{Family, Rule, Selector, Statement, TableName};
use crate::route;

/// `XT_MAX_COMMENT_LEN`, the size of `struct xt_comment_info`.
const COMMENT_LEN: usize = 256;

/// A rule of iptables that accepts: `-i start+ -o start+ -s net -d net -m comment --comment … -j ACCEPT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// `-i start+`: the links on which packets come in.
    pub from_links: Option<LinkName>,
    /// `-o start+`: the links on which packets go out.
    pub to_links: Option<LinkName>,
    /// `-s`: the packets' source.
    pub source: Option<IpNet>,
    /// `-d`: the packets' destination.
    pub destination: Option<IpNet>,
    /// The comment by which the rule is known again. iptables keeps 255 bytes.
    pub comment: String,
}

impl Accept {
    /// The rule, for [`filter_table`] of the addresses' version.
    #[must_use]
    pub fn rule(&self) -> Rule {
        let mut statements = Vec::with_capacity(7);
        statements.extend(self.from_links.clone().map(Statement::iifname_starts_with));
        statements.extend(self.to_links.clone().map(Statement::oifname_starts_with));
        // iptables writes nothing for "any address".
        let narrows = |net: &IpNet| net.prefix_len() > 0;
        let source = self.source.filter(narrows);
        let destination = self.destination.filter(narrows);
        statements.extend(source.map(|net| Statement::is(Selector::Saddr(version(net)), net)));
        statements.extend(destination.map(|net| Statement::is(Selector::Daddr(version(net)), net)));
        statements.push(comment_match(&self.comment));
        statements.push(Statement::Counter);
        statements.push(Statement::accept());
        Rule::new(statements)
    }
}

/// iptables' table `filter`.
#[must_use]
pub fn filter_table(version: route::Family) -> TableName {
    let family = match version {
        route::Family::V4 => Family::Ip,
        route::Family::V6 => Family::Ip6,
    };
    TableName::new(family, "filter")
}

fn version(net: IpNet) -> route::Family {
    match net {
        IpNet::V4(_) => route::Family::V4,
        IpNet::V6(_) => route::Family::V6,
    }
}

fn comment_match(comment: &str) -> Statement {
    let mut end = comment.len().min(COMMENT_LEN - 1);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    let mut info = vec![0; COMMENT_LEN];
    info[..end].copy_from_slice(&comment.as_bytes()[..end]);
    Statement::XtMatch { name: "comment".to_owned(), revision: 0, info }
}

/// The comment in a rule of iptables.
#[must_use]
pub fn comment_of(rule: &super::ObservedRule) -> Option<String> {
    super::expression::parse(&rule.expressions).find_map(|(name, data)| {
        let attributes = crate::netlink::Attributes::new(data);
        (name == "match" && attributes.get(1)?.text() == "comment")
            .then(|| attributes.get(3))
            .flatten()
            .map(|info| info.text())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_that_is_too_long_is_cut_at_a_character() {
        let Statement::XtMatch { info, .. } = comment_match(&"ä".repeat(200)) else { panic!() };
        assert_eq!(info.len(), COMMENT_LEN);
        assert_eq!(std::str::from_utf8(&info[..254]).unwrap(), "ä".repeat(127));
        assert_eq!(info[254..], [0, 0]);
    }
}
