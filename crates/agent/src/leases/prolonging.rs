//! One lease being prolonged: an exchange under way on the pod's own link, or on the node's before it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use attachment::MacAddress;
use cni_plugins::dhcp::{Lease, Line, Peer, seed};
use dhcp_client::{Exchange, ExchangeError, Goal, Next, Outcome, Phase};
use ipnet::Ipv4Net;
use kernel::KernelError;
use kernel::link;
use kernel::netlink::{Protocol, Socket};
use kernel::netns::NetNs;
use link_name::LinkName;
use rustix::io::Errno;

/// For how long servers are asked before the next pause.
const PATIENCE: Duration = Duration::from_secs(8);

/// A lease being prolonged.
#[derive(Debug)]
pub(super) struct Prolonging {
    pub(super) path: PathBuf,
    pub(super) lease: Lease,
    pub(super) phase: Phase,
    exchange: Exchange,
    line: Line,
    began: Instant,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Came {
    /// More time, by this lease.
    Prolonged(Box<Lease>),
    /// A server's refusal.
    Refused(String),
    /// No answer of use.
    Unanswered(ExchangeError),
    /// The kernel's refusal.
    Failed(KernelError),
}

impl Prolonging {
    /// Begins; none where the pod's link is not to be reached.
    pub(super) fn begin(path: PathBuf, lease: Lease, phase: Phase) -> Result<Self, KernelError> {
        let address = lease.terms.address.addr();
        let goal = match phase {
            Phase::Bound | Phase::Renew => Goal::Renew { address },
            Phase::Rebind => Goal::Rebind { address },
            Phase::Expired => Goal::Acquire { wished: Some(address) },
        };
        let mut identity = lease.identity();
        if phase == Phase::Expired {
            // Another address would be of no use: a pod keeps the one that it was told.
            identity.subnet = Some(Ipv4Net::from(address));
        }
        let exchange = Exchange::new(identity, goal, Duration::ZERO, PATIENCE, seed());
        let line = open(&lease, exchange.xid())?;
        let line = match phase {
            Phase::Expired => line,
            _ => {
                let peer =
                    Peer { address: lease.terms.server, mac: lease.server_mac.map(MacAddress::octets) };
                line.of_client(address, peer)
            }
        };
        Ok(Self { path, lease, phase, exchange, line, began: Instant::now() })
    }

    pub(super) fn line(&self) -> &Line {
        &self.line
    }

    /// Hears and sends whatever is due; until when there is nothing more to do, or what came of it.
    pub(super) fn advance(&mut self, now: Duration) -> Result<Duration, Came> {
        let elapsed = self.began.elapsed();
        match self.line.hear(&mut self.exchange, elapsed).map_err(Came::Failed)? {
            Some((Outcome::Bound(terms), server_mac)) => {
                return Err(Came::Prolonged(Box::new(self.lease.renewed(terms, now, server_mac))));
            }
            Some((Outcome::Refused(reason), _)) => return Err(Came::Refused(reason)),
            None => {}
        }
        loop {
            match self.exchange.next(self.began.elapsed()) {
                Next::Send(payload) => {
                    self.line.send(&payload, self.exchange.is_unicast()).map_err(Came::Failed)?;
                }
                Next::Wait(until) => return Ok(until.saturating_sub(self.began.elapsed())),
                Next::GiveUp(error) => return Err(Came::Unanswered(error)),
            }
        }
    }
}

/// The pod's link, from within its namespace, which the socket stays in; or the node's, behind which the pod is.
fn open(lease: &Lease, xid: u32) -> Result<Line, KernelError> {
    let gone = || KernelError::new(format!("find the link of {}", lease.attachment), Errno::NODEV);
    let on = |name: &LinkName| {
        let mut socket = Socket::open(Protocol::Route)?;
        let link = link::by_name(&mut socket, name.as_str())?.ok_or_else(gone)?;
        lease.line(&link, xid)
    };
    let pod = match (&lease.pod_link, &lease.node_link) {
        (Some(pod), _) => pod,
        (None, Some(node_link)) => return on(node_link),
        (None, None) => return Err(gone()),
    };
    let netns = NetNs::open(pod.netns.path.as_ref())?;
    let id = netns.id()?;
    if (id.device, id.inode) != (pod.netns.dev, pod.netns.inode) {
        return Err(gone());
    }
    netns.run(|| on(&pod.link))?
}
