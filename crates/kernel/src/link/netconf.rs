//! Settings of links that netlink tells, one by one and by event (`linux/netconf.h`).

use crate::KernelError;
use crate::netlink::{AF_INET, AF_INET6, Attributes, Batch, Socket};

const RTM_NEWNETCONF: u16 = 80;
const RTM_GETNETCONF: u16 = 82;
/// `NETCONFA_IFINDEX`.
const INDEX: u16 = 1;
/// `NETCONFA_IFINDEX_ALL`: what `…/conf/all` holds.
const ALL: i32 = -1;
/// `NETCONFA_FORWARDING`.
const FORWARDING: u16 = 2;

/// Whether the socket's namespace forwards packets of a family (`net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`);
/// none where this kernel lacks the family, or does not tell. The files of the same settings stand in one chain of the dentry
/// cache with those of all other namespaces, which is long on a node with many pods.
pub fn forwarding(socket: &mut Socket, ipv6: bool) -> Result<Option<bool>, KernelError> {
    let family = if ipv6 { AF_INET6 } else { AF_INET };
    let mut batch = Batch::new();
    batch
        .message("ask whether the node forwards", RTM_GETNETCONF, 0, &[family, 0, 0, 0])
        .attribute(INDEX, &ALL.to_ne_bytes());
    let mut told = None;
    // What is refused is not told.
    socket.execute_reading(&mut batch, |kind, payload| {
        if kind == RTM_NEWNETCONF {
            told = forwards(payload);
        }
    })?;
    Ok(told)
}

fn forwards(payload: &[u8]) -> Option<bool> {
    Attributes::new(payload.get(4..)?).get(FORWARDING)?.u32().map(|value| value != 0)
}

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

    #[test]
    fn forwarding_is_told_or_not() {
        let message = |value: u32| [vec![2, 0, 0, 0], attribute(FORWARDING, value)].concat();
        assert_eq!(forwards(&message(1)), Some(true));
        assert_eq!(forwards(&message(0)), Some(false));
        assert_eq!(forwards(&[2, 0, 0, 0]), None);
        assert_eq!(forwards(&[2]), None);
    }

    fn attribute(kind: u16, value: u32) -> Vec<u8> {
        [8_u16.to_ne_bytes(), kind.to_ne_bytes()].concat().into_iter().chain(value.to_ne_bytes()).collect()
    }
}
