//! From a rule to the kernel's expressions: which register holds what, and which protocol must be checked before a
//! header may be read.

use std::net::IpAddr;

use ipnet::IpNet;

use super::expression::{self, DIFFERENT, EQUAL, LookedUp, Register};
use super::set::DATA_VERDICT;
use super::value::{DataType, End};
use super::{
    Family, Fib, FibAddress, NatFlags, NatKind, NatTarget, Reject, Rule, Selector, Statement, Transport,
    Unit, Value, Verdict,
};
use crate::netlink::Message;
use crate::route;

const META_PROTOCOL: u32 = 1;
const META_MARK: u32 = 3;
const META_IIF: u32 = 4;
const META_OIF: u32 = 5;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_STATUS: u32 = 2;
const CT_MARK: u32 = 3;
const CT_PROTOCOL: u32 = 10;
const CT_PROTO_DST: u32 = 12;
const CT_DST_IP: u32 = 20;
const CT_DST_IP6: u32 = 22;
const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const FIB_OIF: u32 = 1;
const FIB_OIFNAME: u32 = 2;
const FIB_ADDRTYPE: u32 = 3;
const FIB_PRESENT: u32 = 1 << 5;
const IPPROTO_ICMPV6: u8 = 58;

/// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
pub(super) const fn nfproto(version: route::Family) -> u8 {
    match version {
        route::Family::V4 => 2,
        route::Family::V6 => 10,
    }
}

impl Transport {
    pub(super) const fn number(self) -> Option<u8> {
        match self {
            Self::Any => None,
            Self::Tcp => Some(6),
            Self::Udp => Some(17),
            Self::Sctp => Some(132),
        }
    }
}

/// Writes a rule's expressions within `NFTA_RULE_EXPRESSIONS` of a table of this family.
pub(super) fn write_rule(rule: &Rule, family: Family, list: &mut Message<'_>) {
    let version = match family {
        Family::Ip => Some(route::Family::V4),
        Family::Ip6 => Some(route::Family::V6),
        _ => None,
    };
    let of_frames = matches!(family, Family::Bridge | Family::Netdev);
    let mut encoder = Encoder { list, of_frames, network: version.map(Network::Ip), transport: None };
    for statement in &rule.statements {
        encoder.statement(statement);
    }
}

