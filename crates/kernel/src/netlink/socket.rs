//! A netlink socket: sends batches, collects what failed, reads dumps whole.
#![allow(unsafe_code, reason = "netlink sockets and their options have no safe wrapper")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::SendFlags;
use rustix::net::netlink::SocketAddrNetlink;

use super::inbox::Inbox;
use super::{Batch, DUMP, HEADER, Replies, Reply};
use crate::KernelError;
use crate::error::last_errno;

/// What is sent at once at the most: the kernel answers every message before `sendmsg` returns, so larger sends
/// only risk the receive buffer (measured best at 32 KiB).
const SEND_MAX: usize = 32 * 1024;
/// A dump's datagrams are at most 32 KiB (`netlink_dump` in `net/netlink/af_netlink.c`).
const RECEIVE_MAX: usize = 64 * 1024;
/// How often a dump that others' changes interrupted is begun again.
const DUMP_ATTEMPTS: usize = 16;

/// `NLM_F_ACK`.
const ACK: u16 = 0x4;

/// Which of the kernel's subsystems a socket talks to (`linux/netlink.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes, neighbours, traffic control (`NETLINK_ROUTE`).
    Route,
    /// nftables and conntrack (`NETLINK_NETFILTER`).
    Netfilter,
    /// Sockets of the host (`NETLINK_SOCK_DIAG`).
    SockDiag,
    /// Families by name, such as WireGuard (`NETLINK_GENERIC`).
    Generic,
}

impl Protocol {
    fn number(self) -> i32 {
        match self {
            Self::Route => libc::NETLINK_ROUTE,
            Self::Netfilter => libc::NETLINK_NETFILTER,
            Self::SockDiag => libc::NETLINK_SOCK_DIAG,
            Self::Generic => libc::NETLINK_GENERIC,
        }
    }
}

/// One message of a batch that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which message, counted from 0.
    pub index: usize,
    /// What it attempted and what the kernel said.
    pub error: KernelError,
}

/// Messages that are sent at once, and the one of which an acknowledgement is asked.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    first: usize,
    /// One behind the last.
    end: usize,
    acknowledged: usize,
}

