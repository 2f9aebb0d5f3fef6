//! Rules as nft writes them: matches, then what is done. How they become the kernel's expressions is [`super::encode`]'s
//! affair, how they become text [`super::render`]'s.

use std::net::IpAddr;

use link_name::LinkName;

use super::{Comment, Value};
use crate::route;

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Matches and actions, in order.
    pub statements: Vec<Statement>,
    /// A word on what it is for, by which it is known again.
    pub comment: Option<Comment>,
}

impl Rule {
    /// A rule.
    #[must_use]
    pub fn new(statements: impl Into<Vec<Statement>>) -> Self {
        Self { statements: statements.into(), comment: None }
    }

    /// The same with a word on what it is for.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<Comment>) -> Self {
        self.comment = Some(comment.into());
        self
    }
}

/// Part of a rule. A match that fails ends the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// A property is, or is not, this value, prefix or range.
    Compare {
        /// The property.
        selector: Selector,
        /// Whether it must differ.
        negated: bool,
        /// What it is compared with.
        value: Value,
    },
    /// Some of these bits are set, or none is (`ct state`, `ct status`).
    Bits {
        /// The property.
        selector: Selector,
        /// Whether none may be set.
        negated: bool,
        /// The bits.
        bits: u32,
    },
    /// A mark under a mask is, or is not, a value.
    Masked {
        /// The mark.
        selector: Selector,
        /// Whether it must differ.
        negated: bool,
        /// The bits that are looked at.
        mask: u32,
        /// What they are compared with.
        value: u32,
    },
    /// Properties are, or are not, in a set of the table.
    Lookup {
        /// The properties, in the order of the set's key.
        selectors: Vec<Selector>,
        /// Whether they must not be in it.
        negated: bool,
        /// The set's name.
        set: String,
    },
    /// A route exists, or is missing (`fib … oif exists`).
    FibRoute {
        /// What is looked up.
        fib: Fib,
        /// Whether it must exist.
        exists: bool,
    },
    /// The verdict that a map of the table gives; no verdict where it has none.
    VerdictMap {
        /// The properties, in the order of the map's key.
        selectors: Vec<Selector>,
        /// The map's name.
        map: String,
    },
    /// Ends the rule's work on the packet.
    Verdict(Verdict),
    /// Counts packets and bytes.
    Counter,
    /// Matches so many packets in a time, and no more.
    Limit {
        /// Packets.
        rate: u64,
        /// In this time.
        per: Unit,
        /// Packets beyond, at once.
        burst: u32,
    },
    /// Translates the flow.
    Nat {
        /// Which end.
        kind: NatKind,
        /// To what.
        target: NatTarget,
        /// How ports are chosen.
        flags: NatFlags,
    },
    /// Translates the flow's source to the outgoing link's address.
    Masquerade {
        /// How ports are chosen.
        flags: NatFlags,
    },
    /// Leaves the packet untracked.
    Notrack,
    /// Drops the packet and tells the sender.
    Reject(Reject),
    /// Sets the packet's mark (`meta mark`) or the flow's (`ct mark`).
    SetMark {
        /// Which.
        selector: Selector,
        /// To what.
        value: u32,
    },
    /// A match of iptables, which only iptables can read (`nft_compat`).
    XtMatch {
        /// Its name.
        name: String,
        /// Its revision.
        revision: u32,
        /// Its own structure, padded as iptables pads it.
        info: Vec<u8>,
    },
}

