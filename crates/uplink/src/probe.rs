//! Asking whether hosts still answer: a TCP connection that is accepted or refused, an ICMP echo, or a neighbour that
//! answers ARP or a solicitation.

use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpStream};
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::time::{Duration, Instant};

use kernel::KernelError;
use kernel::neighbour;
use kernel::netlink::{Batch, REPLACE, Socket};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

/// How often an unanswered question is asked again.
const AGAIN: Duration = Duration::from_millis(200);
const RTM_NEWNEIGH: u16 = 28;
const NDA_DST: u16 = 1;
const NUD_REACHABLE: u16 = 0x02;
const NUD_PROBE: u16 = 0x10;

/// Who must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A host.
    Host(IpAddr),
    /// A TCP port: whether it accepts or refuses, its host lives.
    Port(SocketAddr),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let host = text.parse().map(Self::Host);
        host.or_else(|_| text.parse().map(Self::Port)).map_err(|_| {
            format!(
                "`{text}` is no address: give 192.0.2.1, 2001:db8::1, 192.0.2.1:6443 or [2001:db8::1]:6443"
            )
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(ip) => ip.fmt(f),
            Self::Port(address) => address.fmt(f),
        }
    }
}

/// Those of `targets` that do not answer within `patience`. Link-local and neighbouring hosts are asked over `link`.
pub fn silent(
    socket: &mut Socket,
    link: u32,
    targets: &[Target],
    patience: Duration,
) -> Result<Vec<Target>, KernelError> {
    let deadline = Instant::now() + patience;
    let mut waiting = targets.to_vec();
    loop {
        let mut silent = Vec::new();
        for target in waiting {
            let answers = match target {
                Target::Port(address) => connects(address),
                Target::Host(ip) => host_answers(socket, link, ip)?,
            };
            if !answers {
                silent.push(target);
            }
        }
        if silent.is_empty() || Instant::now() >= deadline {
            return Ok(silent);
        }
        waiting = silent;
    }
}

fn connects(address: SocketAddr) -> bool {
    match TcpStream::connect_timeout(&address, 5 * AGAIN) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
    }
}

/// Sends one echo request, makes the kernel ask for the neighbour where it is one, and waits a moment for either's answer.
fn host_answers(socket: &mut Socket, link: u32, ip: IpAddr) -> Result<bool, KernelError> {
    let echo = Echo::open(ip)?;
    solicit(socket, link, ip)?;
    // A host that is unreachable at this instant may be reachable at the next.
    let _ = echo.send(ip, link);
    let until = Instant::now() + AGAIN;
    loop {
        if echo.answered(ip) || is_reachable(socket, link, ip)? {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Makes the kernel ask at once for a neighbour that it knows: until it answers, it does not count as reachable.
fn solicit(socket: &mut Socket, link: u32, ip: IpAddr) -> Result<(), KernelError> {
    let mut header = [0; 12];
    header[0] = if ip.is_ipv4() { 2 } else { 10 };
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    header[8..10].copy_from_slice(&NUD_PROBE.to_ne_bytes());
    let mut batch = Batch::new();
    {
        let mut message = batch.message("probe a neighbour", RTM_NEWNEIGH, REPLACE, &header);
        match ip {
            IpAddr::V4(ip) => message.attribute(NDA_DST, &ip.octets()),
            IpAddr::V6(ip) => message.attribute(NDA_DST, &ip.octets()),
        };
    }
    // One that is not known yet is asked for by the echo request itself.
    socket.execute(&mut batch).map(|_| ())
}

fn is_reachable(socket: &mut Socket, link: u32, ip: IpAddr) -> Result<bool, KernelError> {
    let neighbours = neighbour::dump(socket, false)?;
    Ok(neighbours
        .iter()
        .any(|entry| entry.index == link && entry.ip == ip && entry.state & NUD_REACHABLE != 0))
}

/// A raw ICMP socket, and what marks our requests.
#[derive(Debug)]
struct Echo {
    fd: OwnedFd,
    identifier: [u8; 2],
}

impl Echo {
    fn open(ip: IpAddr) -> Result<Self, KernelError> {
        let (family, protocol) = match ip {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(family, SocketType::RAW, flags, Some(protocol))
            .map_err(|errno| KernelError::new("open an ICMP socket", errno))?;
        let pid = rustix::process::getpid().as_raw_nonzero().get().to_ne_bytes();
        Ok(Self { fd, identifier: [pid[0], pid[1]] })
    }

    /// The kernel writes ICMPv6's checksum, and ICMP's we write.
    fn send(&self, ip: IpAddr, link: u32) -> Result<(), Errno> {
        let [a, b] = self.identifier;
        let mut request = [if ip.is_ipv4() { 8 } else { 128 }, 0, 0, 0, a, b, 0, 1];
        let sent = match ip {
            IpAddr::V4(ip) => {
                let sum = !request.chunks(2).fold(0_u16, |sum, pair| {
                    let (sum, carry) = sum.overflowing_add(u16::from_be_bytes([pair[0], pair[1]]));
                    sum + u16::from(carry)
                });
                request[2..4].copy_from_slice(&sum.to_be_bytes());
                rustix::net::sendto(&self.fd, &request, SendFlags::empty(), &SocketAddrV4::new(ip, 0))
            }
            IpAddr::V6(ip) => {
                let scope = if ip.is_unicast_link_local() { link } else { 0 };
                let to = SocketAddrV6::new(ip, 0, 0, scope);
                rustix::net::sendto(&self.fd, &request, SendFlags::empty(), &to)
            }
        };
        sent.map(|_| ())
    }

    /// Reads what came in; whether an answer to us from `ip` is among it.
    fn answered(&self, ip: IpAddr) -> bool {
        let mut packet = [0_u8; 256];
        while let Ok((read, _, from)) = rustix::net::recvfrom(&self.fd, &mut packet[..], RecvFlags::DONTWAIT)
        {
            let from = from.and_then(|from| SocketAddr::try_from(from).ok()).map(|from| from.ip());
            // An IPv4 packet comes with its header, of as many words as it says.
            let start = if ip.is_ipv4() { usize::from(packet[0] & 0xf) * 4 } else { 0 };
            let Some(answer) = packet.get(start..read.min(packet.len())) else { continue };
            let reply = if ip.is_ipv4() { 0 } else { 129 };
            let ours = answer.first() == Some(&reply) && answer.get(4..6) == Some(&self.identifier);
            if ours && from.is_none_or(|from| from == ip || from == IpAddr::V4(Ipv4Addr::UNSPECIFIED)) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_address_or_an_address_and_a_port() {
        for text in ["192.0.2.1", "2001:db8::1", "192.0.2.1:6443", "[2001:db8::1]:6443"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert!("gateway".parse::<Target>().unwrap_err().contains("gateway"));
    }
}
