//! An exchange carried out on a link: frames out, frames in, and the clock.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use dhcp_client::{
    CLIENT_PORT, Endpoints, Exchange, ExchangeError, Mac, Next, Outcome, Terms, build_frame, parse_frame,
};
use kernel::KernelError;
use kernel::link::Link;
use kernel::packet::{EtherType, Instruction, PacketSocket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

const EVERYBODY: Mac = [255; 6];
/// One Ethernet frame, its header included.
const FRAME: usize = 1514;

/// Why an exchange came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The servers.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// A server refuses to prolong a lease.
    #[error("{0}")]
    Refused(String),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// The server of a lease, for what goes to it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its Ethernet address, or that of the way to it, where it is known.
    pub mac: Option<Mac>,
}

/// What was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The terms.
    pub terms: Terms,
    /// From whose Ethernet address they came.
    pub server_mac: Mac,
}

/// Where a client is, seen from the link on which servers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Station {
    /// On the link itself, with its own Ethernet address.
    OnLink,
    /// Behind this node, whose Ethernet address is the only one that the link gets to see: port security, hypervisors
    /// and Wi-Fi let no other through.
    BehindNode,
}

/// A link on which one exchange is carried out.
#[derive(Debug)]
pub struct Line {
    socket: PacketSocket,
    source_mac: Mac,
    client: Ipv4Addr,
    server: Option<Peer>,
}

/// A number that no other exchange is likely to have.
#[must_use]
pub fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl Line {
    /// Opens a link of the thread's namespace, for what carries the number `xid`. What is sent to `client` is heard,
    /// whether or not that is the link's own Ethernet address.
    pub fn open(link: &Link, client: Mac, station: Station, xid: u32) -> Result<Self, KernelError> {
        let socket = PacketSocket::open(link.index, EtherType::Ipv4, &answers_to(xid))?;
        if link.mac != Some(client) {
            // A link that cannot learn another address hears broadcasts all the same, which is what is asked for.
            socket.hear(client).ok();
        }
        let source_mac = match station {
            Station::OnLink => client,
            Station::BehindNode => link.mac.unwrap_or(client),
        };
        Ok(Self { socket, source_mac, client: Ipv4Addr::UNSPECIFIED, server: None })
    }

    /// For a client that has `address`, lent by `server`.
    #[must_use]
    pub fn of_client(self, address: Ipv4Addr, server: Peer) -> Self {
        Self { client: address, server: Some(server), ..self }
    }

    /// The socket, to be waited for.
    #[must_use]
    pub fn socket(&self) -> &PacketSocket {
        &self.socket
    }

    /// The socket, of which no more is wanted.
    pub(crate) fn into_socket(self) -> OwnedFd {
        self.socket.into()
    }

    /// Sends a message, to the server alone or to all.
    pub fn send(&self, payload: &[u8], by_unicast: bool) -> Result<(), KernelError> {
        let server = self.server.filter(|_| by_unicast);
        let endpoints = Endpoints {
            source_mac: self.source_mac,
            destination_mac: server.and_then(|server| server.mac).unwrap_or(EVERYBODY),
            source: self.client,
            destination: server.map_or(Ipv4Addr::BROADCAST, |server| server.address),
        };
        self.socket.send(&build_frame(&endpoints, payload))
    }

    /// Hands all that has come to the exchange; what that came to, and from whose Ethernet address.
    pub fn hear(
        &self,
        exchange: &mut Exchange,
        now: Duration,
    ) -> Result<Option<(Outcome, Mac)>, KernelError> {
        let mut frame = [0; FRAME];
        while let Some(length) = self.socket.receive(&mut frame)? {
            if let Some((endpoints, payload)) = parse_frame(&frame[..length])
                && let Some(outcome) = exchange.receive(payload, now)
            {
                return Ok(Some((outcome, endpoints.source_mac)));
            }
        }
        Ok(None)
    }

    /// Carries the exchange out to its end, with times since `began`. `chosen` is told the terms that are about to be
    /// asked for by name, before they are.
    pub fn converse(
        &self,
        exchange: &mut Exchange,
        began: Instant,
        mut chosen: impl FnMut(&Terms),
    ) -> Result<Agreement, LineError> {
        loop {
            match exchange.next(began.elapsed()) {
                Next::Send(payload) => {
                    if let Some(terms) = exchange.chosen() {
                        chosen(terms);
                    }
                    self.send(&payload, exchange.is_unicast())?;
                }
                Next::GiveUp(error) => return Err(error.into()),
                Next::Wait(until) => {
                    self.wait(until.saturating_sub(began.elapsed()))?;
                    match self.hear(exchange, began.elapsed())? {
                        Some((Outcome::Bound(terms), server_mac)) => {
                            return Ok(Agreement { terms, server_mac });
                        }
                        Some((Outcome::Refused(reason), _)) => return Err(LineError::Refused(reason)),
                        None => {}
                    }
                }
            }
        }
    }

    /// Waits until a frame has come, or for as long as is said.
    fn wait(&self, longest: Duration) -> Result<(), KernelError> {
        let timeout = Timespec::try_from(longest).ok();
        let mut waited = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut waited, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(KernelError::new("wait for frames", errno)),
        }
    }
}

/// Lets through whole UDP packets over IPv4 to the client's port that carry `xid`: on a busy LAN, and beside a hundred
/// other pods that ask, nothing else fills the socket. Operations are those of `linux/bpf_common.h`.
fn answers_to(xid: u32) -> [Instruction; 11] {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HEADER_LEN: u16 = 0xb1;
    const LOAD_HALF_BEHIND: u16 = 0x48;
    const LOAD_WORD_BEHIND: u16 = 0x40;
    const EQUAL: u16 = 0x15;
    const ANY_BIT: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const ETHERNET: u32 = 14;
    [
        Instruction(LOAD_BYTE, 0, 0, ETHERNET + 9),
        Instruction(EQUAL, 0, 8, 17),
        Instruction(LOAD_HALF, 0, 0, ETHERNET + 6),
        Instruction(ANY_BIT, 6, 0, 0x3fff),
        Instruction(LOAD_HEADER_LEN, 0, 0, ETHERNET),
        Instruction(LOAD_HALF_BEHIND, 0, 0, ETHERNET + 2),
        Instruction(EQUAL, 0, 3, CLIENT_PORT as u32),
        Instruction(LOAD_WORD_BEHIND, 0, 0, ETHERNET + 8 + 4),
        Instruction(EQUAL, 0, 1, xid),
        Instruction(RETURN, 0, 0, u32::MAX),
        Instruction(RETURN, 0, 0, 0),
    ]
}
