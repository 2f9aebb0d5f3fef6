//! A table as the text that `nft list table` would print of it, for people; no I/O.

use std::fmt::{self, Display, Formatter, Write};
use std::net::IpAddr;

use super::rule::{address_type, ct_state, ct_status};
use super::set::MapData;
use super::table::{BaseChain, Chain, Family, Hook, Policy, Table, priority};
use super::{
    Comment, Data, DataType, Element, Fib, FibAddress, NatFlags, NatKind, NatTarget, Reject, Rule, Selector,
    Set, Statement, Transport, Unit, Value, Verdict,
};
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
            base.hook,
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

impl Display for Fib {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.address {
            FibAddress::Source => "fib saddr",
            FibAddress::Destination => "fib daddr",
        })?;
        for (wanted, name) in [(self.mark, "mark"), (self.iif, "iif"), (self.oif, "oif")] {
            if wanted {
                write!(f, " . {name}")?;
            }
        }
        Ok(())
    }
}

impl Display for Selector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let transport = |transport: &Transport| match transport {
            Transport::Any => "th",
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Sctp => "sctp",
        };
        let ip = |version: &route::Family| match version {
            route::Family::V4 => "ip",
            route::Family::V6 => "ip6",
        };
        f.write_str(match self {
            Self::Iif => "iif",
            Self::Oif => "oif",
            Self::IifName => "iifname",
            Self::OifName => "oifname",
            Self::Mark => "meta mark",
            Self::NfProto => "meta nfproto",
            Self::L4Proto => "meta l4proto",
            Self::Icmpv6Type => "icmpv6 type",
            Self::CtState => "ct state",
            Self::CtStatus => "ct status",
            Self::CtMark => "ct mark",
            Self::CtDirection => "ct direction",
            Self::CtOriginalProto => "ct original protocol",
            Self::CtOriginalDport => "ct original proto-dst",
            Self::CtOriginalDaddr(version) => return write!(f, "ct original {} daddr", ip(version)),
            Self::Saddr(version) => return write!(f, "{} saddr", ip(version)),
            Self::Daddr(version) => return write!(f, "{} daddr", ip(version)),
            Self::Sport(of) => return write!(f, "{} sport", transport(of)),
            Self::Dport(of) => return write!(f, "{} dport", transport(of)),
            Self::FibType(fib) => return write!(f, "{fib} type"),
            Self::FibOifName(fib) => return write!(f, "{fib} oifname"),
        })
    }
}

/// A statement, in a table of this family: only where both versions go through must a translation say which it means.
struct InFamily<'a>(&'a Statement, Family);

impl Display for InFamily<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let not = |negated: &bool| if *negated { "!= " } else { "" };
        match self.0 {
            Statement::Compare { selector, negated, value } => {
                write!(f, "{selector} {}{value}", not(negated))
            }
            Statement::Bits { selector, negated, bits } => {
                write!(f, "{selector} {}{}", if *negated { "! " } else { "" }, Bits(*selector, *bits))
            }
            Statement::Masked { selector, negated, mask, value } => {
                let operator = if *negated { "!=" } else { "==" };
                write!(f, "{selector} & 0x{mask:08x} {operator} 0x{value:08x}")
            }
            Statement::Lookup { selectors, negated, set } => {
                concatenated(f, selectors)?;
                write!(f, " {}@{set}", not(negated))
            }
            Statement::FibRoute { fib, exists } => {
                write!(f, "{fib} oif {}", if *exists { "exists" } else { "missing" })
            }
            Statement::VerdictMap { selectors, map } => {
                concatenated(f, selectors)?;
                write!(f, " vmap @{map}")
            }
            Statement::Verdict(verdict) => write!(f, "{verdict}"),
            Statement::Counter => f.write_str("counter"),
            Statement::Limit { rate, per, burst } => {
                let per = match per {
                    Unit::Second => "second",
                    Unit::Minute => "minute",
                    Unit::Hour => "hour",
                };
                write!(f, "limit rate {rate}/{per}")?;
                // nft leaves out its own default.
                if *burst == 5 { Ok(()) } else { write!(f, " burst {burst} packets") }
            }
            Statement::Nat { kind, target, flags } => write_nat(f, self.1, *kind, target, *flags),
            Statement::Masquerade { flags } => write!(f, "masquerade{}", Flags(*flags)),
            Statement::Notrack => f.write_str("notrack"),
            Statement::Reject(reject) => f.write_str(match reject {
                Reject::NoRoute => "reject with icmpx no-route",
                Reject::PortUnreachable => "reject",
                Reject::HostUnreachable => "reject with icmpx host-unreachable",
                Reject::AdminProhibited => "reject with icmpx admin-prohibited",
                Reject::TcpReset => "reject with tcp reset",
            }),
            Statement::SetMark { selector, value } => write!(f, "{selector} set 0x{value:08x}"),
            Statement::XtMatch { name, info, .. } if name == "comment" => {
                let end = info.iter().position(|byte| *byte == 0).unwrap_or(info.len());
                write!(f, "xt match comment \"{}\"", String::from_utf8_lossy(&info[..end]))
            }
            Statement::XtMatch { name, .. } => write!(f, "xt match {name}"),
        }
    }
}

