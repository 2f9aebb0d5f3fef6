//! WireGuard's AllowedIPs: which peer may send from, and gets, which addresses (`linux/wireguard.h`), by generic netlink.
//! Keys, endpoints and everything else of a device are neither read nor written.

use ipnet::IpNet;
use rustix::io::Errno;

use crate::KernelError;
use crate::netlink::{Attribute, Attributes, Batch, Protocol, Socket, family_of};

/// `GENL_ID_CTRL`.
const CONTROL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const NAME: &str = "wireguard";
const VERSION: u8 = 1;
const WG_CMD_GET_DEVICE: u8 = 0;
const WG_CMD_SET_DEVICE: u8 = 1;
const WGDEVICE_A_IFINDEX: u16 = 1;
const WGDEVICE_A_PEERS: u16 = 8;
const WGPEER_A_PUBLIC_KEY: u16 = 1;
const WGPEER_A_FLAGS: u16 = 3;
const WGPEER_A_ALLOWEDIPS: u16 = 9;
const WGALLOWEDIP_A_FAMILY: u16 = 1;
const WGALLOWEDIP_A_IPADDR: u16 = 2;
const WGALLOWEDIP_A_CIDR_MASK: u16 = 3;
/// `WGPEER_F_REPLACE_ALLOWEDIPS`.
const REPLACE_ALLOWEDIPS: u32 = 2;
/// `WGPEER_F_UPDATE_ONLY`: a peer that is gone meanwhile is not made again.
const UPDATE_ONLY: u32 = 4;
/// `struct genlmsghdr`: command, version, 2 bytes reserved.
const HEADER: usize = 4;
/// A nest's length has 16 bits; an allowed address takes 36 bytes at the most.
const ADDRESSES_A_MESSAGE: usize = 1_000;

/// A peer's public key.
pub type PublicKey = [u8; 32];

/// What a peer is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which.
    pub public_key: PublicKey,
    /// Its addresses, as the kernel lists them.
    pub allowed_ips: Vec<IpNet>,
}

/// WireGuard's part of the kernel.
#[derive(Debug)]
pub struct Wireguard {
    socket: Socket,
    family: u16,
}

impl Wireguard {
    /// Opens it in the calling thread's network namespace. [`KernelError::is_absent`] where the kernel has no WireGuard.
    pub fn open() -> Result<Self, KernelError> {
        let mut socket = Socket::open(Protocol::Generic)?;
        let mut batch = Batch::new();
        let attempted = "find generic netlink family wireguard: is the module loaded?";
        batch
            .message(attempted, CONTROL, 0, &[CTRL_CMD_GETFAMILY, 1, 0, 0])
            .text(CTRL_ATTR_FAMILY_NAME, NAME);
        let mut family = None;
        let failures = socket.execute_reading(&mut batch, |kind, payload| {
            if kind == CONTROL {
                family = family_id(payload);
            }
        })?;
        if let Some(failure) = failures.into_iter().next() {
            return Err(failure.error);
        }
        let family = family.ok_or_else(|| KernelError::new(attempted, Errno::NOENT))?;
        Ok(Self { socket, family })
    }

    /// The peers of the device with this index.
    pub fn peers(&mut self, index: u32) -> Result<Vec<Peer>, KernelError> {
        let mut request = Batch::new();
        request
            .message(
                "list the peers of a WireGuard link",
                self.family,
                0,
                &[WG_CMD_GET_DEVICE, VERSION, 0, 0],
            )
            .u32(WGDEVICE_A_IFINDEX, index);
        let mut peers = Vec::new();
        let family = self.family;
        self.socket.dump(&mut request, |object| match object {
            Some((kind, payload)) if kind == family => collect_peers(payload, &mut peers),
            Some(_) => {}
            None => peers.clear(),
        })?;
        Ok(peers)
    }

    /// Allows a peer these addresses besides those that it is allowed. The kernel takes one from the peer that has it.
    pub fn allow(&mut self, index: u32, peer: &PublicKey, allowed: &[IpNet]) -> Result<(), KernelError> {
        let mut batch = Batch::new();
        for some in allowed.chunks(ADDRESSES_A_MESSAGE) {
            write_allowed(&mut batch, self.family, index, peer, UPDATE_ONLY, some);
        }
        self.socket.execute_all(&mut batch)
    }

    /// Allows a peer these addresses and no others; at most a thousand.
    pub fn allow_only(&mut self, index: u32, peer: &PublicKey, allowed: &[IpNet]) -> Result<(), KernelError> {
        let mut batch = Batch::new();
        write_allowed(&mut batch, self.family, index, peer, UPDATE_ONLY | REPLACE_ALLOWEDIPS, allowed);
        self.socket.execute_all(&mut batch)
    }
}

