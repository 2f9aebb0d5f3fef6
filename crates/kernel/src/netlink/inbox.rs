//! Where datagrams are received: memory that nothing writes to before the kernel does. To clear a buffer of 64 KiB is
//! sixteen page faults, and most answers are shorter than one page.

use std::fmt;

use rustix::buffer::spare_capacity;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// Holds one datagram at a time.
pub(crate) struct Inbox(Vec<u8>);

impl Inbox {
    /// For datagrams of at most so many bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// The next datagram, without waiting for one; `MSGSIZE` where it is longer than this holds.
    pub(crate) fn receive(&mut self, socket: impl AsFd) -> Result<&[u8], Errno> {
        // With TRUNC the kernel tells the whole length, also of what did not fit.
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let (held, length) = loop {
            self.0.clear();
            match recv(&socket, spare_capacity(&mut self.0), flags) {
                Err(Errno::INTR) => {}
                received => break received?,
            }
        };
        if length > held { Err(Errno::MSGSIZE) } else { Ok(&self.0) }
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inbox({} bytes)", self.0.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_datagram_is_given_whole_and_one_that_does_not_fit_is_refused() {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        let mut inbox = Inbox::new(4);
        sender.send(b"four").unwrap();
        sender.send(b"seven..").unwrap();
        assert_eq!(inbox.receive(&receiver), Ok(&b"four"[..]));
        assert_eq!(inbox.receive(&receiver), Err(Errno::MSGSIZE));
        assert_eq!(inbox.receive(&receiver), Err(Errno::AGAIN));
    }
}
