//! The asking side: one datagram or one connection, never repeated, and what came of it.
#![allow(unsafe_code, reason = "IP_MTU_DISCOVER has no safe wrapper")]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kernel::link;
use kernel::netlink::{Protocol, Socket};
use kernel::netns::NetNs;

use super::Probe;
use super::echo::{Answer, REQUEST, read_answer, request};
use crate::report::{ProbeKind, ProbeReport, Transport};
use crate::topology::{LAN_MTU, POD_LINK};

/// What a probe brought home.
struct Outcome {
    rtt: Duration,
    answer: Answer,
}

/// Sends the probe from `netns`.
pub(super) fn send(probe: &Probe, netns: Option<&NetNs>, patience: Duration) -> ProbeReport {
    let outcome = match netns {
        None => Err(format!("there is no place named {}", probe.from)),
        Some(netns) => match netns.run(|| exchange(probe, patience)) {
            Ok(outcome) => outcome,
            Err(error) => Err(error.to_string()),
        },
    };
    match outcome {
        Err(error) => fruitless(probe, &error),
        Ok(Outcome { rtt, answer }) => {
            let error = verify(probe, &answer).err();
            ProbeReport {
                ok: error.is_none(),
                rtt_us: u64::try_from(rtt.as_micros()).ok(),
                seen_source: Some(answer.source),
                error,
                ..fruitless(probe, "")
            }
        }
    }
}

/// The report of a probe that brought nothing home.
pub(super) fn fruitless(probe: &Probe, error: &str) -> ProbeReport {
    ProbeReport {
        from: probe.from.clone(),
        to: probe.to.clone(),
        family: probe.family,
        kind: probe.kind,
        transport: probe.transport,
        first_packet: false,
        ok: false,
        rtt_us: None,
        seen_source: None,
        error: Some(error.to_owned()),
    }
}

/// Whether the right place answered, and saw the right source.
fn verify(probe: &Probe, answer: &Answer) -> Result<(), String> {
    if answer.responder != probe.responder {
        return Err(format!("{} answered in place of {}", answer.responder, probe.responder));
    }
    if !probe.sources.contains(&answer.source) {
        let wanted: Vec<_> = probe.sources.iter().map(IpAddr::to_string).collect();
        return Err(format!(
            "{} saw {} as the source, not {}",
            answer.responder,
            answer.source,
            wanted.join(" or ")
        ));
    }
    Ok(())
}

fn exchange(probe: &Probe, patience: Duration) -> Result<Outcome, String> {
    match (probe.kind, probe.transport) {
        (ProbeKind::Mtu, _) => exchange_full_size(probe, patience),
        (_, Transport::Udp) => exchange_datagram(&connect(probe, patience)?, REQUEST, patience),
        (_, Transport::Tcp) => exchange_connection(probe, patience),
    }
}

/// Distinguishes every request of this process from every other.
fn nonce() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A connected socket accepts answers of its target only, and hears what ICMP says about it.
fn connect(probe: &Probe, patience: Duration) -> Result<UdpSocket, String> {
    let unspecified: IpAddr = match probe.target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((unspecified, 0))
        .and_then(|socket| {
            socket.connect(probe.target)?;
            socket.set_read_timeout(Some(patience))?;
            Ok(socket)
        })
        .map_err(|error| format!("no socket towards {}: {error}", probe.target))
}

fn exchange_datagram(socket: &UdpSocket, length: usize, patience: Duration) -> Result<Outcome, String> {
    let nonce = nonce();
    let start = Instant::now();
    socket
        .send(&request(nonce, length))
        .map_err(|error| format!("one datagram of {length} bytes was refused: {error}"))?;
    let mut buffer = [0; 256];
    let read = socket.recv(&mut buffer).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {} ms to the one datagram", patience.as_millis())
        }
        _ => format!("the one datagram was answered by an error: {error}"),
    })?;
    let rtt = start.elapsed();
    let answer = read_answer(&buffer[..read], nonce).ok_or("the answer is not to this request")?;
    if answer.length == length.max(REQUEST) {
        Ok(Outcome { rtt, answer })
    } else {
        Err(format!("{} of {length} bytes arrived", answer.length))
    }
}

