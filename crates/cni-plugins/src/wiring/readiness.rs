//! Waiting until IPv6 addresses can be used. Even without duplicate detection the kernel joins their groups and adds
//! their local routes from a work queue; its `RTM_NEWADDR` event says when that is done.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use kernel::address::{Address, DADFAILED, TENTATIVE};
use kernel::events::{Events, Group, Heard};
use kernel::netlink::{Protocol, Socket};
use kernel::{KernelError, address};

use super::WiringError;

/// Work queues answer in tens of microseconds, and on a node that is overloaded in seconds. Who gives up sooner has all work
/// done again on such a node; a runtime waits for minutes.
const DEADLINE: Duration = Duration::from_secs(20);

/// A link that is made, and over which the first packet could still be lost. The kernel works on in the background, so
/// whatever else is to be done is done before this is waited for.
#[must_use = "the pod's first packet may be lost before this was waited for"]
pub(crate) struct Unready {
    pub(super) inside: Socket,
    pub(super) pod: (u32, Awaited),
    pub(super) host: (u32, Awaited),
}

impl Unready {
    /// Waits until both ends are usable; `host` is a socket of the node's namespace.
    pub(crate) fn wait(mut self, host: &mut Socket) -> Result<(), WiringError> {
        let (index, awaited) = self.pod;
        awaited.wait(index, lister(&mut self.inside))?;
        let (index, awaited) = self.host;
        awaited.wait(index, lister(host))
    }
}

/// Addresses that are awaited on one link of one namespace.
pub(super) struct Awaited {
    events: Option<Events>,
    pending: Vec<Ipv6Addr>,
    link: String,
}

impl Awaited {
    /// Listens in the calling thread's namespace; nothing is opened where there is nothing to wait for. To be called
    /// before the addresses are added.
    pub(super) fn listen(addresses: &[Ipv6Addr], link: &str) -> Result<Self, KernelError> {
        let events = match addresses {
            [] => None,
            _ => Some(Events::subscribe(Protocol::Route, &[Group::Ipv6Addresses], None)?),
        };
        Ok(Self { events, pending: addresses.to_vec(), link: link.to_owned() })
    }

    /// Waits until each address on the link of this index is usable. `list` gives the addresses of the namespace, for
    /// when events were lost.
    pub(super) fn wait(
        mut self,
        index: u32,
        mut list: impl FnMut() -> Result<Vec<Address>, KernelError>,
    ) -> Result<(), WiringError> {
        let Some(mut events) = self.events.take() else { return Ok(()) };
        let deadline = Instant::now() + DEADLINE;
        while !self.pending.is_empty() {
            let mut refused = false;
            let heard = events.read(|_, payload| {
                if let Some(address) = Address::parse(payload) {
                    refused |= self.note(&address, index);
                }
            })?;
            match heard {
                Heard::Something => {}
                Heard::Lost => {
                    for address in list()? {
                        refused |= self.note(&address, index);
                    }
                }
                Heard::Nothing => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(self.error("look at the kernel log; the node may be overloaded"));
                    }
                    events.wait(left)?;
                }
            }
            if refused {
                return Err(self.error("another host on the link has it: free it there"));
            }
        }
        Ok(())
    }

    /// Strikes an address that is ready off the list; whether it was refused as a duplicate.
    fn note(&mut self, address: &Address, index: u32) -> bool {
        if address.index != index {
            return false;
        }
        let IpAddr::V6(ip) = address.ip.addr() else { return false };
        if address.flags & TENTATIVE == 0 {
            self.pending.retain(|pending| *pending != ip);
            return false;
        }
        address.flags & DADFAILED != 0 && self.pending.contains(&ip)
    }

    fn error(&self, remedy: &'static str) -> WiringError {
        let ip = self.pending.first().copied().unwrap_or(Ipv6Addr::UNSPECIFIED).into();
        WiringError::NotReady { ip, link: self.link.clone(), seconds: DEADLINE.as_secs(), remedy }
    }
}

/// The addresses of a socket's namespace, for [`Awaited::wait`].
pub(super) fn lister(socket: &mut Socket) -> impl FnMut() -> Result<Vec<Address>, KernelError> + '_ {
    move || address::dump(socket)
}
