//! The Ethernet address that a runtime may ask for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::excerpt::quoted;

/// A unicast Ethernet address that is not all zeros: one that an interface can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

/// Why a text is no address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacAddressError {
    /// Not six pairs of hexadecimal digits.
    #[error("{} is not six pairs of hexadecimal digits: write it as `02:00:5e:10:00:01`", quoted(.0))]
    Malformed(String),
    /// The group bit is set (IEEE 802: bit 0 of the first byte).
    #[error("`{0}` is a multicast address, which no interface can have: make its first byte even")]
    Multicast(String),
    /// All zeros, which the kernel refuses.
    #[error("`00:00:00:00:00:00` is no address: choose another")]
    Zero,
}

impl MacAddress {
    /// Checks six bytes.
    pub fn new(bytes: [u8; 6]) -> Result<Self, MacAddressError> {
        if bytes == [0; 6] {
            return Err(MacAddressError::Zero);
        }
        if bytes[0] & 1 != 0 {
            return Err(MacAddressError::Multicast(Self(bytes).to_string()));
        }
        Ok(Self(bytes))
    }

    /// The six bytes, as they go over the wire.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, MacAddressError> {
        let malformed = || MacAddressError::Malformed(text.to_owned());
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut pairs = text.split(separator);
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let pair = pairs.next().ok_or_else(malformed)?;
            // `from_str_radix` alone would accept a sign.
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(malformed());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
        }
        if pairs.next().is_some() {
            return Err(malformed());
        }
        Self::new(bytes)
    }
}

impl TryFrom<String> for MacAddress {
    type Error = MacAddressError;
    fn try_from(text: String) -> Result<Self, MacAddressError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_interface_cannot_have_a_multicast_or_zero_address() {
        assert!(matches!("01:00:5e:00:00:01".parse::<MacAddress>(), Err(MacAddressError::Multicast(_))));
        assert_eq!("00:00:00:00:00:00".parse::<MacAddress>(), Err(MacAddressError::Zero));
    }

    #[test]
    fn wrong_shapes_are_refused() {
        for text in ["", "02:00", "02:00:00:00:00:00:00", "0x:00:00:00:00:00", "+2:00:00:00:00:00", "é2:0"] {
            assert!(matches!(text.parse::<MacAddress>(), Err(MacAddressError::Malformed(_))), "{text}");
        }
        assert_eq!("02-AB-00-00-00-01".parse::<MacAddress>().unwrap().to_string(), "02:ab:00:00:00:01");
    }

    proptest! {
        #[test]
        fn rendered_then_parsed_is_the_same(bytes: [u8; 6]) {
            if let Ok(mac) = MacAddress::new(bytes) {
                prop_assert_eq!(mac.to_string().parse(), Ok(mac));
            }
        }
    }
}
