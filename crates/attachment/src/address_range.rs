//! A run of addresses of one family, and the indexes by which the allocator counts it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most addresses of a range that are handed out by search: no node holds 2³² pods, and it bounds the hint.
const MOST_INDEXES: u64 = 1 << 32;

/// The addresses from `start` to `end`, both included. As text: `10.244.1.1-10.244.1.254`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    start: IpAddr,
    end: IpAddr,
}

/// Why two addresses are no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressRangeError {
    /// One is IPv4 and the other IPv6.
    #[error("range {start}-{end} mixes IPv4 and IPv6: give both ends in one family")]
    Families {
        /// First address.
        start: IpAddr,
        /// Last address.
        end: IpAddr,
    },
    /// The end lies before the start.
    #[error("range {start}-{end} ends before it starts: swap the two")]
    Backwards {
        /// First address.
        start: IpAddr,
        /// Last address.
        end: IpAddr,
    },
    /// A text of another shape.
    #[error("`{}` is no range such as 10.244.1.1-10.244.1.254", .0.chars().take(96).collect::<String>())]
    Unreadable(String),
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl AddressRange {
    /// Checks that both ends are of one family and in order.
    pub fn new(start: IpAddr, end: IpAddr) -> Result<Self, AddressRangeError> {
        if start.is_ipv4() != end.is_ipv4() {
            return Err(AddressRangeError::Families { start, end });
        }
        if start > end {
            return Err(AddressRangeError::Backwards { start, end });
        }
        Ok(Self { start, end })
    }

    /// First address.
    #[must_use]
    pub fn start(&self) -> IpAddr {
        self.start
    }

    /// Last address.
    #[must_use]
    pub fn end(&self) -> IpAddr {
        self.end
    }

    /// Whether `address` lies between the two ends.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.start.is_ipv4() == address.is_ipv4() && (self.start..=self.end).contains(&address)
    }

    /// How many of the range's addresses can be found by search: all of them, but for IPv6 ranges of more than 2³²
    /// addresses only the first 2³². The others can still be asked for by name.
    #[must_use]
    pub fn indexes(&self) -> u64 {
        let last = number(self.end) - number(self.start);
        u64::try_from(last).map_or(MOST_INDEXES, |last| last.saturating_add(1).min(MOST_INDEXES))
    }

    /// The place of `address`, counted from the start; `None` where search does not reach it.
    #[must_use]
    pub fn index_of(&self, address: IpAddr) -> Option<u64> {
        if !self.contains(address) {
            return None;
        }
        u64::try_from(number(address) - number(self.start)).ok().filter(|&index| index < self.indexes())
    }

    /// The address at `index`, counted from the start; `None` beyond the range.
    #[must_use]
    pub fn address_at(&self, index: u64) -> Option<IpAddr> {
        if index >= self.indexes() {
            return None;
        }
        let number = number(self.start) + u128::from(index);
        match self.start {
            IpAddr::V4(_) => u32::try_from(number).ok().map(|bits| Ipv4Addr::from_bits(bits).into()),
            IpAddr::V6(_) => Some(Ipv6Addr::from_bits(number).into()),
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;
    fn from_str(text: &str) -> Result<Self, AddressRangeError> {
        let ends =
            text.split_once('-').and_then(|(start, end)| Some((start.parse().ok()?, end.parse().ok()?)));
        let (start, end) = ends.ok_or_else(|| AddressRangeError::Unreadable(text.to_owned()))?;
        Self::new(start, end)
    }
}

impl TryFrom<String> for AddressRange {
    type Error = AddressRangeError;
    fn try_from(text: String) -> Result<Self, AddressRangeError> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_whole_of_either_family_has_2_to_the_32_indexes() {
        for text in [
            "0.0.0.0-255.255.255.255",
            "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "fd00::-fd00::ffff:ffff",
        ] {
            assert_eq!(text.parse::<AddressRange>().unwrap().indexes(), 1 << 32, "{text}");
        }
    }

    #[test]
    fn mixed_families_and_reversed_ends_are_refused() {
        for text in ["10.0.0.1-fd00::1", "10.0.0.2-10.0.0.1", "10.0.0.1", "10.0.0.0/24", ""] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn index_and_address_lead_to_each_other(a: IpAddr, b: IpAddr, c: IpAddr, index: u32) {
            if let Ok(range) = AddressRange::new(a, b) {
                prop_assert_eq!(range.to_string().parse::<AddressRange>().unwrap(), range);
                if let Some(address) = range.address_at(index.into()) {
                    prop_assert!(range.contains(address));
                    prop_assert_eq!(range.index_of(address), Some(index.into()));
                }
                if let Some(index) = range.index_of(c) {
                    prop_assert_eq!(range.address_at(index), Some(c));
                }
            }
        }
    }
}