/// What stands within an attribute for data that are a verdict.
pub(super) fn write_verdict(data: &mut Message<'_>, verdict: &Verdict) {
    let (code, chain): (i32, Option<&str>) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Continue => (-1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    data.nest_unflagged(DATA_VERDICT, |verdict| {
        verdict.be32(1, code.cast_unsigned());
        if let Some(chain) = chain {
            verdict.text(2, chain);
        }
    });
}

/// The family of an address, for `nat`.
fn version_of(ip: IpAddr) -> route::Family {
    if ip.is_ipv4() { route::Family::V4 } else { route::Family::V6 }
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Ip(route::Family),
    Arp,
}

impl Network {
    /// `ETH_P_…` (`linux/if_ether.h`).
    const fn ether_type(self) -> u16 {
        match self {
            Self::Ip(route::Family::V4) => 0x0800,
            Self::Arp => 0x0806,
            Self::Ip(route::Family::V6) => 0x86dd,
        }
    }
}

struct Encoder<'list, 'batch> {
    list: &'list mut Message<'batch>,
    /// Packets are frames, of whatever they carry.
    of_frames: bool,
    /// What the rule has made sure of: the network and the transport protocol.
    network: Option<Network>,
    transport: Option<u8>,
}

impl Encoder<'_, '_> {
    fn statement(&mut self, statement: &Statement) {
        const FIRST: Register = Register::FIRST;
        match statement {
            Statement::Compare { selector, negated, value } => self.compare(*selector, *negated, value),
            Statement::Bits { selector, negated, bits } => {
                self.load(*selector, FIRST);
                expression::mask(self.list, FIRST, &bits.to_ne_bytes());
                expression::compare(self.list, FIRST, if *negated { EQUAL } else { DIFFERENT }, &[0; 4]);
            }
            Statement::Masked { selector, negated, mask, value } => {
                self.load(*selector, FIRST);
                expression::mask(self.list, FIRST, &mask.to_ne_bytes());
                expression::compare(self.list, FIRST, u32::from(*negated), &value.to_ne_bytes());
            }
            Statement::Lookup { selectors, negated, set } => {
                self.load_all(selectors);
                expression::lookup(self.list, set, FIRST, LookedUp::Member(*negated));
            }
            Statement::FibRoute { fib, exists } => {
                expression::fib_load(self.list, FIB_OIF, fib_flags(*fib) | FIB_PRESENT, FIRST);
                expression::compare(self.list, FIRST, EQUAL, &u32::from(*exists).to_ne_bytes());
            }
            Statement::VerdictMap { selectors, map } => {
                self.load_all(selectors);
                expression::lookup(self.list, map, FIRST, LookedUp::Verdict);
            }
            Statement::Verdict(verdict) => {
                expression::immediate_verdict(self.list, |data| write_verdict(data, verdict));
            }
            Statement::Counter => expression::counter(self.list),
            Statement::Limit { rate, per, burst } => {
                let seconds = match per {
                    Unit::Second => 1,
                    Unit::Minute => 60,
                    Unit::Hour => 3600,
                };
                expression::limit(self.list, *rate, seconds, *burst);
            }
            Statement::Nat { kind, target, flags } => self.nat(*kind, target, *flags),
            Statement::Masquerade { flags } => expression::masquerade(self.list, nat_flags(*flags)),
            Statement::Notrack => expression::notrack(self.list),
            Statement::Reject(reject) => {
                // NFT_REJECT_TCP_RST is 1, NFT_REJECT_ICMPX_UNREACH 2.
                let (kind, code) = match reject {
                    Reject::NoRoute => (2, Some(0)),
                    Reject::PortUnreachable => (2, Some(1)),
                    Reject::HostUnreachable => (2, Some(2)),
                    Reject::AdminProhibited => (2, Some(3)),
                    Reject::TcpReset => (1, None),
                };
                expression::reject(self.list, kind, code);
            }
            Statement::SetMark { selector, value } => {
                expression::immediate(self.list, FIRST, &value.to_ne_bytes());
                if *selector == Selector::CtMark {
                    expression::ct_set(self.list, CT_MARK, FIRST);
                } else {
                    expression::meta_set(self.list, META_MARK, FIRST);
                }
            }
            Statement::XtMatch { name, revision, info } => {
                expression::xt_match(self.list, name, *revision, info);
            }
        }
    }

    fn compare(&mut self, selector: Selector, negated: bool, value: &Value) {
        const FIRST: Register = Register::FIRST;
        let operation = u32::from(negated);
        let low = value.encode(End::Low);
        match value {
            Value::Net(net) if net.prefix_len() < net.max_prefix_len() => {
                self.compare_prefix(selector, operation, *net, low.as_slice());
            }
            Value::Ports(_, _) => {
                self.load(selector, FIRST);
                expression::range(
                    self.list,
                    FIRST,
                    operation,
                    low.as_slice(),
                    value.encode(End::High).as_slice(),
                );
            }
            _ => {
                self.load(selector, FIRST);
                expression::compare(self.list, FIRST, operation, low.as_slice());
            }
        }
        if !negated {
            match (selector, value) {
                (Selector::NfProto, Value::Version(version)) => {
                    self.network = Some(Network::Ip(*version));
                }
                (Selector::L4Proto, Value::Proto(proto)) => self.transport = Some(*proto),
                _ => {}
            }
        }
    }

    /// A prefix of whole bytes is read and compared as these, any other through a mask: so do nft and iptables, and so
    /// they print it as a prefix again.
    fn compare_prefix(&mut self, selector: Selector, operation: u32, net: IpNet, network: &[u8]) {
        const FIRST: Register = Register::FIRST;
        let bits = u32::from(net.prefix_len());
        let whole = usize::from(net.prefix_len() / 8);
        let header = match (selector, whole) {
            (Selector::Saddr(_) | Selector::Daddr(_), 1..) if bits.is_multiple_of(8) => {
                header_field(selector)
            }
            _ => None,
        };
        if let Some((base, offset, _)) = header {
            self.require(selector);
            expression::payload_load(self.list, base, offset, bits / 8, FIRST);
            expression::compare(self.list, FIRST, operation, &network[..whole]);
            return;
        }
        self.load(selector, FIRST);
        match net.netmask() {
            IpAddr::V4(mask) => expression::mask(self.list, FIRST, &mask.octets()),
            IpAddr::V6(mask) => expression::mask(self.list, FIRST, &mask.octets()),
        }
        expression::compare(self.list, FIRST, operation, network);
    }

    fn nat(&mut self, kind: NatKind, target: &NatTarget, flags: NatFlags) {
        const FIRST: Register = Register::FIRST;
        let (version, port) = match target {
            NatTarget::Address(ip) | NatTarget::AddressPort(ip, _) => {
                expression::immediate(self.list, FIRST, Value::Ip(*ip).encode(End::Low).as_slice());
                let mut register = None;
                if let NatTarget::AddressPort(_, port) = target {
                    // The second of the old registers, as nft does.
                    let second = FIRST.behind(DataType::Ipv6Addr.length());
                    expression::immediate(self.list, second, &port.to_be_bytes());
                    register = Some(second);
                }
                (version_of(*ip), register)
            }
            NatTarget::Map { version, selectors, map, port } => {
                self.load_all(selectors);
                expression::lookup(self.list, map, FIRST, LookedUp::Data(FIRST));
                let behind = FIRST.behind(DataType::address(*version).length());
                (*version, port.then_some(behind))
            }
        };
        self.translate(kind, version, port, flags);
    }

    /// To the address in the first register, and the port in another.
    fn translate(&mut self, kind: NatKind, version: route::Family, port: Option<Register>, flags: NatFlags) {
        // NF_NAT_RANGE_MAP_IPS, NF_NAT_RANGE_PROTO_SPECIFIED: the kernel sets them itself and dumps them.
        let flags = nat_flags(flags) | 1 | if port.is_some() { 2 } else { 0 };
        let kind = match kind {
            NatKind::Source => 0,
            NatKind::Destination => 1,
        };
        let family = u32::from(nfproto(version));
        expression::nat(self.list, (kind, family), Register::FIRST, port, flags);
    }

    /// Loads properties into consecutive registers, as a concatenated key wants them.
    fn load_all(&mut self, selectors: &[Selector]) {
        // Checks use the first register, so they all come before the first load.
        for selector in selectors {
            self.require(*selector);
        }
        let mut register = Register::FIRST;
        for selector in selectors {
            self.load_checked(*selector, register);
            register = register.behind(selector.length());
        }
    }

    fn load(&mut self, selector: Selector, to: Register) {
        self.require(selector);
        self.load_checked(selector, to);
    }

    /// Makes sure that the packet has the header that `selector` reads.
    fn require(&mut self, selector: Selector) {
        let (network, transport) = match selector {
            Selector::Saddr(version) | Selector::Daddr(version) => (Some(Network::Ip(version)), None),
            Selector::Sport(transport) | Selector::Dport(transport) => (None, transport.number()),
            Selector::Icmpv6Type | Selector::AdvertisedIp => {
                (Some(Network::Ip(route::Family::V6)), Some(IPPROTO_ICMPV6))
            }
            Selector::ArpSenderMac | Selector::ArpSenderIp => (Some(Network::Arp), None),
            _ => (None, None),
        };
        if let Some(network) = network
            && self.network != Some(network)
        {
            match network {
                Network::Ip(version) if !self.of_frames => {
                    expression::meta_load(self.list, META_NFPROTO, Register::FIRST);
                    expression::compare(self.list, Register::FIRST, EQUAL, &[nfproto(version)]);
                }
                _ => {
                    expression::meta_load(self.list, META_PROTOCOL, Register::FIRST);
                    let ether_type = network.ether_type().to_be_bytes();
                    expression::compare(self.list, Register::FIRST, EQUAL, &ether_type);
                }
            }
            self.network = Some(network);
        }
        if let Some(transport) = transport
            && self.transport != Some(transport)
        {
            expression::meta_load(self.list, META_L4PROTO, Register::FIRST);
            expression::compare(self.list, Register::FIRST, EQUAL, &[transport]);
            self.transport = Some(transport);
        }
    }

    fn load_checked(&mut self, selector: Selector, to: Register) {
        if let Some((base, offset, length)) = header_field(selector) {
            expression::payload_load(self.list, base, offset, length, to);
            return;
        }
        match selector {
            Selector::Iif => expression::meta_load(self.list, META_IIF, to),
            Selector::Oif => expression::meta_load(self.list, META_OIF, to),
            Selector::IifName => expression::meta_load(self.list, META_IIFNAME, to),
            Selector::OifName => expression::meta_load(self.list, META_OIFNAME, to),
            Selector::Mark => expression::meta_load(self.list, META_MARK, to),
            Selector::NfProto => expression::meta_load(self.list, META_NFPROTO, to),
            Selector::L4Proto => expression::meta_load(self.list, META_L4PROTO, to),
            Selector::CtState => expression::ct_load(self.list, CT_STATE, None, to),
            Selector::CtStatus => expression::ct_load(self.list, CT_STATUS, None, to),
            Selector::CtMark => expression::ct_load(self.list, CT_MARK, None, to),
            Selector::CtDirection => expression::ct_load(self.list, CT_DIRECTION, None, to),
            Selector::CtOriginalProto => expression::ct_load(self.list, CT_PROTOCOL, Some(0), to),
            Selector::CtOriginalDport => expression::ct_load(self.list, CT_PROTO_DST, Some(0), to),
            Selector::CtOriginalDaddr(route::Family::V4) => {
                expression::ct_load(self.list, CT_DST_IP, Some(0), to);
            }
            Selector::CtOriginalDaddr(route::Family::V6) => {
                expression::ct_load(self.list, CT_DST_IP6, Some(0), to);
            }
            Selector::FibType(fib) => expression::fib_load(self.list, FIB_ADDRTYPE, fib_flags(fib), to),
            Selector::FibOifName(fib) => expression::fib_load(self.list, FIB_OIFNAME, fib_flags(fib), to),
            Selector::EtherSaddr
            | Selector::ArpSenderMac
            | Selector::ArpSenderIp
            | Selector::AdvertisedIp
            | Selector::Saddr(_)
            | Selector::Daddr(_)
            | Selector::Sport(_)
            | Selector::Dport(_)
            | Selector::Icmpv6Type => {}
        }
    }
}

/// Where a property stands in the packet: base, offset and length in bytes (RFC 791, RFC 826, RFC 4861, RFC 8200, RFC 9293).
fn header_field(selector: Selector) -> Option<(u32, u32, u32)> {
    Some(match selector {
        Selector::EtherSaddr => (LINK_HEADER, 6, 6),
        Selector::ArpSenderMac => (NETWORK_HEADER, 8, 6),
        Selector::ArpSenderIp => (NETWORK_HEADER, 14, 4),
        Selector::AdvertisedIp => (TRANSPORT_HEADER, 8, 16),
        Selector::Saddr(route::Family::V4) => (NETWORK_HEADER, 12, 4),
        Selector::Daddr(route::Family::V4) => (NETWORK_HEADER, 16, 4),
        Selector::Saddr(route::Family::V6) => (NETWORK_HEADER, 8, 16),
        Selector::Daddr(route::Family::V6) => (NETWORK_HEADER, 24, 16),
        Selector::Sport(_) => (TRANSPORT_HEADER, 0, 2),
        Selector::Dport(_) => (TRANSPORT_HEADER, 2, 2),
        Selector::Icmpv6Type => (TRANSPORT_HEADER, 0, 1),
        _ => return None,
    })
}

impl Selector {
    /// Bytes that it takes in registers.
    fn length(self) -> u32 {
        match self {
            Self::IifName | Self::OifName | Self::FibOifName(_) => DataType::IfName.length(),
            Self::CtOriginalDaddr(version) => DataType::address(version).length(),
            _ => header_field(self).map_or(4, |(_, _, length)| length),
        }
    }
}

fn fib_flags(fib: Fib) -> u32 {
    let address = match fib.address {
        FibAddress::Source => 1,
        FibAddress::Destination => 2,
    };
    address | u32::from(fib.mark) << 2 | u32::from(fib.iif) << 3 | u32::from(fib.oif) << 4
}

fn nat_flags(flags: NatFlags) -> u32 {
    u32::from(flags.persistent) << 3 | u32::from(flags.fully_random) << 4
}
