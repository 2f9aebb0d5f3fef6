//! The nftables table `inet hostgw` as a value. `Display` writes it as `nft` would list it, which is also what the
//! digest in each rule's comment is taken of.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::family::Family;

/// Name of the agent's table, in the `inet` family.
pub const TABLE_NAME: &str = "hostgw";

/// The whole table. Each set holds disjoint prefixes, because an interval set refuses overlaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NftTable {
    /// Every set, also when empty, so that a change of elements is never a change of rules.
    pub sets: BTreeMap<SetName, Vec<IpNet>>,
    /// The chains in order of their names.
    pub chains: Vec<BaseChain>,
}

/// A set of prefixes (`flags interval`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetName {
    /// Pods on this node.
    PodCidrs(Family),
    /// Destinations that see a pod's own address.
    NeverMasquerade(Family),
    /// Pods of the whole cluster.
    ClusterPods(Family),
}

impl SetName {
    /// The set's name in the kernel.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PodCidrs(Family::Ipv4) => "pod_cidrs4",
            Self::PodCidrs(Family::Ipv6) => "pod_cidrs6",
            Self::NeverMasquerade(Family::Ipv4) => "never_masquerade4",
            Self::NeverMasquerade(Family::Ipv6) => "never_masquerade6",
            Self::ClusterPods(Family::Ipv4) => "cluster_pods4",
            Self::ClusterPods(Family::Ipv6) => "cluster_pods6",
        }
    }

    /// The family of the set's keys.
    #[must_use]
    pub const fn family(self) -> Family {
        match self {
            Self::PodCidrs(family) | Self::NeverMasquerade(family) | Self::ClusterPods(family) => family,
        }
    }
}

/// A chain that is attached to a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// Its name.
    pub name: &'static str,
    /// `type`.
    pub kind: ChainKind,
    /// `hook`.
    pub hook: Hook,
    /// `priority`, as a number.
    pub priority: i32,
    /// Its rules in order; the policy is always accept.
    pub rules: Vec<Rule>,
}

/// `type` of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Filter.
    Filter,
    /// NAT: sees only a flow's first packet.
    Nat,
}

/// `hook` of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before the routing decision.
    Prerouting,
    /// Between two links.
    Forward,
    /// After the routing decision.
    Postrouting,
}

/// One rule: all matches, then the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is for; with the digest it becomes the rule's comment.
    pub name: &'static str,
    /// What must hold of the packet.
    pub matches: Vec<Match>,
    /// What happens then.
    pub verdict: Verdict,
}

/// What must hold of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// `iifname "prefix*"`.
    IifnamePrefix(&'static str),
    /// `iifname "name"`.
    Iifname(String),
    /// `oifname "name"`.
    Oifname(String),
    /// `icmpv6 type N`; includes the test for ICMPv6.
    Icmpv6Type(u8),
    /// Source in a prefix; includes the test for the family.
    SaddrIn(IpNet),
    /// Source in a set; includes the test for the family.
    SaddrInSet(SetName),
    /// Destination in a set; includes the test for the family.
    DaddrInSet(SetName),
    /// Destination not in a set; includes the test for the family.
    DaddrNotInSet(SetName),
    /// `ct state established,related`.
    Established,
    /// `fib saddr . iif oif missing`: no route to the source leads back over the link that it came by.
    SourceNotBehindIif,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leaves this chain.
    Accept,
    /// Is gone.
    Drop,
    /// Gets this source address.
    Snat(IpAddr),
    /// Gets an address of the outgoing link as source.
    Masquerade,
}

impl Rule {
    /// The comment that the rule carries in the kernel: its name, and a digest of its text by which a changed rule
    /// is told from the desired one.
    #[must_use]
    pub fn comment(&self) -> String {
        format!("{} {:016x}", self.name, fnv1a(&self.to_string()))
    }
}

/// FNV-1a (64 bits): stable over versions of Rust, which the hashers of `std` are not.
fn fnv1a(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

impl fmt::Display for NftTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {TABLE_NAME} {{")?;
        for (set, elements) in &self.sets {
            let kind = match set.family() {
                Family::Ipv4 => "ipv4_addr",
                Family::Ipv6 => "ipv6_addr",
            };
            let elements: Vec<_> = elements.iter().map(ToString::to_string).collect();
            writeln!(
                f,
                "  set {} {{ type {kind}; flags interval; elements = {{ {} }} }}",
                set.as_str(),
                elements.join(", ")
            )?;
        }
        for chain in &self.chains {
            writeln!(f, "  chain {} {{ {chain};", chain.name)?;
            for rule in &chain.rules {
                writeln!(f, "    {rule} comment \"{}\"", rule.comment())?;
            }
            writeln!(f, "  }}")?;
        }
        write!(f, "}}")
    }
}

impl fmt::Display for BaseChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        };
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Forward => "forward",
            Hook::Postrouting => "postrouting",
        };
        write!(f, "type {kind} hook {hook} priority {}; policy accept", self.priority)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for matched in &self.matches {
            write!(f, "{matched} ")?;
        }
        self.verdict.fmt(f)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |family| match family {
            Family::Ipv4 => "ip",
            Family::Ipv6 => "ip6",
        };
        match self {
            Self::IifnamePrefix(prefix) => write!(f, "iifname \"{prefix}*\""),
            Self::Iifname(name) => write!(f, "iifname \"{name}\""),
            Self::Oifname(name) => write!(f, "oifname \"{name}\""),
            Self::Icmpv6Type(number) => write!(f, "icmpv6 type {number}"),
            Self::SaddrIn(prefix) => write!(f, "{} saddr {prefix}", word(Family::of_net(prefix))),
            Self::SaddrInSet(set) => write!(f, "{} saddr @{}", word(set.family()), set.as_str()),
            Self::DaddrInSet(set) => write!(f, "{} daddr @{}", word(set.family()), set.as_str()),
            Self::DaddrNotInSet(set) => write!(f, "{} daddr != @{}", word(set.family()), set.as_str()),
            Self::Established => f.write_str("ct state established,related"),
            Self::SourceNotBehindIif => f.write_str("fib saddr . iif oif missing"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Snat(address) => {
                let word = if address.is_ipv4() { "ip" } else { "ip6" };
                write!(f, "snat {word} to {address}")
            }
            Self::Masquerade => f.write_str("masquerade"),
        }
    }
}
