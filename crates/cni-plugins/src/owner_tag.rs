//! Whose an element or a chain is, in a text that fits beside it: the drop-in plugins keep no files, so that what they
//! made is known again by these alone. (The reference plugins do the same, with the same hashes.)

use std::fmt::Write;

use cni_spec::{Attachment, NetworkName};
use sha2::{Digest, Sha512};

/// Hexadecimal digits that tell networks, and the attachments of one, apart.
const DIGITS: usize = 16;
/// What a chain of iptables may be named: `XT_EXTENSION_MAXNAMELEN` less the NUL, as the reference plugins count it.
const CHAIN_LEN: usize = 28;

/// The first hexadecimal digits of the SHA-512 of a text.
pub(crate) fn hashed(text: &str, digits: usize) -> String {
    let mut hex = String::with_capacity(2 * 64);
    for byte in Sha512::digest(text.as_bytes()) {
        // Writing into a text cannot fail.
        write!(hex, "{byte:02x}").ok();
    }
    hex.truncate(digits);
    hex
}

/// The name that the reference plugins give a container's own chain of iptables; `prefix` is `CNI-`, `CNI-DN-`, ….
pub(crate) fn chain_name(prefix: &str, network: &NetworkName, container: &str) -> String {
    let hash = hashed(&format!("{network}{container}"), CHAIN_LEN.saturating_sub(prefix.len()));
    format!("{prefix}{hash}")
}

/// What all comments of a network begin with.
pub(crate) fn of_network(network: &NetworkName) -> String {
    format!("{}-", hashed(network.as_str(), DIGITS))
}

/// What all comments of an attachment begin with.
pub(crate) fn of_attachment(network: &NetworkName, attachment: &Attachment) -> String {
    let instance = format!("{}:{}", attachment.ifname(), attachment.container_id());
    format!("{}{}", of_network(network), hashed(&instance, DIGITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_reference_plugins_make() {
        let network = NetworkName::new("test").unwrap();
        assert_eq!(chain_name("CNI-", &network, "1234").len(), 28);
        // From the reference's own tests: utils.FormatChainName("test", "1234").
        assert_eq!(chain_name("CNI-", &network, "1234"), "CNI-2bbe0c48b91a7d1b8a6753a8");
        let attachment: Attachment = "1234:eth0".parse().unwrap();
        let tag = of_attachment(&network, &attachment);
        assert!(tag.starts_with(&of_network(&network)));
        assert_eq!(tag.len(), 33);
    }
}
