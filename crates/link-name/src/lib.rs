//! The name of a network link, checked once, so that later code never meets one that the kernel would refuse.
//!
//! A crate of its own because both the pure crates and the I/O crates speak of links.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The kernel keeps 15 bytes (`IFNAMSIZ` less the NUL, `linux/if.h`).
pub const MAX_LEN: usize = 15;

/// A link name that the kernel accepts (`dev_valid_name` in `net/core/dev.c`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkName(String);

/// Why a text is no link name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkNameError {
    /// Nothing was given.
    #[error("link name is empty: give one of 1 to {MAX_LEN} bytes")]
    Empty,
    /// The kernel keeps only [`MAX_LEN`] bytes.
    #[error("link name `{}` is longer than {MAX_LEN} bytes: shorten it", shown(.0))]
    TooLong(String),
    /// `.` and `..` are folders in sysfs, `all` and `default` are no links below `/proc/sys/net/ipv4/conf`.
    #[error("link name `{0}` is reserved: use another")]
    Reserved(String),
    /// A byte that the kernel, or one of its text interfaces, cannot hold.
    #[error("link name `{}` contains {found:?}: use letters, digits, `-`, `_` or `.`", shown(.name))]
    BadCharacter {
        /// What was given.
        name: String,
        /// The first character that is not allowed.
        found: char,
    },
}

/// Bounded, so that hostile input cannot flood a log.
fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(64).flat_map(char::escape_default).collect();
    if name.chars().count() > 64 {
        shown.push('…');
    }
    shown
}

/// Three lower-case letters with which the names of a family of links begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix(&'static str);

impl Prefix {
    /// For constants: a text that is no such prefix does not compile there.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        let bytes = text.as_bytes();
        assert!(bytes.len() == 3, "a prefix has three letters");
        assert!(
            bytes[0].is_ascii_lowercase() && bytes[1].is_ascii_lowercase() && bytes[2].is_ascii_lowercase()
        );
        Self(text)
    }
}

impl LinkName {
    /// Checks `name` as the kernel would, and refuses control and non-ASCII characters besides.
    pub fn new(name: impl Into<String>) -> Result<Self, LinkNameError> {
        let name = name.into();
        if name.is_empty() {
            return Err(LinkNameError::Empty);
        }
        if name.len() > MAX_LEN {
            return Err(LinkNameError::TooLong(name));
        }
        // The kernel takes `all` and `default`, and then keeps the link's settings in nobody's folder: what is written
        // for the link would be written for all links.
        if matches!(name.as_str(), "." | ".." | "all" | "default") {
            return Err(LinkNameError::Reserved(name));
        }
        // `%` would make the kernel pick a number, `"` and `\` would break rulesets that name the link.
        let bad = |c: &char| !c.is_ascii_graphic() || matches!(c, '/' | ':' | '%' | '"' | '\\');
        if let Some(found) = name.chars().find(bad) {
            return Err(LinkNameError::BadCharacter { name, found });
        }
        Ok(Self(name))
    }

    /// A family's prefix and the low 48 bits of `number` as 12 hexadecimal digits, the lowest first: 15 bytes that need
    /// no check.
    #[must_use]
    pub fn numbered(prefix: Prefix, number: u64) -> Self {
        let mut name = String::with_capacity(MAX_LEN);
        name.push_str(prefix.0);
        let digits = (0..12).filter_map(|digit| char::from_digit((number >> (4 * digit) & 0xf) as u32, 16));
        name.extend(digits);
        Self(name)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Prefix> for LinkName {
    /// What the names of a family begin with, as a rule compares it.
    fn from(prefix: Prefix) -> Self {
        Self(prefix.0.to_owned())
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for LinkName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for LinkName {
    type Err = LinkNameError;
    fn from_str(name: &str) -> Result<Self, LinkNameError> {
        Self::new(name)
    }
}

impl TryFrom<String> for LinkName {
    type Error = LinkNameError;
    fn try_from(name: String) -> Result<Self, LinkNameError> {
        Self::new(name)
    }
}

impl From<LinkName> for String {
    fn from(name: LinkName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fifteen_bytes_fit_and_sixteen_do_not() {
        assert!(LinkName::new("a".repeat(15)).is_ok());
        assert_eq!(LinkName::new("a".repeat(16)), Err(LinkNameError::TooLong("a".repeat(16))));
    }

    #[test]
    fn names_that_the_kernel_or_a_ruleset_would_misread_are_refused() {
        for name in ["", ".", "..", "all", "default", "a/b", "a:b", "a b", "eth%d", "a\"b", "a\nb", "é"] {
            assert!(LinkName::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_long_hostile_name_gives_a_short_error() {
        assert!(LinkName::new("\x1b".repeat(10_000)).unwrap_err().to_string().len() < 1_000);
    }

    proptest! {
        #[test]
        fn a_number_makes_a_name_that_passes_the_check(number: u64) {
            const PREFIX: Prefix = Prefix::new("hgw");
            let name = LinkName::numbered(PREFIX, number);
            prop_assert_eq!(LinkName::new(name.as_str()), Ok(name.clone()));
            let digits: String = format!("{number:016x}").chars().rev().take(12).collect();
            prop_assert_eq!(name.as_str(), format!("hgw{digits}"));
        }

        #[test]
        fn what_is_accepted_survives_a_round_trip(name in ".{0,20}") {
            if let Ok(accepted) = LinkName::new(name.clone()) {
                prop_assert_eq!(accepted.as_str(), name.as_str());
                prop_assert!(accepted.as_str().len() <= MAX_LEN);
            }
        }
    }
}