/// A socket, bound to the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    inbox: Inbox,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> Result<Self, KernelError> {
        Ok(Self { fd: open(protocol)?, sequence: 0, inbox: Inbox::new(RECEIVE_MAX) })
    }

    /// The socket's port, by which events name the author of a change. The kernel chooses it now, if it has not yet.
    pub fn port(&self) -> Result<u32, KernelError> {
        let failed = |errno| KernelError::new("ask for the port of a netlink socket", errno);
        let port = || -> Result<u32, Errno> {
            Ok(SocketAddrNetlink::try_from(rustix::net::getsockname(&self.fd)?)?.pid())
        };
        match port().map_err(failed)? {
            0 => {
                rustix::net::bind(&self.fd, &SocketAddrNetlink::new(0, 0)).map_err(failed)?;
                port().map_err(failed)
            }
            port => Ok(port),
        }
    }

    /// Asks for a receive buffer of 4 MiB, so that thousands of refusals fit. Without the privilege for it the
    /// default stays, and the kernel reports `ENOBUFS` should it not suffice.
    pub fn enlarge_receive_buffer(&mut self) {
        set_option(self.fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 4 << 20).ok();
    }

    /// Sends every message, and gives what was refused. A refused message does not stop the ones behind it.
    pub fn execute(&mut self, batch: &mut Batch) -> Result<Vec<Failure>, KernelError> {
        self.execute_reading(batch, |_, _| {})
    }

    /// As [`Socket::execute`], for callers to whom one refusal is a failure of the whole; the first is given.
    pub fn execute_all(&mut self, batch: &mut Batch) -> Result<(), KernelError> {
        match self.execute(batch)?.into_iter().next() {
            Some(failure) => Err(failure.error),
            None => Ok(()),
        }
    }

    /// As [`Socket::execute`]; `object` is given each object that the kernel sends in answer: its type and payload.
    pub fn execute_reading(
        &mut self,
        batch: &mut Batch,
        mut object: impl FnMut(u16, &[u8]),
    ) -> Result<Vec<Failure>, KernelError> {
        self.execute_answered(batch, |_, kind, payload| object(kind, payload))
    }

    /// As [`Socket::execute_reading`]; `object` is also told to which message, counted from 0, it is the answer.
    pub fn execute_answered(
        &mut self,
        batch: &mut Batch,
        mut object: impl FnMut(usize, u16, &[u8]),
    ) -> Result<Vec<Failure>, KernelError> {
        let mut failures = Vec::new();
        let mut first = 0;
        while first < batch.len() {
            let start = batch.messages[first].start;
            let mut end = first + 1;
            while end < batch.len() && batch.end_of(end) - start <= SEND_MAX {
                end += 1;
            }
            let chunk = Chunk { first, end, acknowledged: end - 1 };
            self.send_chunk(batch, chunk, &mut failures, &mut object)?;
            first = end;
        }
        Ok(failures)
    }

    /// Sends the whole batch in one `sendmsg`, as an nftables transaction must be: all of it holds, or none. Its first
    /// and last messages are `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
    pub fn execute_transaction(&mut self, batch: &mut Batch) -> Result<Vec<Failure>, KernelError> {
        if batch.bytes.len() > SEND_MAX {
            let size = libc::c_int::try_from(batch.bytes.len().saturating_mul(2)).unwrap_or(libc::c_int::MAX);
            if set_option(self.fd.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, size).is_err() {
                set_option(self.fd.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, size).ok();
            }
        }
        let mut failures = Vec::new();
        if let Some(end @ 3..) = Some(batch.len()) {
            // Before Linux 6.10 the end of a transaction is not acknowledged, so the last message before it is.
            let chunk = Chunk { first: 0, end, acknowledged: end - 2 };
            let sent = self.send_chunk(batch, chunk, &mut failures, &mut |_, _, _| {});
            sent.map_err(|error| match error.errno {
                Errno::MSGSIZE => error.attempting(format!(
                    "send a transaction of {} bytes at once: raise net.core.wmem_max, or run with CAP_NET_ADMIN outside \
                     user namespaces",
                    batch.bytes.len()
                )),
                _ => error,
            })?;
        }
        Ok(failures)
    }

    fn send_chunk(
        &mut self,
        batch: &mut Batch,
        Chunk { first, end, acknowledged }: Chunk,
        failures: &mut Vec<Failure>,
        object: &mut impl FnMut(usize, u16, &[u8]),
    ) -> Result<(), KernelError> {
        if let Some(attempted) = batch.overflowed {
            return Err(KernelError::new(attempted, Errno::MSGSIZE));
        }
        let base = self.sequence.wrapping_add(1);
        for (offset, index) in (first..end).enumerate() {
            let start = batch.messages[index].start;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a chunk holds at most a few thousand messages"
            )]
            let sequence = base.wrapping_add(offset as u32);
            batch.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
            self.sequence = sequence;
        }
        // One acknowledgement a chunk: refusals come anyway, and it comes behind them.
        let last = acknowledged - first;
        let flags = batch.messages[acknowledged].start + 6;
        batch.bytes[flags] |= ACK.to_ne_bytes()[usize::from(cfg!(target_endian = "big"))];
        let attempted = batch.messages[first].attempted;
        self.send(&batch.bytes[batch.messages[first].start..batch.end_of(end - 1)], attempted)?;
        loop {
            let received = match self.receive(attempted) {
                // A transaction refused as a whole is refused at its first message, and nothing else is said.
                Err(error)
                    if error.errno == Errno::AGAIN && acknowledged + 1 < end && !failures.is_empty() =>
                {
                    return Ok(());
                }
                received => received?,
            };
            for (sequence, _, reply) in Replies::new(received) {
                let offset = sequence.wrapping_sub(base) as usize;
                if offset >= end - first {
                    continue;
                }
                match reply {
                    Reply::Object { kind, payload } => object(first + offset, kind, payload),
                    Reply::Refused { errno, kernel_says } => {
                        let index = first + offset;
                        let attempted = batch.messages[index].attempted.to_owned();
                        failures
                            .push(Failure { index, error: KernelError { attempted, errno, kernel_says } });
                        if offset == last {
                            return Ok(());
                        }
                    }
                    Reply::Acknowledged | Reply::Done if offset == last => return Ok(()),
                    Reply::Acknowledged | Reply::Done => {}
                    Reply::Overrun => return Err(KernelError::new(attempted, Errno::NOBUFS)),
                }
            }
        }
    }

    /// Asks for all objects of a kind; the batch holds exactly the one request. A dump that was interrupted by
    /// somebody's change is begun again, and `collect` is told so by `None`.
    pub fn dump(
        &mut self,
        request: &mut Batch,
        mut collect: impl FnMut(Option<(u16, &[u8])>),
    ) -> Result<(), KernelError> {
        let Some(written) = request.messages.first().copied() else { return Ok(()) };
        let flags = u16::from_ne_bytes([request.bytes[6], request.bytes[7]]) | DUMP;
        request.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        for _ in 0..DUMP_ATTEMPTS {
            self.sequence = self.sequence.wrapping_add(1);
            request.bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
            self.send(&request.bytes, written.attempted)?;
            if self.read_dump(written.attempted, &mut collect)? {
                return Ok(());
            }
            collect(None);
        }
        Err(KernelError::new(written.attempted, Errno::INTR))
    }

    /// Whether the dump came whole.
    fn read_dump(
        &mut self,
        attempted: &str,
        collect: &mut impl FnMut(Option<(u16, &[u8])>),
    ) -> Result<bool, KernelError> {
        let mut whole = true;
        let asked = self.sequence;
        loop {
            let received = self.receive(attempted)?;
            for (sequence, interrupted, reply) in Replies::new(received) {
                if sequence != asked {
                    continue;
                }
                whole &= !interrupted;
                match reply {
                    Reply::Object { kind, payload } => collect(Some((kind, payload))),
                    Reply::Done | Reply::Acknowledged => return Ok(whole),
                    Reply::Refused { errno: Errno::INTR, .. } => return Ok(false),
                    // An earlier dump on this socket was not read to its end, because reading failed.
                    Reply::Refused { errno: Errno::BUSY, .. } => {
                        while self.inbox.receive(&self.fd).is_ok() {}
                        return Ok(false);
                    }
                    Reply::Refused { errno, kernel_says } => {
                        return Err(KernelError { attempted: attempted.to_owned(), errno, kernel_says });
                    }
                    Reply::Overrun => return Err(KernelError::new(attempted, Errno::NOBUFS)),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8], attempted: &str) -> Result<(), KernelError> {
        let failed = |errno| KernelError::new(attempted, errno);
        let sent =
            retry_on_intr(|| rustix::net::send(&self.fd, bytes, SendFlags::empty())).map_err(failed)?;
        if sent == bytes.len() { Ok(()) } else { Err(failed(Errno::MSGSIZE)) }
    }

    /// The kernel has queued its whole answer by the time `send` returned, so waiting could only hide a loss.
    fn receive(&mut self, attempted: &str) -> Result<&[u8], KernelError> {
        match self.inbox.receive(&self.fd) {
            Ok(received) if received.len() >= HEADER => Ok(received),
            Ok(_) => Err(KernelError::new(attempted, Errno::BADMSG)),
            Err(errno) => Err(KernelError::new(attempted, errno)),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens a socket with capped and extended acknowledgements and checked dump requests.
pub(crate) fn open(protocol: Protocol) -> Result<OwnedFd, KernelError> {
    let failed = |errno| KernelError::new("open a netlink socket", errno);
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is passed; rustix has no safe name for NETLINK_NETFILTER's address family and protocol pair.
    let raw = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol.number()) };
    if raw < 0 {
        return Err(failed(last_errno()));
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK, libc::NETLINK_GET_STRICT_CHK] {
        // Kernels without one of these give less detail and larger dumps: correct all the same.
        set_option(fd.as_fd(), libc::SOL_NETLINK, option, 1).ok();
    }
    Ok(fd)
}

/// Sets an option of one `int`.
pub(crate) fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> Result<(), Errno> {
    #[expect(clippy::cast_possible_truncation, reason = "the size of an int")]
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` lives through the call, and `length` is its size.
    let status =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(&value).cast(), length) };
    if status == 0 { Ok(()) } else { Err(last_errno()) }
}
