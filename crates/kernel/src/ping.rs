//! ICMP echo (RFC 792, RFC 4443): asking one address, and counting what answers.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

use crate::KernelError;
use crate::announce::checksum;

/// A socket that asks one address. Needs `CAP_NET_RAW`.
#[derive(Debug)]
pub struct Pinger {
    fd: OwnedFd,
    ip: IpAddr,
    identifier: [u8; 2],
}

impl Pinger {
    /// Opens it in the calling thread's network namespace; `identifier` marks its questions.
    pub fn open(ip: IpAddr, identifier: [u8; 2]) -> Result<Self, KernelError> {
        let (family, protocol) = match ip {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(family, SocketType::RAW, flags, Some(protocol))
            .map_err(|errno| KernelError::new("open an ICMP socket", errno))?;
        Ok(Self { fd, ip, identifier })
    }

    /// Asks once; over `link` where the address is a link-local one, and that is needed to say where it is.
    pub fn ask(&self, number: u16, link: u32) -> Result<(), Errno> {
        let request = request(self.ip, self.identifier, number);
        let to: SocketAddr = match self.ip {
            IpAddr::V4(ip) => SocketAddrV4::new(ip, 0).into(),
            IpAddr::V6(ip) => {
                let scope = if ip.is_unicast_link_local() { link } else { 0 };
                SocketAddrV6::new(ip, 0, 0, scope).into()
            }
        };
        rustix::net::sendto(&self.fd, &request, SendFlags::empty(), &to).map(|_| ())
    }

    /// How many answers came in since the last time; waits for none.
    #[must_use]
    pub fn answers(&self) -> u64 {
        let mut packet = [0_u8; 256];
        let mut answers = 0;
        while let Ok((read, _, from)) = rustix::net::recvfrom(&self.fd, &mut packet[..], RecvFlags::DONTWAIT)
        {
            let from = from.and_then(|from| SocketAddr::try_from(from).ok()).map(|from| from.ip());
            let packet = packet.get(..read).unwrap_or(&packet);
            if from.is_none_or(|from| from == self.ip) && is_answer(packet, self.ip, self.identifier) {
                answers += 1;
            }
        }
        answers
    }
}

impl AsFd for Pinger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn request(ip: IpAddr, [a, b]: [u8; 2], number: u16) -> [u8; 8] {
    let [high, low] = number.to_be_bytes();
    let mut message = [if ip.is_ipv4() { 8 } else { 128 }, 0, 0, 0, a, b, high, low];
    // Of ICMPv6, the kernel writes it anew.
    let sum = checksum(message.iter());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// Whether what a raw socket heard is an answer to us.
fn is_answer(packet: &[u8], ip: IpAddr, identifier: [u8; 2]) -> bool {
    // An IPv4 packet comes with its header, of as many words as it says.
    let words = packet.first().map_or(0, |first| first & 0xf);
    let start = if ip.is_ipv4() { usize::from(words) * 4 } else { 0 };
    let message = packet.get(start..).unwrap_or_default();
    let reply = if ip.is_ipv4() { 0 } else { 129 };
    message.first() == Some(&reply) && message.get(4..6) == Some(&identifier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const US: [u8; 2] = [0x68, 0x67];

    #[test]
    fn a_request_is_marked_numbered_and_sums_up_to_nothing() {
        let message = request("192.0.2.1".parse().unwrap(), US, 0x0102);
        assert_eq!((message[0], &message[4..]), (8, &[0x68, 0x67, 1, 2][..]));
        assert_eq!(checksum(message.iter()), 0);
        assert_eq!(request("2001:db8::1".parse().unwrap(), US, 7)[0], 128);
    }

    #[test]
    fn only_an_answer_to_us_is_one() {
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let behind_header = |message: &[u8]| [&[0x45; 20][..], message].concat();
        assert!(is_answer(&behind_header(&[0, 0, 0, 0, 0x68, 0x67, 0, 1]), v4, US));
        assert!(!is_answer(&behind_header(&[8, 0, 0, 0, 0x68, 0x67, 0, 1]), v4, US));
        assert!(!is_answer(&behind_header(&[0, 0, 0, 0, 0x68, 0x68, 0, 1]), v4, US));
        assert!(is_answer(&[129, 0, 0, 0, 0x68, 0x67, 0, 1], v6, US));
        assert!(!is_answer(&[128, 0, 0, 0, 0x68, 0x67, 0, 1], v6, US));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), v4: bool) {
            let ip = if v4 { IpAddr::from([192, 0, 2, 1]) } else { IpAddr::from([0_u8; 16]) };
            let _ = is_answer(&bytes, ip, US);
        }
    }
}
