//! A table as the text that `nft list table` would print of it, for people; no I/O.

mod statement;

use std::fmt::{self, Display, Formatter, Write};

use link_name::LinkName;
use statement::InFamily;

use super::rule::address_type;
use super::set::MapData;
use super::table::{BaseChain, Chain, Family, Hook, Policy, Table, priority};
use super::{Comment, Data, DataType, Element, Rule, Set, Value, Verdict};
use crate::route;

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.name.family.as_str(), self.name.name)?;
        if let Some(comment) = &self.comment {
            writeln!(f, "\tcomment \"{}\"", comment.as_str())?;
        }
        for (index, set) in self.sets.iter().enumerate() {
            separate(f, index)?;
            write_set(f, set)?;
        }
        for (index, chain) in self.chains.iter().enumerate() {
            separate(f, index + self.sets.len())?;
            write_chain(f, chain, self.name.family)?;
        }
        f.write_str("}\n")
    }
}

impl Rule {
    /// The rule as nft prints it in a table of this family.
    #[must_use]
    pub fn text(&self, family: Family) -> String {
        let mut text = String::new();
        for (index, statement) in self.statements.iter().enumerate() {
            if index > 0 {
                text.push(' ');
            }
            // Writing to a text cannot fail.
            let _ = write!(text, "{}", InFamily(statement, family));
        }
        if let Some(comment) = &self.comment {
            let _ = write!(text, " comment \"{}\"", comment.as_str());
        }
        text
    }
}

fn separate(f: &mut Formatter<'_>, index: usize) -> fmt::Result {
    if index == 0 { Ok(()) } else { f.write_char('\n') }
}

fn write_set(f: &mut Formatter<'_>, set: &Set) -> fmt::Result {
    writeln!(f, "\t{} {} {{", if set.data.is_some() { "map" } else { "set" }, set.name)?;
    write!(f, "\t\ttype {}", Types(&set.key))?;
    match &set.data {
        None => {}
        Some(MapData::Verdict) => f.write_str(" : verdict")?,
        Some(MapData::Values(types)) => write!(f, " : {}", Types(types))?,
    }
    f.write_char('\n')?;
    match (set.constant, set.interval) {
        (false, false) => {}
        (true, false) => f.write_str("\t\tflags constant\n")?,
        (false, true) => f.write_str("\t\tflags interval\n")?,
        (true, true) => f.write_str("\t\tflags constant,interval\n")?,
    }
    if let Some(comment) = &set.comment {
        writeln!(f, "\t\tcomment \"{}\"", comment.as_str())?;
    }
    if !set.elements.is_empty() {
        let mut elements: Vec<&Element> = set.elements.iter().collect();
        elements.sort_by_cached_key(|element| element.key.iter().map(Value::rank).collect::<Vec<_>>());
        f.write_str("\t\telements = { ")?;
        for (index, element) in elements.into_iter().enumerate() {
            if index > 0 {
                f.write_str(",\n\t\t\t     ")?;
            }
            write!(f, "{element}")?;
        }
        f.write_str(" }\n")?;
    }
    f.write_str("\t}\n")
}

fn write_chain(f: &mut Formatter<'_>, chain: &Chain, family: Family) -> fmt::Result {
    writeln!(f, "\tchain {} {{", chain.name)?;
    if let Some(base) = &chain.base {
        let policy = match base.policy {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        };
        writeln!(
            f,
            "\t\ttype {} hook {} priority {}; policy {policy};",
            base.kind.as_str(),
            Entrance(base.hook, chain.link.as_ref()),
            Priority(base)
        )?;
    }
    for rule in &chain.rules {
        writeln!(f, "\t\t{}", rule.text(family))?;
    }
    f.write_str("\t}\n")
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Other(number) => return write!(f, "hook {number}"),
        })
    }
}

/// Where a chain is entered, and for which link's frames.
struct Entrance<'a>(Hook, Option<&'a LinkName>);

impl Display for Entrance<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(link) => write!(f, "ingress device \"{link}\""),
            None => write!(f, "{}", self.0),
        }
    }
}

/// nft names a priority by the nearest of its own within ten.
struct Priority<'a>(&'a BaseChain);

impl Display for Priority<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let value = self.0.priority;
        let named = [
            (priority::RAW, "raw", true),
            (priority::MANGLE, "mangle", true),
            (priority::DSTNAT, "dstnat", self.0.hook == Hook::Prerouting),
            (priority::FILTER, "filter", true),
            (priority::SRCNAT, "srcnat", self.0.hook == Hook::Postrouting),
        ];
        match named.into_iter().find(|(base, _, fits)| *fits && value.abs_diff(*base) <= 10) {
            None => write!(f, "{value}"),
            Some((base, name, _)) if base == value => f.write_str(name),
            Some((base, name, _)) => {
                let sign = if value < base { '-' } else { '+' };
                write!(f, "{name} {sign} {}", value.abs_diff(base))
            }
        }
    }
}

struct Types<'a>(&'a [DataType]);

