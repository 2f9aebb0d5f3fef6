//! What rules do to packets: a connection or a datagram is tried, and who saw it tells from where.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::case::{Probe, Transport};
use crate::error::SuiteError;
use crate::scene::Scene;

/// For how long nothing must have come for it to count as nothing. Everything here is one machine.
const SILENCE: Duration = Duration::from_millis(400);

/// How often silence is asked again: the kernel may hold the first packets of a new link back for a second, and which rules
/// there are is what is compared.
const ASKED_AGAIN: u32 = 4;

const NOTHING: &str = "silence";
/// It came, and what was sent back did not.
const NOT_ANSWERED: &str = "not answered";
/// A connection of which this listener heard nothing.
const ELSEWHERE: &str = "somebody else answered";
const ARRIVED: &str = "seen as";

/// Tries it: `seen as ADDRESS`, or what became of it.
pub(crate) fn outcome(scene: &Scene, probe: &Probe) -> Result<Value, SuiteError> {
    let attempt = || match probe.protocol {
        Transport::Tcp => tcp(scene, probe),
        Transport::Udp => udp(scene, probe),
    };
    let mut told = attempt()?;
    for _ in 0..ASKED_AGAIN {
        if ![NOTHING, NOT_ANSWERED, ELSEWHERE].contains(&told.as_str()) {
            break;
        }
        // Of what does not come, neighbours that were asked for in vain make other errors with time.
        let again = attempt()?;
        if again.starts_with(ARRIVED) {
            told = again;
        }
    }
    Ok(json!(told))
}

fn lost(attempted: &str) -> impl FnOnce(std::io::Error) -> SuiteError {
    let attempted = attempted.to_owned();
    move |source| SuiteError::Io { attempted, source }
}

/// Binds in a namespace. A process that another thread is just starting may still have a copy of an older socket.
fn bound<S>(scene: &Scene, at: &str, bind: impl Fn() -> std::io::Result<S>) -> Result<S, SuiteError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match scene.inside(at, &bind)? {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::yield_now();
            }
            outcome => return outcome.map_err(lost("listen")),
        }
    }
}

fn address(probe: &Probe) -> Result<SocketAddr, SuiteError> {
    probe.to.parse().map_err(|_| SuiteError::Unknown { what: "the address", name: probe.to.to_owned() })
}

/// An IPv4 source that came to a socket of both families is shown as such.
fn shown(seen: SocketAddr) -> String {
    format!("{ARRIVED} {}", seen.ip().to_canonical())
}

fn tcp(scene: &Scene, probe: &Probe) -> Result<String, SuiteError> {
    let to = address(probe)?;
    let listener = bound(scene, probe.at, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, probe.port)))?;
    listener.set_nonblocking(true).map_err(lost("listen"))?;
    let mut stream = match scene.inside(probe.from, || TcpStream::connect_timeout(&to, SILENCE))? {
        Ok(stream) => stream,
        Err(error) => return Ok(refusal(&error)),
    };
    let deadline = Instant::now() + SILENCE;
    loop {
        match listener.accept() {
            Ok((mut accepted, seen)) => {
                accepted.write_all(b"x").map_err(lost("answer a connection"))?;
                stream.set_read_timeout(Some(SILENCE)).map_err(lost("wait for an answer"))?;
                let answered = stream.read(&mut [0; 1]).is_ok_and(|length| length == 1);
                return Ok(if answered { shown(seen) } else { NOT_ANSWERED.to_owned() });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::yield_now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Ok(ELSEWHERE.to_owned());
            }
            Err(error) => return Err(lost("accept a connection")(error)),
        }
    }
}

fn udp(scene: &Scene, probe: &Probe) -> Result<String, SuiteError> {
    let to = address(probe)?;
    let receiver = bound(scene, probe.at, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, probe.port)))?;
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let source = probe.source.unwrap_or(any);
    let sender = scene.inside(probe.from, || UdpSocket::bind(source))?.map_err(lost("bind a socket"))?;
    for socket in [&receiver, &sender] {
        socket.set_read_timeout(Some(SILENCE)).map_err(lost("wait for a datagram"))?;
    }
    sender.connect(to).ok();
    if let Err(error) = sender.send(b"x") {
        return Ok(refusal(&error));
    }
    let mut byte = [0; 1];
    let Ok((_, seen)) = receiver.recv_from(&mut byte) else { return Ok(NOTHING.to_owned()) };
    receiver.send_to(&byte, seen).map_err(lost("answer a datagram"))?;
    Ok(if sender.recv(&mut byte).is_ok() { shown(seen) } else { NOT_ANSWERED.to_owned() })
}

/// Which refusal it was, is a matter of the rule; that it was one is the same for all.
fn refusal(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => NOTHING.to_owned(),
        ErrorKind::ConnectionRefused => "refused".to_owned(),
        kind => format!("{kind:?}"),
    }
}
