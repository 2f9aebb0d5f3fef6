//! What only one attachment of a network can have at a time, and the file name that says so.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use cni_spec::Attachment;
use cni_spec::TransportProtocol as Protocol;

/// An address or a host port. Its text, `10.244.1.5`, `fd00::5`, `tcp:0.0.0.0:8080` or `udp:[2001:db8::1]:53`, is the
/// claim's file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Claim {
    /// A pod's address.
    Address(IpAddr),
    /// A port of the node.
    HostPort {
        /// Its protocol.
        protocol: Protocol,
        /// Where it listens; an unspecified address stands for all of its family.
        at: SocketAddr,
    },
}

/// A text that names no claim.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is neither an address nor a host port such as tcp:0.0.0.0:80", .0.chars().take(64).collect::<String>())]
pub struct ClaimError(String);

/// Who has a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The attachment whose record the claim is.
    Attachment(Attachment),
    /// A record that cannot be read.
    Unreadable,
    /// Nobody: the record that the claim belonged to is gone.
    Nobody,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::HostPort { protocol, at } => write!(f, "{protocol}:{at}"),
        }
    }
}

impl FromStr for Claim {
    type Err = ClaimError;
    fn from_str(text: &str) -> Result<Self, ClaimError> {
        let host_port = |text: &str| {
            let (protocol, at) = text.split_once(':')?;
            Some(Self::HostPort { protocol: protocol.parse().ok()?, at: at.parse().ok()? })
        };
        let claim = match text.parse() {
            Ok(address) => Some(Self::Address(address)),
            Err(_) => host_port(text),
        };
        // One thing has one name: another spelling would be a second claim to it.
        claim.filter(|claim| claim.to_string() == text).ok_or_else(|| ClaimError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim() -> impl Strategy<Value = Claim> {
        let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
        prop_oneof![
            any::<IpAddr>().prop_map(Claim::Address),
            (protocol, any::<IpAddr>(), any::<u16>())
                .prop_map(|(protocol, ip, port)| Claim::HostPort { protocol, at: SocketAddr::new(ip, port) }),
        ]
    }

    #[test]
    fn other_spellings_of_a_claim_are_refused() {
        for text in
            ["", "10.0.0.01", "FD00::5", "fd00:0::5", "TCP:1.2.3.4:5", "tcp:8080", "tcp:1.2.3.4:05", "x"]
        {
            assert!(text.parse::<Claim>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_leads_back_to_its_claim_and_is_a_file_name(claim in claim()) {
            let name = claim.to_string();
            prop_assert!(!name.contains('/') && name.len() < 255);
            prop_assert_eq!(name.parse::<Claim>(), Ok(claim));
        }
    }
}
