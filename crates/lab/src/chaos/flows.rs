//! TCP connections between pods that outlive every fault: opened once, used again after each.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use kernel::netns::NetNs;

use crate::LabError;
use crate::report::Flows;
use crate::runtime::Pod;

/// What is said on a connection arrives within this: TCP may have to say it again.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
#[derive(Debug)]
struct Flow {
    /// `node1/pod1 → node2/pod1 ipv4`.
    name: String,
    /// The nodes of both ends.
    nodes: [usize; 2],
    stream: TcpStream,
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    flows: Vec<Flow>,
    opened: usize,
    excused: usize,
    said: u64,
}

impl Connections {
    /// Opens connections of every family on each node, and from each node to the next; only those that have an end on
    /// node `only`, if that is given.
    pub(crate) fn open(&mut self, pods: &[Vec<Pod>], only: Option<usize>) -> Result<(), LabError> {
        for (at, own) in pods.iter().enumerate() {
            let next = (at + 1) % pods.len();
            let pairs = [(own.first(), own.last(), at), (own.last(), pods[next].first(), next)];
            for (from, to, to_node) in pairs {
                let (Some(from), Some(to)) = (from, to) else { continue };
                if from.name != to.name && only.is_none_or(|only| only == at || only == to_node) {
                    for ip in &to.ips {
                        self.flows.push(Flow::open(from, to, *ip, [at, to_node])?);
                        self.opened += 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Lets those of a node go that boots anew.
    pub(crate) fn excuse(&mut self, node: usize) {
        let before = self.flows.len();
        self.flows.retain(|flow| !flow.nodes.contains(&node));
        self.excused += before - self.flows.len();
    }

    /// Sends data both ways on each, but for those of a node that cannot be reached now; gives what is wrong with those
    /// that are dead, and forgets them.
    pub(crate) fn use_all(&mut self, estranged: Option<usize>) -> Vec<String> {
        let mut dead = Vec::new();
        self.said += 1;
        let word = self.said.to_be_bytes();
        self.flows.retain_mut(|flow| {
            if estranged.is_some_and(|node| flow.nodes.contains(&node)) {
                return true;
            }
            let exchanged = flow.exchange(word);
            dead.extend(exchanged.as_ref().err().map(|error| format!("{}: {error}", flow.name)));
            exchanged.is_ok()
        });
        dead
    }

    /// Cuts the first, as a planted fault.
    pub(crate) fn cut_one(&self) {
        if let Some(flow) = self.flows.first() {
            // A connection that is gone already is cut.
            let _ = flow.stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// How many there are and were.
    pub(crate) fn counts(&self) -> Flows {
        Flows { opened: self.opened, alive: self.flows.len(), excused: self.excused }
    }
}

impl Flow {
    fn open(from: &Pod, to: &Pod, ip: IpAddr, nodes: [usize; 2]) -> Result<Self, LabError> {
        let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
        let name = format!("{} → {} {family}", from.name, to.name);
        let failed = || LabError::io(format!("open the connection {name}"));
        let inside = |pod: &Pod, netns: &NetNs, work: &dyn Fn() -> io::Result<TcpStream>| {
            netns.run(work).map_err(LabError::kernel(&*pod.name))?.map_err(failed())
        };
        let listener = to
            .netns
            .run(|| TcpListener::bind(SocketAddr::new(ip, 0)))
            .map_err(LabError::kernel(&*to.name))?
            .map_err(failed())?;
        let target = listener.local_addr().map_err(failed())?;
        let stream = inside(from, &from.netns, &|| TcpStream::connect_timeout(&target, PATIENCE))?;
        let (mut answering, _) = listener.accept().map_err(failed())?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .and_then(|()| stream.set_nodelay(true))
            .map_err(failed())?;
        let echo = move || {
            let mut word = [0; 8];
            while answering.read_exact(&mut word).is_ok() {
                let answer = word.map(|byte| !byte);
                if answering.write_all(&answer).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("flow".to_owned())
            .stack_size(256 * 1024)
            .spawn(echo)
            .map_err(LabError::io("start the answering end of a connection"))?;
        Ok(Self { name, nodes, stream })
    }

    fn exchange(&mut self, word: [u8; 8]) -> io::Result<()> {
        self.stream.write_all(&word)?;
        let mut answer = [0; 8];
        self.stream.read_exact(&mut answer)?;
        if answer == word.map(|byte| !byte) {
            Ok(())
        } else {
            Err(io::Error::other("the answer is not to what was said"))
        }
    }
}
