//! The kernel's expressions: one function writes each, with its attributes in the order in which the kernel dumps them,
//! so that a rule written and a rule read back can be compared byte for byte.

use super::LIST_ELEM;
use super::set::DATA_VALUE;
use crate::netlink::{Attribute, Attributes, Message};

const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;

/// `NFT_CMP_EQ`, and the same number in `enum nft_range_ops`.
pub(super) const EQUAL: u32 = 0;
/// `NFT_CMP_NEQ`, and the same number in `enum nft_range_ops`.
pub(super) const DIFFERENT: u32 = 1;

/// A register of four bytes, counted from 0: the kernel has sixteen of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register(pub(super) u32);

impl Register {
    /// The first.
    pub(super) const FIRST: Self = Self(0);

    /// Four make one of the old registers of 16 bytes (`NFT_REG_1` = 1), under whose number the kernel dumps the first
    /// of each four; the others are `NFT_REG32_00` = 8 and following.
    fn number(self) -> u32 {
        if self.0.is_multiple_of(4) { 1 + self.0 / 4 } else { 8 + self.0 }
    }

    /// The first one behind so many bytes.
    pub(super) fn behind(self, bytes: u32) -> Self {
        Self(self.0 + bytes.div_ceil(4))
    }
}

/// An expression of this name within `NFTA_RULE_EXPRESSIONS`.
fn expression(list: &mut Message<'_>, name: &str, data: impl FnOnce(&mut Message<'_>)) {
    list.nest_unflagged(LIST_ELEM, |expression| {
        expression.text(EXPR_NAME, name).nest_unflagged(EXPR_DATA, data);
    });
}

fn value(message: &mut Message<'_>, kind: u16, bytes: &[u8]) {
    message.nest_unflagged(kind, |data| {
        data.attribute(DATA_VALUE, bytes);
    });
}

pub(super) fn meta_load(list: &mut Message<'_>, key: u32, to: Register) {
    expression(list, "meta", |meta| {
        meta.be32(2, key).be32(1, to.number());
    });
}

pub(super) fn meta_set(list: &mut Message<'_>, key: u32, from: Register) {
    expression(list, "meta", |meta| {
        meta.be32(2, key).be32(3, from.number());
    });
}

/// `base`: 1 is the network header, 2 the transport header.
pub(super) fn payload_load(list: &mut Message<'_>, base: u32, offset: u32, length: u32, to: Register) {
    expression(list, "payload", |payload| {
        payload.be32(1, to.number()).be32(2, base).be32(3, offset).be32(4, length);
    });
}

/// `direction` is needed by keys that differ between the two: 0 is that of the first packet.
pub(super) fn ct_load(list: &mut Message<'_>, key: u32, direction: Option<u8>, to: Register) {
    expression(list, "ct", |ct| {
        ct.be32(1, to.number()).be32(2, key);
        if let Some(direction) = direction {
            ct.u8(3, direction);
        }
    });
}

pub(super) fn ct_set(list: &mut Message<'_>, key: u32, from: Register) {
    expression(list, "ct", |ct| {
        ct.be32(2, key).be32(4, from.number());
    });
}

pub(super) fn fib_load(list: &mut Message<'_>, result: u32, flags: u32, to: Register) {
    expression(list, "fib", |fib| {
        fib.be32(1, to.number()).be32(2, result).be32(3, flags);
    });
}

pub(super) fn compare(list: &mut Message<'_>, register: Register, operation: u32, bytes: &[u8]) {
    expression(list, "cmp", |cmp| {
        cmp.be32(1, register.number()).be32(2, operation);
        value(cmp, 3, bytes);
    });
}

pub(super) fn range(list: &mut Message<'_>, register: Register, operation: u32, low: &[u8], high: &[u8]) {
    expression(list, "range", |range| {
        range.be32(1, register.number()).be32(2, operation);
        value(range, 3, low);
        value(range, 4, high);
    });
}

/// `register &= mask`.
pub(super) fn mask(list: &mut Message<'_>, register: Register, mask: &[u8]) {
    const ZERO: [u8; 16] = [0; 16];
    let length = mask.len().min(ZERO.len());
    expression(list, "bitwise", |bitwise| {
        // At most 16 fits.
        let bytes = u32::try_from(length).unwrap_or_default();
        bitwise.be32(1, register.number()).be32(2, register.number()).be32(3, bytes).be32(6, 0);
        value(bitwise, 4, &mask[..length]);
        value(bitwise, 5, &ZERO[..length]);
    });
}