/// A property of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Index of the link it came in on.
    Iif,
    /// Index of the link it goes out on.
    Oif,
    /// Name of the link it came in on.
    IifName,
    /// Name of the link it goes out on.
    OifName,
    /// Its mark.
    Mark,
    /// IPv4 or IPv6.
    NfProto,
    /// The transport protocol.
    L4Proto,
    /// Ethernet source address, in a table of bridges: six [`super::Value::Bytes`].
    EtherSaddr,
    /// Ethernet address by which the sender of an ARP packet says it is found: six [`super::Value::Bytes`].
    ArpSenderMac,
    /// IPv4 address that the sender of an ARP packet says is its own.
    ArpSenderIp,
    /// Address of which a neighbour advertisement tells.
    AdvertisedIp,
    /// Source address.
    Saddr(route::Family),
    /// Destination address.
    Daddr(route::Family),
    /// Source port.
    Sport(Transport),
    /// Destination port.
    Dport(Transport),
    /// Type of an ICMPv6 message.
    Icmpv6Type,
    /// State of the flow, see [`ct_state`].
    CtState,
    /// What has been done to the flow, see [`ct_status`].
    CtStatus,
    /// The flow's mark.
    CtMark,
    /// Whether the packet goes with the flow's first or against it.
    CtDirection,
    /// The transport protocol of the flow's first packet.
    CtOriginalProto,
    /// The destination address of the flow's first packet, before translation.
    CtOriginalDaddr(route::Family),
    /// The destination port of the flow's first packet, before translation.
    CtOriginalDport,
    /// What kind of address it is, see [`address_type`].
    FibType(Fib),
    /// Name of the link that the route leads to.
    FibOifName(Fib),
}

/// Whose port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Of any protocol that has its ports where TCP and UDP have them.
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A look-up in the routing tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fib {
    /// Of which address.
    pub address: FibAddress,
    /// With the packet's mark.
    pub mark: bool,
    /// Only routes over the link it came in on.
    pub iif: bool,
    /// Only routes over the link it goes out on.
    pub oif: bool,
}

impl Fib {
    /// Of the source address.
    pub const SADDR: Self = Self { address: FibAddress::Source, mark: false, iif: false, oif: false };
    /// Of the destination address.
    pub const DADDR: Self = Self { address: FibAddress::Destination, mark: false, iif: false, oif: false };
    /// Of the source address over the link that the packet came in on: is there a way back?
    pub const SADDR_IIF: Self = Self { address: FibAddress::Source, mark: false, iif: true, oif: false };
}

/// Which address is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FibAddress {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// `RTN_…`: what a routing table says of an address.
pub mod address_type {
    /// Of another host.
    pub const UNICAST: u32 = 1;
    /// Of this host.
    pub const LOCAL: u32 = 2;
    /// Of all hosts of a link.
    pub const BROADCAST: u32 = 3;
    /// Of a group.
    pub const MULTICAST: u32 = 5;
}

/// `NF_CT_STATE_BIT`s: where a flow stands.
pub mod ct_state {
    /// Not to be tracked.
    pub const INVALID: u32 = 1;
    /// Packets went both ways.
    pub const ESTABLISHED: u32 = 2;
    /// Belongs to another flow.
    pub const RELATED: u32 = 4;
    /// The first packet.
    pub const NEW: u32 = 8;
    /// Not tracked by request.
    pub const UNTRACKED: u32 = 64;
}

/// `IPS_…`: what has been done to a flow.
pub mod ct_status {
    /// Its source is translated.
    pub const SNAT: u32 = 0x10;
    /// Its destination is translated.
    pub const DNAT: u32 = 0x20;
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It leaves this base chain; later chains of the hook may still drop it.
    Accept,
    /// It is gone.
    Drop,
    /// The next rule.
    Continue,
    /// Back to behind the jump.
    Return,
    /// To a chain, and back at its end.
    Jump(String),
    /// To a chain, for good.
    Goto(String),
}

/// The time of a [`Statement::Limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// 1 s.
    Second,
    /// 60 s.
    Minute,
    /// 3600 s.
    Hour,
}

/// Which end of a flow is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NatKind {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// What a flow is translated to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatTarget {
    /// An address.
    Address(IpAddr),
    /// An address and a port.
    AddressPort(IpAddr, u16),
    /// What a map of the table gives: an address, or with `port` an address and a port. No translation where it has
    /// nothing.
    Map {
        /// The addresses' version.
        version: route::Family,
        /// The properties, in the order of the map's key.
        selectors: Vec<Selector>,
        /// The map's name.
        map: String,
        /// Whether its data are an address and a port.
        port: bool,
    },
}

