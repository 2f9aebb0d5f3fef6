//! The asking side: one request, one answer, and never a second try.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How long an answer may take. A first packet that waited for a neighbour takes a second, one on a busy machine longer: that
/// is to be seen as slow, not as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// `tcp:ADDRESS:PORT` or `udp:ADDRESS:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Over TCP, otherwise over UDP.
    pub tcp: bool,
    /// Where.
    pub address: SocketAddr,
}

impl Target {
    /// Both protocols at one address.
    #[must_use]
    pub fn both(ip: IpAddr, port: u16) -> [Self; 2] {
        [true, false].map(|tcp| Self { tcp, address: SocketAddr::new(ip, port) })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", if self.tcp { "tcp" } else { "udp" }, self.address)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no target: write tcp:ADDRESS:PORT or udp:ADDRESS:PORT");
        let (protocol, address) = text.split_once(':').ok_or_else(wrong)?;
        let tcp = match protocol {
            "tcp" => true,
            "udp" => false,
            _ => return Err(wrong()),
        };
        Ok(Self { tcp, address: address.parse().map_err(|_| wrong())? })
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The target, as it was given.
    pub target: String,
    /// Who answered, and the source address that it saw.
    pub answered: Option<(String, IpAddr)>,
    /// Why there is no answer.
    pub error: Option<String>,
    /// From before the first packet to the answer, in microseconds.
    pub took_us: u64,
}

/// Asks once.
#[must_use]
pub fn ask(target: Target) -> Answer {
    let began = Instant::now();
    let outcome = if target.tcp { over_tcp(target.address) } else { over_udp(target.address) };
    let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let (answered, error) = match outcome {
        Ok(answered) => (Some(answered), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Answer { target: target.to_string(), answered, error, took_us }
}

/// Asks all at once, and gives the answers in the order of the targets.
#[must_use]
pub fn ask_all(targets: &[Target]) -> Vec<Answer> {
    std::thread::scope(|scope| {
        let asking: Vec<_> = targets.iter().map(|target| scope.spawn(|| ask(*target))).collect();
        asking.into_iter().flat_map(std::thread::ScopedJoinHandle::join).collect()
    })
}

fn over_tcp(address: SocketAddr) -> io::Result<(String, IpAddr)> {
    let mut connection = TcpStream::connect_timeout(&address, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(b"hello\n")?;
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    read(&line)
}

fn over_udp(address: SocketAddr) -> io::Result<(String, IpAddr)> {
    let any: IpAddr = if address.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"hello")?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer)?;
    read(&String::from_utf8_lossy(&buffer[..length]))
}

fn read(answer: &str) -> io::Result<(String, IpAddr)> {
    let words: Vec<&str> = answer.split_whitespace().collect();
    match words[..] {
        ["hello", name, source] => Ok((name.to_owned(), source.parse().map_err(io::Error::other)?)),
        _ => Err(io::Error::other(format!("the answer is `{}`", answer.trim_end()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_it_is_written() {
        for text in ["tcp:10.0.0.1:80", "udp:[fd00::1]:8080"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert!("icmp:10.0.0.1:80".parse::<Target>().is_err());
        assert!("tcp:10.0.0.1".parse::<Target>().is_err());
    }

    #[test]
    fn an_answer_to_something_else_is_none() {
        assert!(read("hello web 10.0.0.1").is_ok());
        assert!(read("").is_err());
        assert!(read("hello web").is_err());
    }
}
