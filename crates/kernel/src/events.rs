//! Being told of changes: links, addresses, routes, rules, and nftables.
//!
//! An event only says when to look; what is there is read by a dump. A lost event (`ENOBUFS`) is one more reason to
//! look at everything.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;

use crate::KernelError;
use crate::netlink::{Inbox, Protocol, Replies, Reply, open, set_option};

/// A multicast group (`RTNLGRP_…` of `linux/rtnetlink.h`, `NFNLGRP_…` of `linux/netfilter/nfnetlink.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Links come, change and go.
    Links,
    /// Neighbours.
    Neighbours,
    /// IPv4 addresses.
    Ipv4Addresses,
    /// IPv6 addresses.
    Ipv6Addresses,
    /// IPv4 routes.
    Ipv4Routes,
    /// IPv6 routes.
    Ipv6Routes,
    /// IPv4 policy rules.
    Ipv4Rules,
    /// IPv6 policy rules.
    Ipv6Rules,
    /// Per-link settings of IPv4, forwarding among them.
    Ipv4Netconf,
    /// Per-link settings of IPv6, forwarding among them.
    Ipv6Netconf,
    /// nftables; needs a socket of [`Protocol::Netfilter`].
    Nftables,
}

impl Group {
    fn number(self) -> libc::c_int {
        match self {
            Self::Links => 1,
            Self::Neighbours => 3,
            Self::Ipv4Addresses => 5,
            Self::Ipv4Routes => 7,
            Self::Ipv4Rules => 8,
            Self::Ipv6Addresses => 9,
            Self::Ipv6Routes => 11,
            Self::Ipv6Rules => 19,
            Self::Ipv4Netconf => 24,
            Self::Ipv6Netconf => 25,
            Self::Nftables => 7,
        }
    }
}

/// A non-blocking socket that hears of changes; it can be polled.
#[derive(Debug)]
pub struct Events {
    fd: OwnedFd,
    inbox: Inbox,
}

/// What [`Events::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing more for now.
    Nothing,
    /// Some messages were read.
    Something,
    /// The kernel had to drop messages: anything may have changed.
    Lost,
}

/// One change that the kernel tells of.
#[derive(Clone, Copy, Debug)]
pub struct Event<'bytes> {
    /// The port of the socket through which it was asked for ([`crate::netlink::Socket::port`]); 0 is the kernel itself.
    pub author: u32,
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`: of a new object, in what way it came.
    pub flags: u16,
    /// What stands behind `struct nlmsghdr`.
    pub payload: &'bytes [u8],
}

/// `NLM_F_REPLACE` of [`Event::flags`]: the new object stands in the place of one that had its key.
pub const REPLACED: u16 = 0x100;

impl Events {
    /// Subscribes in the calling thread's network namespace. `receive_buffer` is in bytes; a larger one than the
    /// system's maximum takes privilege, and without it the maximum is kept.
    pub fn subscribe(
        protocol: Protocol,
        groups: &[Group],
        receive_buffer: Option<i32>,
    ) -> Result<Self, KernelError> {
        let fd = open(protocol)?;
        // Unbound, the socket has port 0, the kernel's own, and would be left out as the author of every change.
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))
            .map_err(|errno| KernelError::new("bind a netlink socket", errno))?;
        if let Some(size) = receive_buffer
            && set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size).is_err()
        {
            set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, size).ok();
        }
        for group in groups {
            set_option(fd.as_fd(), libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group.number())
                .map_err(|errno| KernelError::new(format!("subscribe to changes of {group:?}"), errno))?;
        }
        Ok(Self { fd, inbox: Inbox::new(32 * 1024) })
    }

    /// Reads one datagram of events without waiting, and hands each message's type and payload to `each`.
    pub fn read(&mut self, mut each: impl FnMut(u16, &[u8])) -> Result<Heard, KernelError> {
        self.read_events(|event| each(event.kind, event.payload))
    }

    /// As [`Events::read`], with all that is told of each change.
    pub fn read_events(&mut self, mut each: impl FnMut(Event<'_>)) -> Result<Heard, KernelError> {
        match self.inbox.receive(&self.fd) {
            Ok(read) => {
                let mut replies = Replies::new(read);
                while let Some((_, _, reply)) = replies.next() {
                    match reply {
                        Reply::Object { kind, payload } => {
                            each(Event { author: replies.port(), kind, flags: replies.flags(), payload });
                        }
                        Reply::Overrun => return Ok(Heard::Lost),
                        _ => {}
                    }
                }
                Ok(Heard::Something)
            }
            Err(Errno::AGAIN) => Ok(Heard::Nothing),
            Err(Errno::INTR) => Ok(Heard::Something),
            // A datagram that is longer than any should be is cut: what it told is lost, too.
            Err(Errno::NOBUFS | Errno::MSGSIZE) => Ok(Heard::Lost),
            Err(errno) => Err(KernelError::new("read netlink events", errno)),
        }
    }

    /// Waits until there is something to read, or `timeout` is over; whether there is.
    pub fn wait(&self, timeout: std::time::Duration) -> Result<bool, KernelError> {
        let failed = |errno| KernelError::new("wait for netlink events", errno);
        let timeout = rustix::event::Timespec::try_from(timeout).map_err(|_| failed(Errno::INVAL))?;
        let mut fds = [rustix::event::PollFd::new(&self.fd, rustix::event::PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(failed(errno)),
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
