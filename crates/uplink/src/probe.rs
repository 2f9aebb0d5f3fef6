//! Asking whether hosts still answer: a TCP connection that is accepted or refused, an ICMP echo, or a neighbour that
//! answers ARP or a solicitation.

use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::str::FromStr;
use std::time::{Duration, Instant};

use kernel::KernelError;
use kernel::neighbour;
use kernel::netlink::{Batch, Socket};
use kernel::ping::Pinger;

/// How often an unanswered question is asked again.
const AGAIN: Duration = Duration::from_millis(200);

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
    let pid = rustix::process::getpid().as_raw_nonzero().get().to_ne_bytes();
    let pinger = Pinger::open(ip, [pid[0], pid[1]])?;
    let mut batch = Batch::new();
    neighbour::solicit(&mut batch, link, ip);
    // One that is not known yet is asked for by the echo request itself.
    socket.execute(&mut batch)?;
    // A host that is unreachable at this instant may be reachable at the next.
    let _ = pinger.ask(1, link);
    let until = Instant::now() + AGAIN;
    loop {
        if pinger.answers() > 0 || is_reachable(socket, link, ip)? {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_reachable(socket: &mut Socket, link: u32, ip: IpAddr) -> Result<bool, KernelError> {
    let neighbours = neighbour::dump(socket, false)?;
    Ok(neighbours
        .iter()
        .any(|entry| entry.index == link && entry.ip == ip && entry.state & neighbour::REACHABLE != 0))
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
