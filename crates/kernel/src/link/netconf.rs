//! Events about per-link settings (`linux/netconf.h`).

use crate::netlink::Attributes;

/// `NETCONFA_IFINDEX`.
const INDEX: u16 = 1;

/// The link that an `RTM_NEWNETCONF` or `RTM_DELNETCONF` message is about; none where it is about all links, or those to
/// come.
#[must_use]
pub fn netconf_index(payload: &[u8]) -> Option<u32> {
    // `struct netconfmsg` is one byte, the family, and padding.
    let index = Attributes::new(payload.get(4..)?).get(INDEX)?.u32()?;
    // `NETCONFA_IFINDEX_ALL` is -1, `NETCONFA_IFINDEX_DEFAULT` -2.
    i32::try_from(index).ok().and_then(|index| index.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(index: i32) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 8, 0, 1, 0];
        bytes.extend(index.to_ne_bytes());
        bytes
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn one_link_is_told_from_all() {
        assert_eq!(netconf_index(&message(7)), Some(7));
        assert_eq!(netconf_index(&message(-1)), None);
        assert_eq!(netconf_index(&message(-2)), None);
        assert_eq!(netconf_index(&[2, 0]), None);
    }
}
