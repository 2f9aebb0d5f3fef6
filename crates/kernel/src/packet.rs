//! Frames of one link, past the kernel's IP: for a client that has no address yet, and for one whose address is not on
//! this machine.
#![allow(unsafe_code, reason = "packet sockets, their addresses and filters have no safe wrapper")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::KernelError;
use crate::error::last_errno;

/// `PACKET_ADD_MEMBERSHIP` (`linux/if_packet.h`).
const ADD_MEMBERSHIP: libc::c_int = 1;
/// `PACKET_MR_UNICAST`.
const UNICAST: libc::c_ushort = 3;

/// Which kind of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum EtherType {
    /// `ETH_P_IP`.
    Ipv4 = 0x0800,
    /// `ETH_P_ARP`.
    Arp = 0x0806,
    /// `ETH_P_IPV6`.
    Ipv6 = 0x86dd,
}

/// One instruction of a socket filter (classic BPF, `linux/filter.h`): operation, both jumps, operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction(pub u16, pub u8, pub u8, pub u32);

/// A socket on one link, which hears whole frames of one kind.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    index: u32,
}

impl PacketSocket {
    /// Opens a socket on the link of `index` in the thread's namespace, where it stays. It hears only what `filter`
    /// lets through; an empty one lets all through. It takes `CAP_NET_RAW`.
    pub fn open(index: u32, kind: EtherType, filter: &[Instruction]) -> Result<Self, KernelError> {
        let failed = |errno| KernelError::new(format!("open a packet socket on link {index}"), errno);
        // Without a protocol it hears nothing until it is bound, and so nothing that the filter would not let through.
        let socket = Self { fd: raw_socket(libc::SOCK_NONBLOCK).map_err(failed)?, index };
        if !filter.is_empty() {
            socket.attach(filter).map_err(failed)?;
        }
        let address = link_address(index, (kind as u16).to_be());
        // SAFETY: `address` lives through the call, and the length is its size.
        let status = unsafe {
            libc::bind(socket.fd.as_raw_fd(), std::ptr::from_ref(&address).cast(), length_of(&address))
        };
        if status < 0 { Err(failed(last_errno())) } else { Ok(socket) }
    }

    fn attach(&self, filter: &[Instruction]) -> Result<(), Errno> {
        let mut code: Vec<libc::sock_filter> = filter
            .iter()
            .map(|Instruction(code, jt, jf, k)| libc::sock_filter { code: *code, jt: *jt, jf: *jf, k: *k })
            .collect();
        let length = libc::c_ushort::try_from(code.len()).map_err(|_| Errno::INVAL)?;
        let program = libc::sock_fprog { len: length, filter: code.as_mut_ptr() };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    /// Also hears frames for `mac`, which is not the link's own. The socket's end takes it back.
    pub fn hear(&self, mac: [u8; 6]) -> Result<(), KernelError> {
        let mut address = [0; 8];
        address[..6].copy_from_slice(&mac);
        let request = libc::packet_mreq {
            mr_ifindex: self.index.cast_signed(),
            mr_type: UNICAST,
            mr_alen: 6,
            mr_address: address,
        };
        self.set(libc::SOL_PACKET, ADD_MEMBERSHIP, &request)
            .map_err(|errno| KernelError::new(format!("hear another address on link {}", self.index), errno))
    }

    fn set<T>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> Result<(), Errno> {
        // SAFETY: `value` lives through the call, and the length is its size; what it points to lives as long.
        let status = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                std::ptr::from_ref(value).cast(),
                length_of(value),
            )
        };
        if status < 0 { Err(last_errno()) } else { Ok(()) }
    }

    /// Sends a whole frame.
    pub fn send(&self, frame: &[u8]) -> Result<(), KernelError> {
        let sent = rustix::io::retry_on_intr(|| {
            rustix::net::send(&self.fd, frame, rustix::net::SendFlags::NOSIGNAL)
        });
        sent.map(|_| ())
            .map_err(|errno| KernelError::new(format!("send a frame on link {}", self.index), errno))
    }

    /// Takes a frame that has come, and gives its length; none where none has. What is longer than `buffer` is cut.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>, KernelError> {
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.fd, &mut *buffer, rustix::net::RecvFlags::empty())
                .map(|(length, _)| length)
        });
        match received {
            Ok(length) => Ok(Some(length)),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(KernelError::new(format!("hear frames on link {}", self.index), errno)),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<PacketSocket> for OwnedFd {
    fn from(socket: PacketSocket) -> Self {
        socket.fd
    }
}

/// Sends whole frames over the link of `index`, and hears none. It takes `CAP_NET_RAW`. Gives back the socket, for the last
/// to close a packet socket waits for an RCU grace period (`packet_release`).
pub fn send_all(index: u32, frames: &[Vec<u8>]) -> Result<OwnedFd, KernelError> {
    let failed = |what: &str, errno| KernelError::new(format!("{what} on link {index}"), errno);
    let socket = raw_socket(0).map_err(|errno| failed("open a packet socket", errno))?;
    for frame in frames {
        send_one(&socket, index, frame).map_err(|errno| failed("send a frame", errno))?;
    }
    Ok(socket)
}

fn send_one(socket: &OwnedFd, index: u32, frame: &[u8]) -> Result<(), Errno> {
    let kind = frame.get(12..14).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
    let mut to = link_address(index, kind.ok_or(Errno::INVAL)?);
    to.sll_halen = 6;
    to.sll_addr[..6].copy_from_slice(frame.get(..6).ok_or(Errno::INVAL)?);
    // SAFETY: frame and address live through the call, and their lengths are given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            std::ptr::from_ref(&to).cast(),
            length_of(&to),
        )
    };
    if sent < 0 { Err(last_errno()) } else { Ok(()) }
}

/// A packet socket that hears nothing until it is bound to a protocol.
fn raw_socket(flags: libc::c_int) -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is passed.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | flags, 0) };
    if raw < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// `struct sockaddr_ll`; the protocol in network order.
fn link_address(index: u32, protocol: u16) -> libc::sockaddr_ll {
    // SAFETY: all zeros is a valid address of this kind.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::c_ushort::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = protocol;
    address.sll_ifindex = index.cast_signed();
    address
}

fn length_of<T>(value: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of_val(value)).unwrap_or_default()
}