/// What a look-up is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum LookedUp {
    /// Membership, or with `true` its absence.
    Member(bool),
    /// A map's data, into a register.
    Data(Register),
    /// A map's verdict.
    Verdict,
}

pub(super) fn lookup(list: &mut Message<'_>, set: &str, key: Register, what: LookedUp) {
    expression(list, "lookup", |lookup| {
        lookup.text(1, set).be32(2, key.number());
        match what {
            LookedUp::Member(_) => {}
            LookedUp::Data(to) => {
                lookup.be32(3, to.number());
            }
            LookedUp::Verdict => {
                lookup.be32(3, 0);
            }
        }
        lookup.be32(5, u32::from(matches!(what, LookedUp::Member(true))));
    });
}

pub(super) fn immediate(list: &mut Message<'_>, to: Register, bytes: &[u8]) {
    expression(list, "immediate", |immediate| {
        immediate.be32(1, to.number());
        value(immediate, 2, bytes);
    });
}

/// `verdict` writes what stands within `NFTA_IMMEDIATE_DATA`.
pub(super) fn immediate_verdict(list: &mut Message<'_>, verdict: impl FnOnce(&mut Message<'_>)) {
    expression(list, "immediate", |immediate| {
        immediate.be32(1, 0).nest_unflagged(2, verdict);
    });
}

/// `kind`: 0 is source, 1 destination. The kernel dumps an upper bound too, which is the same.
pub(super) fn nat(
    list: &mut Message<'_>,
    (kind, family): (u32, u32),
    address: Register,
    port: Option<Register>,
    flags: u32,
) {
    expression(list, "nat", |nat| {
        nat.be32(1, kind).be32(2, family).be32(3, address.number()).be32(4, address.number());
        if let Some(port) = port {
            nat.be32(5, port.number()).be32(6, port.number());
        }
        if flags != 0 {
            nat.be32(7, flags);
        }
    });
}

pub(super) fn masquerade(list: &mut Message<'_>, flags: u32) {
    expression(list, "masq", |masquerade| {
        if flags != 0 {
            masquerade.be32(1, flags);
        }
    });
}

/// Only ICMP has codes.
pub(super) fn reject(list: &mut Message<'_>, kind: u32, code: Option<u8>) {
    expression(list, "reject", |reject| {
        reject.be32(1, kind);
        if let Some(code) = code {
            reject.u8(2, code);
        }
    });
}

pub(super) fn limit(list: &mut Message<'_>, rate: u64, seconds: u64, burst: u32) {
    expression(list, "limit", |limit| {
        limit.be64(1, rate).be64(2, seconds).be32(3, burst).be32(4, 0).be32(5, 0);
    });
}

/// The kernel takes zeros for what is not given.
pub(super) fn counter(list: &mut Message<'_>) {
    expression(list, "counter", |counter| {
        counter.be64(1, 0).be64(2, 0);
    });
}

pub(super) fn notrack(list: &mut Message<'_>) {
    list.nest_unflagged(LIST_ELEM, |expression| {
        expression.text(EXPR_NAME, "notrack");
    });
}

/// A match of iptables: its name, revision, and own structure.
pub(super) fn xt_match(list: &mut Message<'_>, name: &str, revision: u32, info: &[u8]) {
    expression(list, "match", |xt| {
        xt.text(1, name).be32(2, revision).attribute(3, info);
    });
}

/// The expressions in the bytes of `NFTA_RULE_EXPRESSIONS`: name and attributes.
pub(super) fn parse(bytes: &[u8]) -> impl Iterator<Item = (String, &[u8])> {
    Attributes::new(bytes).map(|expression: Attribute<'_>| {
        let name = expression.nested().get(EXPR_NAME).map(|name| name.text()).unwrap_or_default();
        let data = expression.nested().get(EXPR_DATA).map(|data| data.value()).unwrap_or_default();
        (name, data)
    })
}

/// Whether two lists of expressions do the same; how much a counter has counted is no difference.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    let mut b = parse(b);
    let all = parse(a).all(|(name, data)| {
        b.next().is_some_and(|(other, other_data)| {
            name == other && (name == "counter" || same_attributes(data, other_data))
        })
    });
    all && b.next().is_none()
}

/// Flags in an attribute's type and the order of attributes do not matter.
fn same_attributes(a: &[u8], b: &[u8]) -> bool {
    Attributes::new(a).count() == Attributes::new(b).count()
        && Attributes::new(a).all(|attribute| {
            Attributes::new(b).get(attribute.kind()).is_some_and(|other| other.value() == attribute.value())
        })
}
