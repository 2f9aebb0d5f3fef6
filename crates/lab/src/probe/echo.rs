//! The answering side: on every address of a place, over UDP and TCP, it tells who it is and which source it saw.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kernel::netns::NetNs;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::LabError;
use crate::topology::ECHO_PORT;

/// Begins every request and answer.
const MAGIC: [u8; 8] = *b"hgw-lab1";
/// Magic and nonce: the least that a request has. What follows is padding.
pub(super) const REQUEST: usize = 16;
/// No datagram is longer.
pub(super) const LONGEST: usize = 65_536;

/// Whoever connected and has said nothing by now has gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the answering place said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Its name.
    pub(super) responder: String,
    /// The source address that it saw.
    pub(super) source: IpAddr,
    /// How many bytes it got.
    pub(super) length: usize,
}

/// A request of `length` bytes, but at least [`REQUEST`].
pub(super) fn request(nonce: u64, length: usize) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(nonce.to_be_bytes());
    bytes.resize(length.max(REQUEST), 0);
    bytes
}

/// The answer to a request, if that is one.
fn answer(name: &str, request: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    let head = request.get(..REQUEST).filter(|head| head.starts_with(&MAGIC))?;
    let mut bytes = head.to_vec();
    bytes.extend(format!("{name} {} {}", source.ip().to_canonical(), request.len()).into_bytes());
    Some(bytes)
}

/// Reads an answer; one to another request is none.
pub(super) fn read_answer(bytes: &[u8], nonce: u64) -> Option<Answer> {
    let rest = bytes.strip_prefix(&request(nonce, REQUEST)[..])?;
    let mut words = std::str::from_utf8(rest).ok()?.split(' ');
    Some(Answer {
        responder: words.next()?.to_owned(),
        source: words.next()?.parse().ok()?,
        length: words.next()?.parse().ok()?,
    })
}

/// A thread that answers for one place, until this is dropped: then its ports are free.
#[derive(Debug)]
pub(crate) struct Server {
    /// Its end wakes the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        // A thread that panicked has printed why, and has closed its sockets.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Server {
    /// Listens in `netns` on each of the addresses. They must be ready: an address that is not fails at once.
    pub(crate) fn start(name: &str, netns: &NetNs, ips: &[IpAddr]) -> Result<Self, LabError> {
        let listen = || -> io::Result<Vec<(UdpSocket, TcpListener)>> {
            ips.iter()
                .map(|ip| {
                    let at = SocketAddr::new(*ip, ECHO_PORT);
                    let (udp, tcp) = (UdpSocket::bind(at)?, TcpListener::bind(at)?);
                    udp.set_nonblocking(true)?;
                    tcp.set_nonblocking(true)?;
                    Ok((udp, tcp))
                })
                .collect()
        };
        let sockets = netns
            .run(listen)
            .map_err(LabError::kernel(name))?
            .map_err(LabError::io(format!("listen in {name} on {ips:?}")))?;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC).map_err(LabError::call("make a pipe"))?;
        let name = name.to_owned();
        let thread = thread::Builder::new()
            .name("echo".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || serve(&name, &sockets, &stopped))
            .map_err(LabError::io("start an echo thread"))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

fn serve(name: &str, sockets: &[(UdpSocket, TcpListener)], stopped: &OwnedFd) {
    let mut buffer = vec![0; LONGEST];
    loop {
        let mut fds: Vec<_> = vec![PollFd::new(stopped, PollFlags::IN)];
        for (udp, tcp) in sockets {
            fds.push(PollFd::new(udp, PollFlags::IN));
            fds.push(PollFd::new(tcp, PollFlags::IN));
        }
        if poll(&mut fds, None).is_err_and(|errno| errno != rustix::io::Errno::INTR) {
            return;
        }
        if !fds[0].revents().is_empty() {
            return;
        }
        for (udp, tcp) in sockets {
            while let Ok((length, source)) = udp.recv_from(&mut buffer) {
                if let Some(answer) = answer(name, &buffer[..length], source) {
                    // An answer that cannot be sent is missed by the one who waits for it.
                    let _ = udp.send_to(&answer, source);
                }
            }
            while let Ok((mut connection, source)) = tcp.accept() {
                let name = name.to_owned();
                // Whoever says nothing for a while must not hold up others. What cannot be answered is missed by who asked.
                let _ = thread::Builder::new()
                    .name("echo".to_owned())
                    .stack_size(256 * 1024)
                    .spawn(move || converse(&name, &mut connection, source));
            }
        }
    }
}

/// One request, one answer.
fn converse(name: &str, connection: &mut std::net::TcpStream, source: SocketAddr) -> io::Result<()> {
    connection.set_nonblocking(false)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut request = [0; REQUEST];
    connection.read_exact(&mut request)?;
    match answer(name, &request, source) {
        Some(answer) => connection.write_all(&answer),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_answer_is_read_back_and_only_under_its_own_nonce(nonce in any::<u64>(), length in 0usize..2000) {
            let source: SocketAddr = "10.244.1.5:999".parse().unwrap();
            let bytes = answer("node1/pod1", &request(nonce, length), source).unwrap();
            let read = read_answer(&bytes, nonce).unwrap();
            prop_assert_eq!((read.responder.as_str(), read.source, read.length), ("node1/pod1", source.ip(), length.max(REQUEST)));
            prop_assert_eq!(read_answer(&bytes, nonce.wrapping_add(1)), None);
        }

        #[test]
        fn no_bytes_make_either_side_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read_answer(&bytes, 1);
            let _ = answer("x", &bytes, "[::1]:1".parse().unwrap());
        }
    }
}
