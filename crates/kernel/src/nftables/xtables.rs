//! Rules for chains that iptables owns, in the only words that it can read: what stands here is, expression by
//! expression, what iptables-nft 1.8 itself writes, so that `iptables-save` shows it and a restore brings it back.
//!
//! A native set match in such a chain would be shown as no match at all, and a save and restore would make of it a rule
//! that accepts everything.

use ipnet::IpNet;
use link_name::LinkName;

use super::{Family, Rule, Selector, Statement, TableName, Value, Verdict};
use crate::route;

/// `XT_MAX_COMMENT_LEN`, the size of `struct xt_comment_info`.
const COMMENT_LEN: usize = 256;
/// `struct xt_conntrack_mtinfo3` (`linux/netfilter/xt_conntrack.h`): eight addresses, two times, nine and four words of
/// 16 bits, aligned.
const CONNTRACK_LEN: usize = 168;
const MATCH_FLAGS: usize = 8 * 16 + 2 * 4 + 5 * 2;
const STATE_MASK: usize = MATCH_FLAGS + 4;
/// `XT_CONNTRACK_STATE_BIT` of `IP_CT_ESTABLISHED` and `IP_CT_RELATED`.
const ESTABLISHED: u16 = 1 << 1;
const RELATED: u16 = 1 << 2;

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

/// A rule as iptables says it, of the words that firewalls for pods need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// `-i`: the link on which packets come in.
    pub from_link: Option<LinkName>,
    /// `-o`, or with `true` `! -o`: the link on which packets go out.
    pub to_link: Option<(LinkName, bool)>,
    /// `-s`: the packets' source.
    pub source: Option<IpNet>,
    /// `-d`: the packets' destination.
    pub destination: Option<IpNet>,
    /// `-m conntrack --ctstate RELATED,ESTABLISHED`.
    pub established: bool,
    /// `-m comment --comment`.
    pub comment: Option<String>,
    /// `-j`.
    pub verdict: Verdict,
}

impl Words {
    /// A rule for all packets.
    #[must_use]
    pub const fn new(verdict: Verdict) -> Self {
        Self {
            from_link: None,
            to_link: None,
            source: None,
            destination: None,
            established: false,
            comment: None,
            verdict,
        }
    }

    /// The rule, for a table of the addresses' version: byte for byte what iptables-nft 1.8 writes.
    #[must_use]
    pub fn rule(&self) -> Rule {
        let mut statements = Vec::with_capacity(8);
        let link = |selector, name: &LinkName, negated| Statement::Compare {
            selector,
            negated,
            // With its NUL and no more, where nft would fill up to 16 bytes.
            value: Value::Bytes(name.as_str().bytes().chain([0]).collect()),
        };
        statements.extend(self.from_link.as_ref().map(|name| link(Selector::IifName, name, false)));
        statements.extend(self.to_link.as_ref().map(|(name, not)| link(Selector::OifName, name, *not)));
        statements.extend(self.source.map(|net| Statement::is(Selector::Saddr(version(net)), net)));
        statements.extend(self.destination.map(|net| Statement::is(Selector::Daddr(version(net)), net)));
        if self.established {
            statements.push(conntrack_match(RELATED | ESTABLISHED));
        }
        statements.extend(self.comment.as_deref().map(comment_match));
        statements.push(Statement::Counter);
        statements.push(Statement::Verdict(self.verdict.clone()));
        Rule::new(statements)
    }

    /// The rule in the words and the order of `iptables-save`, without `-A` and the chain.
    #[must_use]
    pub fn text(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        words.extend(self.source.map(|net| format!("-s {net}")));
        words.extend(self.destination.map(|net| format!("-d {net}")));
        words.extend(self.from_link.as_ref().map(|link| format!("-i {link}")));
        let not = |not: bool| if not { "! " } else { "" };
        words.extend(self.to_link.as_ref().map(|(link, negated)| format!("{}-o {link}", not(*negated))));
        if self.established {
            words.push("-m conntrack --ctstate RELATED,ESTABLISHED".to_owned());
        }
        words
            .extend(self.comment.as_ref().map(|comment| format!("-m comment --comment {}", quoted(comment))));
        words.push(match &self.verdict {
            Verdict::Accept => "-j ACCEPT".to_owned(),
            Verdict::Drop => "-j DROP".to_owned(),
            Verdict::Return | Verdict::Continue => "-j RETURN".to_owned(),
            Verdict::Jump(chain) => format!("-j {chain}"),
            Verdict::Goto(chain) => format!("-g {chain}"),
        });
        words.join(" ")
    }
}

/// A text as iptables-restore reads and iptables-save writes it.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A table of iptables-nft.
#[must_use]
pub fn table(version: route::Family, name: &str) -> TableName {
    let family = match version {
        route::Family::V4 => Family::Ip,
        route::Family::V6 => Family::Ip6,
    };
    TableName::new(family, name)
}

/// iptables' table `filter`.
#[must_use]
pub fn filter_table(version: route::Family) -> TableName {
    table(version, "filter")
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

/// `--ctstate`: `struct xt_conntrack_mtinfo3` with nothing but its states.
fn conntrack_match(states: u16) -> Statement {
    let mut info = vec![0; CONNTRACK_LEN];
    // `XT_CONNTRACK_STATE`: the states are what is compared.
    info[MATCH_FLAGS..MATCH_FLAGS + 2].copy_from_slice(&1u16.to_ne_bytes());
    info[STATE_MASK..STATE_MASK + 2].copy_from_slice(&states.to_ne_bytes());
    Statement::XtMatch { name: "conntrack".to_owned(), revision: 3, info }
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
    fn words_are_those_of_iptables_save() {
        let words = Words {
            source: Some("10.0.0.2/32".parse().unwrap()),
            from_link: Some(LinkName::new("cni0").unwrap()),
            to_link: Some((LinkName::new("cni0").unwrap(), true)),
            established: true,
            comment: Some("a \"b\" c".to_owned()),
            ..Words::new(Verdict::Jump("X".to_owned()))
        };
        let expected = r#"-s 10.0.0.2/32 -i cni0 ! -o cni0 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "a \"b\" c" -j X"#;
        assert_eq!(words.text(), expected);
    }

    #[test]
    fn a_comment_that_is_too_long_is_cut_at_a_character() {
        let Statement::XtMatch { info, .. } = comment_match(&"ä".repeat(200)) else { panic!() };
        assert_eq!(info.len(), COMMENT_LEN);
        assert_eq!(std::str::from_utf8(&info[..254]).unwrap(), "ä".repeat(127));
        assert_eq!(info[254..], [0, 0]);
    }
}
