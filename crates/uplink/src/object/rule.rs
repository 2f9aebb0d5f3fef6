//! `struct fib_rule_hdr` and its attributes (`linux/fib_rules.h`).

use std::fmt;

use kernel::netlink::Attributes;

use super::{rewritten, text, word};

const HEADER: usize = 12;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const FRA_OIFNAME: u16 = 17;
const FRA_PAD: u16 = 18;
/// `FIB_RULE_INVERT`; the other flags say what the kernel found.
const INVERT: u32 = 2;

pub(super) fn settle(payload: &[u8]) -> Option<Vec<u8>> {
    let family = i32::from(payload[0]);
    if family != libc::AF_INET && family != libc::AF_INET6 {
        return None;
    }
    let mut bytes = rewritten(payload, HEADER, |attribute| {
        (attribute.kind() != FRA_PAD).then(|| attribute.value().to_vec())
    });
    let flags = word(payload, 8) & INVERT;
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    Some(bytes)
}

fn attribute_text(bytes: &[u8], kind: u16) -> Option<String> {
    Attributes::new(&bytes[HEADER..]).get(kind).map(|name| name.text())
}

pub(super) fn names(bytes: &[u8], name: &str) -> bool {
    [FRA_IIFNAME, FRA_OIFNAME].iter().any(|kind| attribute_text(bytes, *kind).as_deref() == Some(name))
}

pub(super) fn renamed(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    rewritten(bytes, HEADER, |attribute| {
        let is_name = matches!(attribute.kind(), FRA_IIFNAME | FRA_OIFNAME);
        Some(if is_name && attribute.text() == from { text(to) } else { attribute.value().to_vec() })
    })
}

pub(super) fn show(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let number = |kind| {
        Attributes::new(&bytes[HEADER..]).get(kind).and_then(|number| number.u32()).unwrap_or_default()
    };
    write!(f, "rule {}", number(FRA_PRIORITY))?;
    for (kind, word) in [(FRA_IIFNAME, "iif"), (FRA_OIFNAME, "oif")] {
        if let Some(name) = attribute_text(bytes, kind) {
            write!(f, " {word} {name}")?;
        }
    }
    write!(f, " lookup {}", number(FRA_TABLE))
}