fn exchange_connection(probe: &Probe, patience: Duration) -> Result<Outcome, String> {
    let nonce = nonce();
    let start = Instant::now();
    let converse = || {
        let mut connection = TcpStream::connect_timeout(&probe.target, patience)?;
        connection.set_read_timeout(Some(patience))?;
        connection.write_all(&request(nonce, REQUEST))?;
        let mut bytes = Vec::new();
        connection.take(256).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes =
        converse().map_err(|error: io::Error| format!("no conversation with {}: {error}", probe.target))?;
    let rtt = start.elapsed();
    let answer = read_answer(&bytes, nonce).ok_or("the answer is not to this request")?;
    Ok(Outcome { rtt, answer })
}

/// A datagram of exactly the MTU passes without being fragmented; one byte more is refused at once.
fn exchange_full_size(probe: &Probe, patience: Duration) -> Result<Outcome, String> {
    let mtu = Socket::open(Protocol::Route)
        .and_then(|mut socket| link::by_name(&mut socket, POD_LINK))
        .map_err(|error| error.to_string())?
        .ok_or_else(|| format!("the pod has no link {POD_LINK}"))?
        .mtu;
    if mtu != LAN_MTU {
        return Err(format!("the pod's MTU is {mtu}, its node's uplink has {LAN_MTU}"));
    }
    let socket = connect(probe, patience)?;
    forbid_fragments(&socket, probe.target)
        .map_err(|error| format!("fragments cannot be forbidden: {error}"))?;
    // RFC 791, RFC 8200 and RFC 768: the headers before the payload.
    let headers = if probe.target.is_ipv4() { 20 + 8 } else { 40 + 8 };
    let payload = usize::try_from(mtu).unwrap_or(0).saturating_sub(headers);
    let outcome = exchange_datagram(&socket, payload, patience)?;
    match socket.send(&request(nonce(), payload + 1)) {
        Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => Ok(outcome),
        Err(error) => Err(format!("a datagram one byte longer than the MTU gave \"{error}\", not EMSGSIZE")),
        Ok(_) => Err("a datagram one byte longer than the MTU was accepted".to_owned()),
    }
}

/// Sets "don't fragment", and that longer datagrams are refused (`ip(7)`, `ipv6(7)`).
fn forbid_fragments(socket: &UdpSocket, target: SocketAddr) -> io::Result<()> {
    let (level, option, value) = match target {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
    };
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    // SAFETY: `value` lives through the call, and `length` is its size.
    let status = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(&value).cast(), length)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Family;

    fn probe() -> Probe {
        Probe {
            from: "node1/pod1".to_owned(),
            to: "node2/pod1".to_owned(),
            family: Family::Ipv4,
            kind: ProbeKind::PodPodRemote,
            transport: Transport::Udp,
            target: "10.244.2.2:7007".parse().unwrap(),
            responder: "node2/pod1".to_owned(),
            sources: vec!["10.244.1.2".parse().unwrap()],
        }
    }

    fn answer(responder: &str, source: &str) -> Answer {
        Answer { responder: responder.to_owned(), source: source.parse().unwrap(), length: REQUEST }
    }

    #[test]
    fn an_answer_of_the_wrong_place_or_with_the_wrong_source_fails_the_probe() {
        assert_eq!(verify(&probe(), &answer("node2/pod1", "10.244.1.2")), Ok(()));
        assert!(
            verify(&probe(), &answer("node3/pod1", "10.244.1.2"))
                .unwrap_err()
                .contains("node3/pod1 answered")
        );
        assert!(
            verify(&probe(), &answer("node2/pod1", "192.0.2.11")).unwrap_err().contains("saw 192.0.2.11")
        );
    }
}
