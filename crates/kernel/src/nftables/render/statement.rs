//! Matches and actions as nft prints them.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use super::concatenated;
use crate::nftables::rule::{ct_state, ct_status};
use crate::nftables::{
    Family, Fib, FibAddress, NatFlags, NatKind, NatTarget, Reject, Selector, Statement, Transport, Unit,
};
use crate::route;

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
            Self::EtherSaddr => "ether saddr",
            Self::ArpSenderMac => "arp saddr ether",
            Self::ArpSenderIp => "arp saddr ip",
            Self::AdvertisedIp => "icmpv6 taddr",
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
pub(super) struct InFamily<'a>(pub(super) &'a Statement, pub(super) Family);

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