fn write_allowed(
    batch: &mut Batch,
    family: u16,
    index: u32,
    peer: &PublicKey,
    flags: u32,
    allowed: &[IpNet],
) {
    let header = [WG_CMD_SET_DEVICE, VERSION, 0, 0];
    let mut message = batch.message("set the AllowedIPs of a WireGuard peer", family, 0, &header);
    message.u32(WGDEVICE_A_IFINDEX, index).nest(WGDEVICE_A_PEERS, |peers| {
        // The elements of a list are of type 0.
        peers.nest(0, |element| {
            element.attribute(WGPEER_A_PUBLIC_KEY, peer).u32(WGPEER_A_FLAGS, flags);
            element.nest(WGPEER_A_ALLOWEDIPS, |list| {
                for net in allowed {
                    list.nest(0, |allowed| {
                        allowed
                            .u16(WGALLOWEDIP_A_FAMILY, family_of(net.addr()).into())
                            .ip(WGALLOWEDIP_A_IPADDR, net.network())
                            .u8(WGALLOWEDIP_A_CIDR_MASK, net.prefix_len());
                    });
                }
            });
        });
    });
}

fn family_id(payload: &[u8]) -> Option<u16> {
    Attributes::new(payload.get(HEADER..)?).get(CTRL_ATTR_FAMILY_ID)?.u16()
}

/// Reads one message of a device. A peer with more addresses than fit goes on in the next one.
pub fn collect_peers(payload: &[u8], peers: &mut Vec<Peer>) {
    let Some(list) = payload.get(HEADER..).and_then(|rest| Attributes::new(rest).get(WGDEVICE_A_PEERS))
    else {
        return;
    };
    for element in list.nested() {
        let attributes = element.nested();
        let Some(public_key) = attributes.get(WGPEER_A_PUBLIC_KEY).and_then(|key| key.array()) else {
            continue;
        };
        let listed = attributes.get(WGPEER_A_ALLOWEDIPS);
        let allowed =
            listed.into_iter().flat_map(|list| list.nested()).filter_map(|entry| allowed_ip(&entry));
        match peers.last_mut().filter(|last| last.public_key == public_key) {
            Some(same) => same.allowed_ips.extend(allowed),
            None => peers.push(Peer { public_key, allowed_ips: allowed.collect() }),
        }
    }
}

fn allowed_ip(entry: &Attribute<'_>) -> Option<IpNet> {
    let attributes = entry.nested();
    let address = attributes.get(WGALLOWEDIP_A_IPADDR)?.ip()?;
    IpNet::new(address, attributes.get(WGALLOWEDIP_A_CIDR_MASK)?.u8()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::Replies;

    const KEY: PublicKey = [7; 32];

    fn payloads(batch: &Batch) -> Vec<Vec<u8>> {
        let objects = Replies::new(batch.bytes()).filter_map(|(_, _, reply)| match reply {
            crate::netlink::Reply::Object { payload, .. } => Some(payload.to_vec()),
            _ => None,
        });
        objects.collect()
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// `linux/wireguard.h`, put together by hand.
    #[test]
    fn an_added_address_is_written_byte_for_byte() {
        let mut batch = Batch::new();
        write_allowed(&mut batch, 0x1f, 5, &KEY, UPDATE_ONLY, &nets(&["10.244.2.0/24"]));
        let mut expected = vec![1, 1, 0, 0]; // WG_CMD_SET_DEVICE, version 1
        expected.extend([8, 0, 1, 0, 5, 0, 0, 0]); // WGDEVICE_A_IFINDEX
        expected.extend([84, 0, 8, 0x80]); // WGDEVICE_A_PEERS
        expected.extend([80, 0, 0, 0x80]); // its first element
        expected.extend([36, 0, 1, 0]); // WGPEER_A_PUBLIC_KEY
        expected.extend(KEY);
        expected.extend([8, 0, 3, 0, 4, 0, 0, 0]); // WGPEER_A_FLAGS: update only
        expected.extend([32, 0, 9, 0x80]); // WGPEER_A_ALLOWEDIPS
        expected.extend([28, 0, 0, 0x80]); // its first element
        expected.extend([6, 0, 1, 0, 2, 0, 0, 0]); // family: AF_INET
        expected.extend([8, 0, 2, 0, 10, 244, 2, 0]); // address
        expected.extend([5, 0, 3, 0, 24, 0, 0, 0]); // mask
        if cfg!(target_endian = "little") {
            assert_eq!(payloads(&batch), [expected]);
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_a_peer_goes_on_in_the_next_message() {
        let all = nets(&["10.244.2.0/24", "fd00:10:244:2::/64", "0.0.0.0/0"]);
        let mut batch = Batch::new();
        write_allowed(&mut batch, 0x1f, 5, &KEY, 0, &all[..2]);
        write_allowed(&mut batch, 0x1f, 5, &KEY, 0, &all[2..]);
        write_allowed(&mut batch, 0x1f, 5, &[8; 32], 0, &[]);
        let mut peers = Vec::new();
        payloads(&batch).iter().for_each(|payload| collect_peers(payload, &mut peers));
        let expected = [
            Peer { public_key: KEY, allowed_ips: all },
            Peer { public_key: [8; 32], allowed_ips: Vec::new() },
        ];
        assert_eq!(peers, expected);
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            collect_peers(&bytes, &mut Vec::new());
            let _ = family_id(&bytes);
        }
    }
}
