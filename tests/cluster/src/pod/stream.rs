//! A stream of small packets to a server, over one TCP connection and one UDP flow, and the count of what got no answer.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Between two packets of a flow.
const INTERVAL: Duration = Duration::from_millis(5);
/// After which a flow's packet counts as lost, and a TCP connection that is to be as broken; one that was has twice as long to
/// send again. A machine that starts daemons and pods keeps each of them waiting for seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of one flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Packets that were answered.
    pub answered: u64,
    /// Packets that were not, in time.
    pub lost: u64,
    /// Connections that ended before they were closed.
    pub broken: u64,
    /// The longest time between a packet and its answer, in milliseconds.
    pub longest_ms: u64,
}

impl Flow {
    /// What happened since an earlier count. The longest wait is that of all the time.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            answered: self.answered - earlier.answered,
            lost: self.lost - earlier.lost,
            broken: self.broken - earlier.broken,
            longest_ms: self.longest_ms,
        }
    }
}

/// Flows by their name: `tcp:ADDRESS:PORT` or `udp:ADDRESS:PORT`.
pub type Flows = BTreeMap<String, Flow>;

type Shared = Arc<Mutex<Flows>>;

fn lock(flows: &Shared) -> MutexGuard<'_, Flows> {
    // Counters stay right whatever another thread did.
    flows.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the flows and tells their counts on `counts_port`, for ever.
pub fn stream(servers: &[SocketAddr], counts_port: u16) -> io::Result<()> {
    let flows = Shared::default();
    for server in servers {
        let server = *server;
        let (tcp, udp) = (flows.clone(), flows.clone());
        thread::spawn(move || {
            loop {
                let outcome = tcp_flow(server, &tcp);
                lock(&tcp).entry(format!("tcp:{server}")).or_default().broken += u64::from(outcome.is_err());
                thread::sleep(INTERVAL);
            }
        });
        thread::spawn(move || {
            loop {
                // Ends only where the socket could not be made.
                let _ = udp_flow(server, &udp);
                thread::sleep(INTERVAL);
            }
        });
    }
    for connection in TcpListener::bind((Ipv4Addr::LOCALHOST, counts_port))?.incoming().flatten() {
        let text = serde_json::to_string(&*lock(&flows))?;
        // Whoever asked and went away does not matter.
        let _ = (&connection).write_all(text.as_bytes());
    }
    Ok(())
}

/// One request after the other over one connection. An answer that is late is waited for: TCP sends it again, which is
/// seen in `longest_ms`.
fn tcp_flow(server: SocketAddr, flows: &Shared) -> io::Result<()> {
    let mut connection = TcpStream::connect_timeout(&server, PATIENCE)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE * 2))?;
    let mut answers = BufReader::new(connection.try_clone()?);
    let name = format!("tcp:{server}");
    let mut line = String::new();
    for number in 0_u64.. {
        let sent = Instant::now();
        writeln!(connection, "{number}")?;
        line.clear();
        answers.read_line(&mut line)?;
        if line.split(' ').next() != Some(number.to_string().as_str()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        count(&name, sent, flows);
        thread::sleep(INTERVAL);
    }
    Ok(())
}

fn udp_flow(server: SocketAddr, flows: &Shared) -> io::Result<()> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    let name = format!("udp:{server}");
    let mut buffer = [0; 512];
    for number in 0_u64.. {
        let sent = Instant::now();
        // Refused or unreachable: the packet gets no answer, and is counted below.
        let _ = socket.send(number.to_string().as_bytes());
        let answered = loop {
            let left = PATIENCE.saturating_sub(sent.elapsed());
            if left.is_zero() {
                break false;
            }
            socket.set_read_timeout(Some(left))?;
            let Ok(length) = socket.recv(&mut buffer) else { break false };
            let text = String::from_utf8_lossy(&buffer[..length]);
            if text.split(' ').next() == Some(number.to_string().as_str()) {
                break true;
            }
        };
        if answered {
            count(&name, sent, flows);
        } else {
            lock(flows).entry(name.clone()).or_default().lost += 1;
        }
        thread::sleep(INTERVAL);
    }
    Ok(())
}

fn count(name: &str, sent: Instant, flows: &Shared) {
    let took = u64::try_from(sent.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut flows = lock(flows);
    let flow = flows.entry(name.to_owned()).or_default();
    flow.answered += 1;
    flow.longest_ms = flow.longest_ms.max(took);
}

/// The counts of the stream in the calling pod.
pub fn counts(port: u16) -> io::Result<String> {
    io::read_to_string(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?)
}
