//! The names of a drop-in plugin's link on the node: like the reference's, but following from the attachment, so that
//! DEL and GC find it without a record.

use attachment::{Attachment, NetworkName};
use link_name::LinkName;

use crate::fnv::fnv1a;

/// As the reference's, for the sake of rules that others made for such names.
const PREFIX: &str = "veth";
/// What is left of a link name's 15 bytes, in hexadecimal digits.
const DIGITS: usize = 11;
/// In front of network and attachment in an alias.
const OURS: &str = "hostgw ";
/// What the kernel keeps of an alias (`IFALIASZ`).
const MAX_ALIAS: usize = 255;

/// `veth` and 11 hexadecimal digits.
pub(crate) fn host_link_name(
    network: &NetworkName,
    attachment: &Attachment,
) -> Result<LinkName, link_name::LinkNameError> {
    let digits = format!("{:016x}", number(network, attachment));
    LinkName::new(format!("{PREFIX}{}", &digits[..DIGITS]))
}

/// A number that follows from the attachment.
pub(crate) fn number(network: &NetworkName, attachment: &Attachment) -> u64 {
    let hash = fnv1a(&[network.as_str(), "\0", attachment.container_id(), ":", attachment.ifname().as_str()]);
    // FNV-1a's high bits tell little of the last bytes.
    hash ^ hash << 32
}

/// What the link is called besides, by which GC knows whose it is; none where it would be cut.
pub(crate) fn alias(network: &NetworkName, attachment: &Attachment) -> Option<String> {
    let alias = format!("{OURS}{network} {attachment}");
    (alias.len() <= MAX_ALIAS).then_some(alias)
}

/// Whether a link's alias says that it is ours, of whatever network.
pub(super) fn is_ours(link: &kernel::link::Link) -> bool {
    link.alias.as_deref().is_some_and(|alias| alias.starts_with(OURS))
}

/// The attachment that an alias names, where it is one of this network.
pub(super) fn attachment_of(alias: &str, network: &NetworkName) -> Option<Attachment> {
    alias.strip_prefix(OURS)?.strip_prefix(network.as_str())?.strip_prefix(' ')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn an_alias_leads_back_to_its_attachment_in_its_own_network_only() {
        let network = NetworkName::new("net").unwrap();
        let attachment: Attachment = "4f1d:eth0".parse().unwrap();
        let alias = alias(&network, &attachment).unwrap();
        assert_eq!(attachment_of(&alias, &network), Some(attachment));
        assert_eq!(attachment_of(&alias, &NetworkName::new("ne").unwrap()), None);
        assert_eq!(attachment_of("something else", &network), None);
    }

    #[test]
    fn ten_thousand_containers_have_links_of_their_own() {
        let network = NetworkName::new("net").unwrap();
        let name = |number: u32| {
            let attachment = format!("{number:064x}:eth0").parse().unwrap();
            host_link_name(&network, &attachment).unwrap()
        };
        assert_eq!((0..10_000).map(name).collect::<HashSet<_>>().len(), 10_000);
        assert!(name(0).as_str().starts_with("veth"));
    }
}
