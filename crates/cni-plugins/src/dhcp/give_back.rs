//! Giving a lease back when its pod goes: one packet that nobody answers, and the file's end.

use attachment::MacAddress;
use dhcp_client::Exchange;
use kernel::KernelError;
use kernel::link;
use kernel::netlink::{Protocol, Socket};
use kernel::netns::NetNs;

use super::lease::Lease;
use super::line::{Line, Peer, seed};
use super::store::{LeaseStore, StoreError};

/// Releases a lease, or keeps it for the next pod of its name, and forgets it here. What cannot be told to the server
/// (its link is gone) is no failure: the lease runs out.
pub fn give_back(store: &LeaseStore, lease: &Lease) -> Result<(), StoreError> {
    if !lease.remember {
        release(lease).ok();
    }
    store.remove(lease)
}

fn release(lease: &Lease) -> Result<(), KernelError> {
    let Some(line) = open(lease)? else { return Ok(()) };
    let payload = Exchange::release(&lease.identity(), &lease.terms, seed());
    let peer = Peer { address: lease.terms.server, mac: lease.server_mac.map(MacAddress::octets) };
    line.of_client(lease.terms.address.addr(), peer).send(&payload, true)
}

/// The node's link where the lease names one, because the pod's own is gone by now; else the pod's.
fn open(lease: &Lease) -> Result<Option<Line>, KernelError> {
    let open = |name: &str| -> Result<Option<Line>, KernelError> {
        let mut socket = Socket::open(Protocol::Route)?;
        let Some(link) = link::by_name(&mut socket, name)? else { return Ok(None) };
        lease.line(&link, 0).map(Some)
    };
    match (&lease.node_link, &lease.pod_link) {
        (Some(link), _) => open(link.as_str()),
        (None, Some(pod)) => {
            let netns = NetNs::open(pod.netns.path.as_ref())?;
            let id = netns.id()?;
            if (id.device, id.inode) != (pod.netns.dev, pod.netns.inode) {
                return Ok(None);
            }
            netns.run(|| open(pod.link.as_str()))?
        }
        (None, None) => Ok(None),
    }
}
