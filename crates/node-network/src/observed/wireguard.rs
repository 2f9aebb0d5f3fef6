//! What WireGuard's peers may send from, and get.

use std::fmt;

use base64ct::{Base64, Encoding};
use ipnet::IpNet;

/// A peer of a WireGuard link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireguardPeer {
    /// Which.
    pub public_key: PublicKey,
    /// Its AllowedIPs.
    pub allowed_ips: Vec<IpNet>,
}

/// A peer's public key, shown as `wg` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Base64::encode_string(&self.0))
    }
}

impl PublicKey {
    /// Reads what [`PublicKey`] shows.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut key = [0; 32];
        let length = Base64::decode(text, &mut key).ok()?.len();
        (length == key.len()).then_some(Self(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_as_wg_shows_it_and_read_again() {
        let key = PublicKey([0xfb; 32]);
        assert_eq!(key.to_string(), "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=");
        assert_eq!(PublicKey::parse(&key.to_string()), Some(key));
        assert_eq!(PublicKey::parse("+/v7"), None);
        assert_eq!(PublicKey::parse("no key"), None);
    }
}