/// How source ports are chosen (`NF_NAT_RANGE_…`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NatFlags {
    /// At random, so that flows begun at once do not clash.
    pub fully_random: bool,
    /// The same address for all flows of a client.
    pub persistent: bool,
}

/// How a sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// ICMP "no route".
    NoRoute,
    /// ICMP "port unreachable".
    PortUnreachable,
    /// ICMP "host unreachable".
    HostUnreachable,
    /// ICMP "administratively prohibited".
    AdminProhibited,
    /// A TCP reset; needs a match on TCP before it.
    TcpReset,
}

impl Statement {
    /// `selector value`.
    #[must_use]
    pub fn is(selector: Selector, value: impl Into<Value>) -> Self {
        Self::Compare { selector, negated: false, value: value.into() }
    }

    /// `selector != value`.
    #[must_use]
    pub fn is_not(selector: Selector, value: impl Into<Value>) -> Self {
        Self::Compare { selector, negated: true, value: value.into() }
    }

    /// `selector . selector @set`.
    #[must_use]
    pub fn is_in(selectors: impl Into<Vec<Selector>>, set: impl Into<String>) -> Self {
        Self::Lookup { selectors: selectors.into(), negated: false, set: set.into() }
    }

    /// `selector . selector != @set`.
    #[must_use]
    pub fn is_not_in(selectors: impl Into<Vec<Selector>>, set: impl Into<String>) -> Self {
        Self::Lookup { selectors: selectors.into(), negated: true, set: set.into() }
    }

    /// `iifname "start*"`.
    #[must_use]
    pub fn iifname_starts_with(start: LinkName) -> Self {
        Self::is(Selector::IifName, Value::IfNameStart(start))
    }

    /// `oifname "start*"`.
    #[must_use]
    pub fn oifname_starts_with(start: LinkName) -> Self {
        Self::is(Selector::OifName, Value::IfNameStart(start))
    }

    /// `fib daddr type local`: the destination is an address of this host, dummy links' included.
    #[must_use]
    pub fn fib_daddr_is_local() -> Self {
        Self::is(Selector::FibType(Fib::DADDR), Value::AddressType(address_type::LOCAL))
    }

    /// `fib saddr . iif oif missing`: there is no way back to the sender over the link the packet came in on.
    #[must_use]
    pub const fn fib_saddr_iif_missing() -> Self {
        Self::FibRoute { fib: Fib::SADDR_IIF, exists: false }
    }

    /// `ct state …`, any of [`ct_state`]'s bits.
    #[must_use]
    pub const fn ct_state(bits: u32) -> Self {
        Self::Bits { selector: Selector::CtState, negated: false, bits }
    }

    /// `ct status …`, any of [`ct_status`]'s bits.
    #[must_use]
    pub const fn ct_status(bits: u32) -> Self {
        Self::Bits { selector: Selector::CtStatus, negated: false, bits }
    }

    /// `dnat ip to selector . selector map @map`, where the map gives an address and a port.
    #[must_use]
    pub fn dnat_to_map(
        version: route::Family,
        selectors: impl Into<Vec<Selector>>,
        map: impl Into<String>,
    ) -> Self {
        let target = NatTarget::Map { version, selectors: selectors.into(), map: map.into(), port: true };
        Self::Nat { kind: NatKind::Destination, target, flags: NatFlags::default() }
    }

    /// `snat ip to address`.
    #[must_use]
    pub fn snat_to(address: IpAddr) -> Self {
        Self::Nat { kind: NatKind::Source, target: NatTarget::Address(address), flags: NatFlags::default() }
    }

    /// `accept`.
    #[must_use]
    pub const fn accept() -> Self {
        Self::Verdict(Verdict::Accept)
    }

    /// `drop`.
    #[must_use]
    pub const fn drop() -> Self {
        Self::Verdict(Verdict::Drop)
    }

    /// `jump chain`.
    #[must_use]
    pub fn jump(chain: impl Into<String>) -> Self {
        Self::Verdict(Verdict::Jump(chain.into()))
    }
}
