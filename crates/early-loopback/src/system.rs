//! System calls, by the processor's own instruction. Of an error nothing is told: the ordinary plugin meets it again.

use core::arch::asm;
use core::mem::MaybeUninit;

// `asm/unistd_64.h`.
const READ: usize = 0;
const WRITE: usize = 1;
const OPEN: usize = 2;
const CLOSE: usize = 3;
const FSTAT: usize = 5;
const IOCTL: usize = 16;
const SOCKET: usize = 41;
const SENDTO: usize = 44;
const RECVFROM: usize = 45;
const EXIT_GROUP: usize = 231;
const SETNS: usize = 308;

/// `O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC`.
const FOR_READING: usize = 0x8_0900;
/// `SOCK_CLOEXEC`.
const CLOEXEC: usize = 0x8_0000;
/// `SIOCGSKNS` (`linux/sockios.h`): opens the network namespace of a socket.
const SIOCGSKNS: usize = 0x894c;
/// `CLONE_NEWNET`.
const NEWNET: usize = 0x4000_0000;
/// `AF_UNIX` with `SOCK_DGRAM`, `AF_NETLINK` with `SOCK_RAW`.
pub(crate) const ANY: (usize, usize) = (1, 2);
pub(crate) const NETLINK: (usize, usize) = (16, 3);

/// Makes a system call; none where it fails.
///
/// # Safety
/// As the call's own: memory that it reads or writes must be there to be read or written.
unsafe fn call(number: usize, arguments: [usize; 4]) -> Option<usize> {
    let [first, second, third, fourth] = arguments;
    let result: isize;
    // SAFETY: the caller's. The kernel changes the two registers, and no stack. The last two arguments of the calls
    // above are an address that is not given.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number.cast_signed() => result,
            in("rdi") first, in("rsi") second, in("rdx") third, in("r10") fourth, in("r8") 0, in("r9") 0,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    usize::try_from(result).ok()
}

/// An open file, closed when dropped.
pub(crate) struct Descriptor(usize);

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: nobody else knows the descriptor.
        unsafe { call(CLOSE, [self.0, 0, 0, 0]) };
    }
}

impl Descriptor {
    /// One that is none of the three that programs begin with: those may be closed.
    fn of(number: usize) -> Option<Self> {
        Some(Self(number)).filter(|descriptor| descriptor.0 > 2)
    }

    /// Opens a path that ends with a NUL.
    pub(crate) fn open(path: &[u8]) -> Option<Self> {
        (path.last() == Some(&0)).then_some(())?;
        // SAFETY: the path ends.
        Self::of(unsafe { call(OPEN, [path.as_ptr() as usize, FOR_READING, 0, 0]) }?)
    }

    /// A socket of a family and a kind.
    pub(crate) fn socket((family, kind): (usize, usize)) -> Option<Self> {
        // SAFETY: no memory is given.
        Self::of(unsafe { call(SOCKET, [family, kind | CLOEXEC, 0, 0]) }?)
    }

    /// The network namespace of a socket.
    pub(crate) fn namespace(&self) -> Option<Self> {
        // SAFETY: no memory is given.
        Self::of(unsafe { call(IOCTL, [self.0, SIOCGSKNS, 0, 0]) }?)
    }

    /// Moves this process into a network namespace; none where the file is nothing of that kind.
    pub(crate) fn enter(&self) -> Option<()> {
        // SAFETY: no memory is given.
        unsafe { call(SETNS, [self.0, NEWNET, 0, 0]) }.map(|_| ())
    }

    /// Which file it is: device and inode, the first two words of `struct stat`.
    pub(crate) fn identity(&self) -> Option<(u64, u64)> {
        let mut stat = MaybeUninit::<[u64; 18]>::uninit();
        // SAFETY: `struct stat` has 144 bytes (`asm/stat.h`), all of which the kernel writes.
        unsafe {
            call(FSTAT, [self.0, stat.as_mut_ptr() as usize, 0, 0])?;
            let [device, inode, ..] = stat.assume_init_ref();
            Some((*device, *inode))
        }
    }

    pub(crate) fn send(&self, words: &[u32]) -> Option<()> {
        let length = size_of_val(words);
        // SAFETY: the words are there to be read.
        let sent = unsafe { call(SENDTO, [self.0, words.as_ptr() as usize, length, 0]) }?;
        (sent == length).then_some(())
    }

    /// Receives a datagram; one that does not fit is none.
    pub(crate) fn receive<'b>(&self, into: &'b mut [MaybeUninit<u8>]) -> Option<&'b [u8]> {
        /// `MSG_TRUNC`: tells the whole length.
        const TRUNC: usize = 0x20;
        // SAFETY: the kernel writes as much as it says, and no more than there is room.
        unsafe {
            let length = call(RECVFROM, [self.0, into.as_mut_ptr() as usize, into.len(), TRUNC])?;
            into.get(..length).map(|received| received.assume_init_ref())
        }
    }
}

/// Reads; how much.
pub(crate) fn read(descriptor: usize, into: &mut [u8]) -> Option<usize> {
    // SAFETY: there is room for as much as is asked for.
    unsafe { call(READ, [descriptor, into.as_mut_ptr() as usize, into.len(), 0]) }
}

/// Writes; how much.
pub(crate) fn write(descriptor: usize, text: &[u8]) -> Option<usize> {
    // SAFETY: the text is there to be read.
    unsafe { call(WRITE, [descriptor, text.as_ptr() as usize, text.len(), 0]) }
}

/// Ends this process.
pub(crate) fn exit(code: usize) -> ! {
    loop {
        // SAFETY: nothing runs afterwards.
        unsafe { call(EXIT_GROUP, [code, 0, 0, 0]) };
    }
}