fn write_nat(
    f: &mut Formatter<'_>,
    family: Family,
    kind: NatKind,
    target: &NatTarget,
    flags: NatFlags,
) -> fmt::Result {
    f.write_str(match kind {
        NatKind::Source => "snat ",
        NatKind::Destination => "dnat ",
    })?;
    let is_v4 = match target {
        NatTarget::Address(ip) | NatTarget::AddressPort(ip, _) => ip.is_ipv4(),
        NatTarget::Map { version, .. } => *version == route::Family::V4,
    };
    if family == Family::Inet {
        f.write_str(if is_v4 { "ip " } else { "ip6 " })?;
    }
    f.write_str("to ")?;
    match target {
        NatTarget::Address(ip) => write!(f, "{ip}")?,
        NatTarget::AddressPort(IpAddr::V4(ip), port) => write!(f, "{ip}:{port}")?,
        NatTarget::AddressPort(IpAddr::V6(ip), port) => write!(f, "[{ip}]:{port}")?,
        NatTarget::Map { selectors, map, .. } => {
            concatenated(f, selectors)?;
            write!(f, " map @{map}")?;
        }
    }
    write!(f, "{}", Flags(flags))
}

struct Flags(NatFlags);

impl Display for Flags {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.0.fully_random, self.0.persistent) {
            (false, false) => "",
            (true, false) => " fully-random",
            (false, true) => " persistent",
            (true, true) => " fully-random,persistent",
        })
    }
}

struct Bits(Selector, u32);

impl Display for Bits {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names: &[(u32, &str)] = match self.0 {
            Selector::CtState => &[
                (ct_state::INVALID, "invalid"),
                (ct_state::ESTABLISHED, "established"),
                (ct_state::RELATED, "related"),
                (ct_state::NEW, "new"),
                (ct_state::UNTRACKED, "untracked"),
            ],
            Selector::CtStatus => &[(ct_status::SNAT, "snat"), (ct_status::DNAT, "dnat")],
            _ => &[],
        };
        let mut rest = self.1;
        let mut first = true;
        for (bit, name) in names {
            if rest & bit != 0 {
                write!(f, "{}{name}", if first { "" } else { "," })?;
                rest &= !bit;
                first = false;
            }
        }
        if rest == 0 { Ok(()) } else { write!(f, "{}0x{rest:x}", if first { "" } else { "," }) }
    }
}

fn concatenated<T: Display>(f: &mut Formatter<'_>, parts: impl IntoIterator<Item = T>) -> fmt::Result {
    for (index, part) in parts.into_iter().enumerate() {
        write!(f, "{}{part}", if index == 0 { "" } else { " . " })?;
    }
    Ok(())
}
