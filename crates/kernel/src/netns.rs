//! Network namespaces: open, compare, enter.
#![allow(
    unsafe_code,
    reason = "asking for a namespace's kind, and a socket for its own, has no safe wrapper"
)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::KernelError;

/// `NS_GET_NSTYPE` (`linux/nsfs.h`): which kind of namespace a file is; `ENOTTY` where it is none.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
/// `SIOCGSKNS` (`linux/sockios.h`): opens the network namespace of a socket.
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// An open network namespace. It lives at least as long as this value.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
}

/// Which namespace: two handles are of the same one exactly if these are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetNsId {
    /// Device of nsfs.
    pub device: u64,
    /// Inode within it.
    pub inode: u64,
}

impl NetNs {
    /// The calling thread's namespace.
    pub fn current() -> Result<Self, KernelError> {
        // Below /proc the kernel would first make entries for five folders of this process, and remove them at its end.
        match Self::of_new_socket() {
            Some(current) => Ok(current),
            None => Self::open(Path::new("/proc/thread-self/ns/net")),
        }
    }

    /// Any socket tells where it was made; none where that takes a privilege (`CAP_NET_ADMIN`) that is not held.
    fn of_new_socket() -> Option<Self> {
        let kind = (AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(kind.0, kind.1, kind.2, None).ok()?;
        // SAFETY: this request takes no argument and writes nowhere.
        let opened = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
        // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
        (opened >= 0).then(|| Self { fd: unsafe { OwnedFd::from_raw_fd(opened) } })
    }

    /// Opens a namespace by its path. A path that is no network namespace (as where a mount did not propagate) is
    /// refused with `EINVAL`; one that is gone with `ENOENT`.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let failed = |errno| KernelError::new(format!("open network namespace {}", path.display()), errno);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
        // SAFETY: this request takes no argument and writes nowhere.
        let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
        if kind != libc::CLONE_NEWNET {
            return Err(failed(Errno::INVAL));
        }
        Ok(Self { fd })
    }

    /// Its identity.
    pub fn id(&self) -> Result<NetNsId, KernelError> {
        let status = rustix::fs::fstat(&self.fd)
            .map_err(|errno| KernelError::new("examine a network namespace", errno))?;
        debug_assert_eq!(FileType::from_raw_mode(status.st_mode), FileType::RegularFile);
        #[allow(
            clippy::unnecessary_cast,
            clippy::useless_conversion,
            reason = "the types differ between architectures"
        )]
        Ok(NetNsId { device: status.st_dev as u64, inode: status.st_ino as u64 })
    }

    /// Moves the calling thread in. Sockets opened and `/proc/sys/net` opened from now on belong to it.
    pub fn enter(&self) -> Result<(), KernelError> {
        move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|errno| KernelError::new("enter a network namespace", errno))
    }

    /// Runs `work` inside and brings the thread back, also when `work` fails.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, KernelError> {
        self.run_from(&Self::current()?, work)
    }

    /// As [`NetNs::run`] for a thread that is in `back`.
    pub fn run_from<T>(&self, back: &Self, work: impl FnOnce() -> T) -> Result<T, KernelError> {
        self.enter()?;
        let done = work();
        back.enter()?;
        Ok(done)
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The identity of the namespace at `path`, without opening it for long; `None` where there is none.
pub fn id_of(path: &Path) -> Option<NetNsId> {
    NetNs::open(path).ok()?.id().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_namespace_is_the_one_that_proc_names() {
        let named = NetNs::open(Path::new("/proc/thread-self/ns/net")).unwrap();
        assert_eq!(NetNs::current().unwrap().id().unwrap(), named.id().unwrap());
    }
}
