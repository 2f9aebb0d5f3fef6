//! What the LAN is asked and told about a pod's addresses: whether somebody has them, that the node answers for them,
//! and where they are from now on.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use attachment::{Mode, Record};
use kernel::address_claim::{claimant, probe};
use kernel::announce;
use kernel::link::{self, Link, Mac};
use kernel::neighbour;
use kernel::netlink::{Batch, Socket};
use kernel::packet::{self, EtherType, PacketSocket};
use kernel::route::{self, RouteKind};
use kernel::{KernelError, netns::NetNs};
use link_name::LinkName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{LinkPlan, POD_ROUTE_PROTOCOL, Wired, Wiring, WiringError};
use crate::closing;

/// How often an address is asked for (RFC 5227, `PROBE_NUM`).
const PROBES: u32 = 3;
/// What claims an address is in the first octets of a frame.
const FRAME_MAX: usize = 256;

/// Makes the node answer for the plan's addresses; the link on which it does so, if it is to.
pub(super) fn answer_for(plan: &LinkPlan, host: &mut Socket) -> Result<Option<(u32, Mac)>, WiringError> {
    let Wiring::L2Routed { uplink } = &plan.wiring else { return Ok(None) };
    let (Link { index, .. }, mac) = uplink_of(uplink, host)?;
    let mut batch = Batch::new();
    for ip in &plan.proxied {
        neighbour::add_proxy(&mut batch, index, *ip, POD_ROUTE_PROTOCOL);
    }
    host.execute_all(&mut batch)
        .map_err(|error| error.attempting(format!("answer for the pod's addresses on {uplink}")))?;
    Ok(Some((index, mac)))
}

/// Stops answering for a record's addresses, but for those that another pod has meanwhile; to be called when the pod's
/// own link is gone.
pub(crate) fn stop_answering(record: &Record, host: &mut Socket) -> Result<(), KernelError> {
    let Mode::L2Routed { uplink } = &record.wiring.mode else { return Ok(()) };
    // With the link, what was on it is gone.
    let Some(link) = link::by_name(host, uplink.as_str())? else { return Ok(()) };
    let mut batch = Batch::new();
    for ip in record.addresses.iter().map(|held| held.address.addr()) {
        if !is_a_pods(host, ip)? {
            neighbour::delete_proxy(&mut batch, link.index, ip);
        }
    }
    let failures = host.execute(&mut batch)?;
    failures
        .into_iter()
        .map(|failure| failure.error)
        .find(|error| !error.is_absent())
        .map_or(Ok(()), |error| {
            Err(error.attempting(format!("stop answering for {} on {uplink}", record.attachment)))
        })
}

/// Whether a pod of this node is reached by this address: the pod's route lives as long as its link.
pub fn is_a_pods(host: &mut Socket, ip: IpAddr) -> Result<bool, KernelError> {
    match route::look_up(host, ip, None) {
        Ok(found) => Ok(found.kind == RouteKind::Unicast
            && found.protocol == POD_ROUTE_PROTOCOL
            && found.destination.prefix_len() == found.destination.max_prefix_len()),
        Err(error)
            if matches!(
                error.errno,
                Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Tells the LAN where the addresses are now, so that whoever remembers an earlier holder forgets it: from the pod where
/// it is a neighbour there, from the node's link where the node answers.
pub(crate) fn announce(plan: &LinkPlan, wired: Wired, pod: &NetNs) -> Result<(), KernelError> {
    let spent = match (&plan.wiring, wired.uplink) {
        (Wiring::Ptp, _) | (Wiring::L2Routed { .. }, None) => return Ok(()),
        (Wiring::L2Routed { .. }, Some((index, mac))) => announce_on(index, mac, &plan.proxied)?,
        (Wiring::Bridge { .. }, _) => {
            let held: Vec<IpAddr> = plan.addresses().collect();
            pod.run(|| announce_on(wired.pod_index, plan.pod_mac, &held))??
        }
    };
    closing::leave_open(spent);
    Ok(())
}

/// Says on a link that addresses are at `mac`. Gives back the socket, whose last closer waits for some milliseconds.
pub fn announce_on(index: u32, mac: Mac, addresses: &[IpAddr]) -> Result<OwnedFd, KernelError> {
    // To the LAN a pod is no router.
    let frames: Vec<_> = addresses.iter().map(|ip| announce::announcement(*ip, mac, false)).collect();
    packet::send_all(index, &frames)
}

/// Refuses addresses that somebody on the LAN of this link has; they are asked for as long as is said.
pub(crate) fn refuse_held(
    index: u32,
    mac: Mac,
    addresses: &[IpAddr],
    patience: Duration,
) -> Result<(), WiringError> {
    match holder_of(index, mac, addresses, patience)? {
        Some((ip, holder)) => Err(WiringError::AddressHeld { ip, holder }),
        None => Ok(()),
    }
}

/// Asks the LAN of this link, for so long, whether somebody has one of these addresses, and who. All are asked for at
/// once.
pub(crate) fn holder_of(
    index: u32,
    mac: Mac,
    addresses: &[IpAddr],
    patience: Duration,
) -> Result<Option<(IpAddr, Mac)>, KernelError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for ip in addresses {
        listeners.push((*ip, PacketSocket::open(index, ether_type(*ip), &[])?));
    }
    for _ in 0..PROBES {
        let deadline = Instant::now() + patience / PROBES;
        for (ip, socket) in &listeners {
            socket.send(&probe(*ip, mac))?;
        }
        let holder = listen(&listeners, mac, deadline)?;
        if holder.is_some() {
            return Ok(holder);
        }
    }
    Ok(None)
}

fn listen(
    listeners: &[(IpAddr, PacketSocket)],
    own: Mac,
    deadline: Instant,
) -> Result<Option<(IpAddr, Mac)>, KernelError> {
    let failed = |errno| KernelError::new("wait for answers of the LAN", errno);
    let mut buffer = [0; FRAME_MAX];
    loop {
        for (ip, socket) in listeners {
            // A LAN that is never silent must not keep us.
            while let Some(length) = socket.receive(&mut buffer)? {
                if let Some(holder) = claimant(buffer.get(..length).unwrap_or_default(), *ip, own) {
                    return Ok(Some((*ip, holder)));
                }
                if Instant::now() >= deadline {
                    break;
                }
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let timeout = Timespec::try_from(left).map_err(|_| failed(Errno::INVAL))?;
        let mut polled: Vec<PollFd<'_>> = listeners
            .iter()
            .map(|(_, socket)| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN))
            .collect();
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
}

const fn ether_type(ip: IpAddr) -> EtherType {
    match ip {
        // Gratuitous or not, for IPv4 it is ARP.
        IpAddr::V4(_) => EtherType::Arp,
        IpAddr::V6(_) => EtherType::Ipv6,
    }
}

/// The node's link to the LAN, and its Ethernet address.
pub(crate) fn uplink_of(uplink: &LinkName, host: &mut Socket) -> Result<(Link, Mac), WiringError> {
    let found = link::by_name(host, uplink.as_str())?;
    found.and_then(|link| link.mac.map(|mac| (link, mac))).ok_or_else(|| WiringError::NoLanLink {
        what: "link to the LAN",
        name: uplink.to_string(),
        remedy: "name an Ethernet link that has the LAN's addresses in `uplink`",
    })
}