impl Display for Types<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        concatenated(f, self.0.iter().map(|part| part.as_str()))
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        concatenated(f, &self.key)?;
        if let Some(comment) = &self.comment {
            write!(f, " comment \"{}\"", comment.as_str())?;
        }
        match &self.data {
            None => Ok(()),
            Some(Data::Verdict(verdict)) => write!(f, " : {verdict}"),
            Some(Data::Values(values)) => {
                f.write_str(" : ")?;
                concatenated(f, values)
            }
        }
    }
}

impl Display for Comment {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Continue => f.write_str("continue"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Net(net) => write!(f, "{net}"),
            Self::Proto(6) => f.write_str("tcp"),
            Self::Proto(17) => f.write_str("udp"),
            Self::Proto(132) => f.write_str("sctp"),
            Self::Proto(1) => f.write_str("icmp"),
            Self::Proto(58) => f.write_str("ipv6-icmp"),
            Self::Proto(number) | Self::Icmpv6Type(number)
                if !matches!(self, Self::Icmpv6Type(133..=137)) =>
            {
                write!(f, "{number}")
            }
            Self::Proto(number) | Self::Icmpv6Type(number) => f.write_str(match number {
                133 => "nd-router-solicit",
                134 => "nd-router-advert",
                135 => "nd-neighbor-solicit",
                136 => "nd-neighbor-advert",
                _ => "nd-redirect",
            }),
            Self::Port(port) => write!(f, "{port}"),
            Self::Ports(low, high) => write!(f, "{low}-{high}"),
            Self::IfName(name) => write!(f, "\"{name}\""),
            Self::IfNameStart(name) => write!(f, "\"{name}*\""),
            Self::IfIndex(index) => write!(f, "{index}"),
            Self::Mark(mark) => write!(f, "0x{mark:08x}"),
            Self::Version(route::Family::V4) => f.write_str("ipv4"),
            Self::Version(route::Family::V6) => f.write_str("ipv6"),
            Self::AddressType(address_type::UNICAST) => f.write_str("unicast"),
            Self::AddressType(address_type::LOCAL) => f.write_str("local"),
            Self::AddressType(address_type::BROADCAST) => f.write_str("broadcast"),
            Self::AddressType(address_type::MULTICAST) => f.write_str("multicast"),
            Self::AddressType(other) => write!(f, "{other}"),
            Self::Reply(false) => f.write_str("original"),
            Self::Reply(true) => f.write_str("reply"),
            Self::Bytes(bytes) => {
                f.write_str("0x")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

fn concatenated<T: Display>(f: &mut Formatter<'_>, parts: impl IntoIterator<Item = T>) -> fmt::Result {
    for (index, part) in parts.into_iter().enumerate() {
        write!(f, "{}{part}", if index == 0 { "" } else { " . " })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::{ChainKind, Selector, Statement, Transport};

    #[test]
    fn a_table_is_text_as_nft_prints_it() {
        let proto_port = [Selector::L4Proto, Selector::Dport(Transport::Any)];
        let mut table = Table::new(Family::Inet, "hostgw_hostport");
        table.comment = Some("host ports".into());
        let data = MapData::Values(vec![DataType::Ipv6Addr, DataType::InetService]);
        table.sets.push(
            Set::map("ports6", [DataType::InetProto, DataType::InetService], data).with([Element::mapping(
                [Value::Proto(132), Value::Port(8080)],
                [Value::Ip("fd00::5".parse().unwrap()), Value::Port(80)],
            )
            .comment("default/web")]),
        );
        let nets = ["fe80::/64", "fd00::/48", "fd00::/64"].map(|net| net.parse().unwrap());
        table.sets.push(Set::prefixes("pods6", route::Family::V6, &nets));
        table.chains.push(Chain::base(
            "prerouting",
            BaseChain {
                kind: ChainKind::Nat,
                hook: Hook::Prerouting,
                priority: priority::DSTNAT - 5,
                policy: Policy::Accept,
            },
            vec![
                Rule::new([
                    Statement::fib_daddr_is_local(),
                    Statement::dnat_to_map(route::Family::V6, proto_port, "ports6"),
                ])
                .comment("to pods"),
                Rule::new([
                    Statement::is_not_in([Selector::Saddr(route::Family::V6)], "pods6"),
                    Statement::drop(),
                ]),
            ],
        ));
        // Tabs are shown, so that an editor cannot change them.
        insta::assert_snapshot!(table.to_string().replace('\t', "→"), @r#"
table inet hostgw_hostport {
→comment "host ports"
→map ports6 {
→→type inet_proto . inet_service : ipv6_addr . inet_service
→→elements = { sctp . 8080 comment "default/web" : fd00::5 . 80 }
→}

→set pods6 {
→→type ipv6_addr
→→flags interval
→→elements = { fd00::/48,
→→→     fe80::/64 }
→}

→chain prerouting {
→→type nat hook prerouting priority dstnat - 5; policy accept;
→→fib daddr type local dnat ip6 to meta l4proto . th dport map @ports6 comment "to pods"
→→ip6 saddr != @pods6 drop
→}
}
"#);
    }
}
