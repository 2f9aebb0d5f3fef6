//! The name of a pod's link on the node, which follows from the attachment: it can be found again by whoever knows the
//! attachment, with or without a record.

use attachment::{Attachment, NetworkName};
use link_name::{LinkName, Prefix};

use crate::fnv::fnv1a;

/// Every pod link on a node begins so.
pub const HOST_LINK_PREFIX: &str = "hgw";
/// Every link on which a pod's sending is shaped begins so.
pub const SHAPING_LINK_PREFIX: &str = "hgi";

/// [`HOST_LINK_PREFIX`], checked.
pub(crate) const HOST: Prefix = Prefix::new(HOST_LINK_PREFIX);
const SHAPING: Prefix = Prefix::new(SHAPING_LINK_PREFIX);

/// `hgw` and 12 hexadecimal digits.
#[must_use]
pub fn host_link_name(network: &NetworkName, attachment: &Attachment) -> LinkName {
    hashed(HOST, network, attachment)
}

/// The link on which what a pod sends is shaped: `hgi` and the same digits as its link.
#[must_use]
pub fn shaping_link_name(network: &NetworkName, attachment: &Attachment) -> LinkName {
    hashed(SHAPING, network, attachment)
}

fn hashed(prefix: Prefix, network: &NetworkName, attachment: &Attachment) -> LinkName {
    let text = [network.as_str(), "\0", attachment.container_id(), ":", attachment.ifname().as_str()];
    let mut hash = fnv1a(&text);
    // FNV-1a's low bits alone tell little of the last bytes.
    hash ^= hash >> 32;
    LinkName::numbered(prefix, hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn name(network: &str, container: &str, ifname: &str) -> LinkName {
        let attachment = format!("{container}:{ifname}").parse().unwrap();
        host_link_name(&NetworkName::new(network).unwrap(), &attachment)
    }

    #[test]
    fn a_name_depends_on_network_container_and_interface_and_on_nothing_else() {
        assert_eq!(name("a", "c", "eth0"), name("a", "c", "eth0"));
        let names =
            [name("a", "c", "eth0"), name("b", "c", "eth0"), name("a", "d", "eth0"), name("a", "c", "eth1")];
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), 4);
    }

    #[test]
    fn a_hundred_thousand_containers_have_names_of_their_own() {
        let names: HashSet<_> =
            (0..100_000).map(|number| name("net", &format!("{number:064x}"), "eth0")).collect();
        assert_eq!(names.len(), 100_000);
    }
}
