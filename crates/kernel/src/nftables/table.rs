//! Tables and chains as values.

use link_name::LinkName;

use super::{Comment, Rule, Set};

/// Which packets a table sees (`NFPROTO_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// ARP.
    Arp,
    /// Frames on bridges.
    Bridge,
    /// Frames of one link.
    Netdev,
}

impl Family {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Arp => 3,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Ip6 => 10,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Inet, Self::Ip, Self::Ip6, Self::Arp, Self::Bridge, Self::Netdev]
            .into_iter()
            .find(|family| family.number() == number)
    }

    /// nft's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        }
    }
}

/// A table's whole name: two families may each have one of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The family.
    pub family: Family,
    /// The name, of at most 255 bytes.
    pub name: String,
}

impl TableName {
    /// Names a table.
    #[must_use]
    pub fn new(family: Family, name: impl Into<String>) -> Self {
        Self { family, name: name.into() }
    }
}

/// A whole table, as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: TableName,
    /// A word on whose it is.
    pub comment: Option<Comment>,
    /// Sets and maps.
    pub sets: Vec<Set>,
    /// Chains. A chain may be jumped to from any other, in whatever order they stand.
    pub chains: Vec<Chain>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(family: Family, name: impl Into<String>) -> Self {
        Self { name: TableName::new(family, name), comment: None, sets: Vec::new(), chains: Vec::new() }
    }
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where the kernel enters it; none where it is only jumped to.
    pub base: Option<BaseChain>,
    /// The link whose frames enter it, in a table of one link's frames.
    pub link: Option<LinkName>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain that is only jumped to.
    #[must_use]
    pub fn regular(name: impl Into<String>, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), base: None, link: None, rules }
    }

    /// A chain that the kernel enters.
    #[must_use]
    pub fn base(name: impl Into<String>, base: BaseChain, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), base: Some(base), link: None, rules }
    }

    /// A chain of [`Family::Netdev`] that sees what comes in by this link, before anything else does.
    #[must_use]
    pub fn ingress(name: impl Into<String>, link: LinkName, rules: Vec<Rule>) -> Self {
        let base = BaseChain {
            kind: ChainKind::Filter,
            hook: Hook::INGRESS,
            priority: priority::FILTER,
            policy: Policy::Accept,
        };
        Self { link: Some(link), ..Self::base(name, base, rules) }
    }
}

/// Where and when the kernel enters a chain, and what becomes of a packet that comes out at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// What may be done in it.
    pub kind: ChainKind,
    /// Where.
    pub hook: Hook,
    /// Order among the chains of a hook: lower is earlier. See [`priority`].
    pub priority: i32,
    /// What becomes of a packet at the end.
    pub policy: Policy,
}

/// Priorities by nft's names, for IPv4, IPv6 and inet (`linux/netfilter_ipv4.h`).
pub mod priority {
    /// Before connection tracking.
    pub const RAW: i32 = -300;
    /// Packet mangling.
    pub const MANGLE: i32 = -150;
    /// Destination NAT.
    pub const DSTNAT: i32 = -100;
    /// Filtering.
    pub const FILTER: i32 = 0;
    /// Source NAT.
    pub const SRCNAT: i32 = 100;
}

/// What may be done in a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Accept and drop.
    Filter,
    /// Translate the first packet of a flow, and with it the flow.
    Nat,
    /// Change a packet of this host so that it is routed anew.
    Route,
    /// Any other, by its name.
    Other(String),
}

impl ChainKind {
    /// nft's word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
            Self::Other(name) => name,
        }
    }

    pub(super) fn from_name(name: String) -> Self {
        match name.as_str() {
            "filter" => Self::Filter,
            "nat" => Self::Nat,
            "route" => Self::Route,
            _ => Self::Other(name),
        }
    }
}

/// A place in the packet's way (`NF_INET_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// All that comes in.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// All that goes out.
    Postrouting,
    /// A hook of a family in which numbers mean other things (`netdev`, `arp`), or that is newer.
    Other(u32),
}

impl Hook {
    /// What comes in by a link, in [`Family::Netdev`] (`NF_NETDEV_INGRESS`).
    pub const INGRESS: Self = Self::Other(0);

    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
            Self::Other(number) => number,
        }
    }

    pub(super) const fn from_number(family: Family, number: u32) -> Self {
        match (family, number) {
            (Family::Arp | Family::Netdev, _) => Self::Other(number),
            (_, 0) => Self::Prerouting,
            (_, 1) => Self::Input,
            (_, 2) => Self::Forward,
            (_, 3) => Self::Output,
            (_, 4) => Self::Postrouting,
            _ => Self::Other(number),
        }
    }
}

/// What becomes of a packet that comes out at a base chain's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// It goes on.
    #[default]
    Accept,
    /// It is dropped.
    Drop,
}
