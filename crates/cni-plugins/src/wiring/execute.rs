//! Carrying out a link plan: the pair, the pod's side, the node's side, each one batch, and waiting until the first
//! packet would get through. What was made stays on failure: undoing is the caller's, who knows the whole.

use kernel::KernelError;
use kernel::address;
use kernel::link::{self, Link, LinkLocal, Mac, Made, Veth, VethEnd};
use kernel::netlink::{Batch, Failure, Protocol, Socket};
use kernel::netns::NetNs;
use kernel::sysctl::Sysctls;
use link_name::LinkName;
use rustix::fd::AsFd;
use rustix::io::Errno;

use super::readiness::{Awaited, Unready, lister};
use super::steps::{be_deaf_to_routers, enable_ipv6};
use super::{LinkPlan, POD_ROUTE_PROTOCOL, Step, WiringError, delete_link, lan};

/// With so many, a procfs of one's own costs no more than the common one, see [`Sysctls::apart`].
const MANY_NAMESPACES: i32 = 100;

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wired {
    /// Index of the node's end.
    pub host_index: u32,
    /// Index of the pod's end, in the pod's namespace.
    pub pod_index: u32,
    /// The link to the LAN on which the node answers for the pod now, if it does: index and Ethernet address.
    pub uplink: Option<(u32, Mac)>,
    /// The bridge's Ethernet address, which its first port may have changed.
    pub bridge_mac: Option<Mac>,
}

/// Makes the link, and waits until it can be used. `host` is a socket of the node's namespace, in which the calling
/// thread is, and is again when this returns; `bridge` is needed where the plan's wiring is one (see
/// [`super::BridgePlan::ensure`]).
pub fn attach(
    plan: &LinkPlan,
    bridge: Option<&Link>,
    node: &NetNs,
    pod: &NetNs,
    host: &mut Socket,
) -> Result<Wired, WiringError> {
    let (wired, unready) = make(plan, bridge, node, pod, host)?;
    unready.wait(host)?;
    Ok(wired)
}

/// As [`attach`] without the wait; where the name of the node's end can only be an earlier life's of this very
/// attachment, that goes first.
pub(crate) fn attach_anew(
    plan: &LinkPlan,
    bridge: Option<&Link>,
    node: &NetNs,
    pod: &NetNs,
    host: &mut Socket,
) -> Result<(Wired, Unready), WiringError> {
    match make(plan, bridge, node, pod, host) {
        Err(WiringError::HostLinkExists(name)) => {
            if let Some(stale) = link::by_name(host, &name)? {
                delete_link(host, stale.index, None)?;
            }
            make(plan, bridge, node, pod, host)
        }
        other => other,
    }
}

/// Carries out the pod's side of a plan on a link that is there and up already.
pub(crate) fn give_addresses(
    plan: &LinkPlan,
    wired: Wired,
    node: &NetNs,
    pod: &NetNs,
) -> Result<(), WiringError> {
    let (mut inside, awaited) = prepare_pod(plan, node, pod, &Sysctls::default())?;
    let pod_end = End { index: wired.pod_index, link: &plan.pod_link, home: Some((pod, node)) };
    pod_end.carry_out(&mut inside, &plan.pod_steps, None)?;
    pod_end.carry_out(&mut inside, &plan.last_pod_steps, None)?;
    awaited.wait(wired.pod_index, lister(&mut inside))
}

fn make(
    plan: &LinkPlan,
    bridge: Option<&Link>,
    node: &NetNs,
    pod: &NetNs,
    host: &mut Socket,
) -> Result<(Wired, Unready), WiringError> {
    let Pair { host: host_index, pod: pod_index, namespaces } = create_pair(plan, bridge, pod, host)?;
    let sysctls = if namespaces < MANY_NAMESPACES { Sysctls::default() } else { Sysctls::apart() };

    let (mut inside, pod_awaited) = prepare_pod(plan, node, pod, &sysctls)?;
    let pod_end = End { index: pod_index, link: &plan.pod_link, home: Some((pod, node)) };
    let born = pod_end.carry_out(&mut inside, &plan.pod_steps, None)?;

    if plan.wiring.is_routed() {
        be_deaf_to_routers(&plan.host_link, &sysctls)?;
    }
    // To close a procfs of one's own is to sleep, and who sleeps once the link is up may be woken only after the kernel has
    // told every port of a bridge what the pod's end has to tell.
    drop(sysctls);
    let host_awaited = Awaited::listen(&plan.host_awaits, plan.host_link.as_str())?;
    // Its first port gives the bridge a carrier, too: to look it up settles that, as [`Step::Settle`].
    let settled = End { index: host_index, link: &plan.host_link, home: None }.carry_out(
        host,
        &plan.host_steps,
        bridge.map(|bridge| bridge.index),
    )?;
    let bridge_mac = match bridge {
        Some(bridge) => match settled.into_iter().find(|settled| settled.index == bridge.index) {
            Some(settled) => settled.mac,
            None => return Err(KernelError::new(format!("find bridge {}", bridge.name), Errno::NODEV).into()),
        },
        None => None,
    };
    let uplink = lan::answer_for(plan, host)?;
    finish_pod(plan, born.first(), &pod_end, &mut inside)?;
    let unready = Unready { inside, pod: (pod_index, pod_awaited), host: (host_index, host_awaited) };
    Ok((Wired { host_index, pod_index, uplink, bridge_mac }, unready))
}

/// What a new pair says of itself.
struct Pair {
    /// Index of the node's end.
    host: u32,
    /// Index of the pod's.
    pod: u32,
    /// About how many namespaces this one has links to: the kernel gives the pod's the least id that is free.
    namespaces: i32,
}

/// Creates the pair and learns both indexes from one answer: a veth end names its peer's.
fn create_pair(
    plan: &LinkPlan,
    bridge: Option<&Link>,
    pod: &NetNs,
    host: &mut Socket,
) -> Result<Pair, WiringError> {
    let veth = Veth {
        host: VethEnd { name: &plan.host_link, mac: Some(plan.host_mac), netns: None },
        peer: VethEnd { name: &plan.pod_link, mac: Some(plan.pod_mac), netns: Some(pod.as_fd()) },
        mtu: plan.mtu,
        master: bridge.map(|bridge| bridge.index),
        // It must first be told to make no link-local address of its own.
        up: false,
    };
    match link::make(host, &plan.host_link, |batch| link::create_veth(batch, &veth))? {
        Made::New(Link { index, peer: Some(peer), peer_netns, .. }) => {
            Ok(Pair { host: index, pod: peer, namespaces: peer_netns.unwrap_or_default() })
        }
        Made::New(_) => {
            Err(KernelError::new(format!("find the peer of link {}", plan.host_link), Errno::NODEV).into())
        }
        Made::Refused(error, present) => Err(explain_pair(plan, error, present.as_ref())),
    }
}

/// `EEXIST` may mean either end: the answer to the look-up behind it tells which.
fn explain_pair(plan: &LinkPlan, error: KernelError, host_end: Option<&Link>) -> WiringError {
    if error.is_present() {
        return match host_end {
            None => WiringError::InterfaceExists(plan.pod_link.to_string()),
            Some(_) => WiringError::HostLinkExists(plan.host_link.to_string()),
        };
    }
    let attempted = format!("create veth pair {} and {} in the pod", plan.host_link, plan.pod_link);
    error.attempting(attempted).into()
}

/// In the pod's namespace: a socket, an ear for address events, and no ear for router advertisements, before the link
/// comes up. The thread comes back to the node's, whatever happens there.
fn prepare_pod(
    plan: &LinkPlan,
    node: &NetNs,
    pod: &NetNs,
    sysctls: &Sysctls,
) -> Result<(Socket, Awaited), WiringError> {
    pod.enter()?;
    let prepared = prepare_here(plan, sysctls);
    node.enter()?;
    prepared
}

fn prepare_here(plan: &LinkPlan, sysctls: &Sysctls) -> Result<(Socket, Awaited), WiringError> {
    let socket = Socket::open(Protocol::Route)?;
    let awaited = Awaited::listen(&plan.pod_awaits, plan.pod_link.as_str())?;
    for (key, value) in &plan.pod_settings {
        match sysctls.write(&key.replace("{link}", plan.pod_link.as_str()), value) {
            Err(error) if error.errno != Errno::NOENT || !plan.pod_awaits.is_empty() => {
                return Err(error.into());
            }
            // A kernel without IPv6 hears no advertisements.
            _ => {}
        }
    }
    Ok((socket, awaited))
}

/// The pod's last steps. A link that was born to make its link-local address in another way than from the Ethernet address
/// goes back to that, by the file alone of which the kernel makes an address at once; one that was to have none has none.
fn finish_pod(
    plan: &LinkPlan,
    born: Option<&Link>,
    pod_end: &End<'_>,
    inside: &mut Socket,
) -> Result<(), WiringError> {
    let given = plan.pod_steps.iter().find_map(|step| match step {
        Step::LinkLocal(ip) => Some(*ip),
        _ => None,
    });
    let way = born.and_then(|born| born.ipv6).map_or(LinkLocal::FromMac, |ipv6| ipv6.link_local);
    let (Some(given), false) = (given, way == LinkLocal::FromMac) else {
        return pod_end.carry_out(inside, &plan.last_pod_steps, None).map(|_| ());
    };
    let others = plan.last_pod_steps.iter().filter(|step| **step != Step::AutomaticLinkLocal);
    pod_end.carry_out(inside, &others.cloned().collect::<Vec<_>>(), None)?;
    let mut batch = Batch::new();
    address::delete(&mut batch, pod_end.index, given);
    match inside.execute_all(&mut batch) {
        Err(error) if !error.is_absent() => return Err(error.into()),
        _ => {}
    }
    if let (LinkLocal::Other(mode), Some((home, here))) = (way, pod_end.home) {
        let key = format!("net/ipv6/conf/{}/addr_gen_mode", plan.pod_link);
        home.run_from(here, || Sysctls::default().write(&key, &mode.to_string()))??;
    }
    Ok(())
}

/// One end of the pair.
struct End<'a> {
    index: u32,
    link: &'a LinkName,
    /// The namespace that it is in and the one that the thread is in, where these differ.
    home: Option<(&'a NetNs, &'a NetNs)>,
}

/// A step that the kernel refused, and how.
type Refused<'s> = (&'s Step, KernelError);

impl End<'_> {
    /// Carries the steps out, and looks another link up behind them where one is named; the links that were looked up.
    ///
    /// Some runtimes switch IPv6 off in a new pod, some nodes for every new link; an end that is to have an IPv6 address
    /// wants it. The kernel's refusal tells so, where to look beforehand costs every pod a file below `/proc/sys`.
    fn carry_out(
        &self,
        socket: &mut Socket,
        steps: &[Step],
        another: Option<u32>,
    ) -> Result<Vec<Link>, WiringError> {
        let (mut refused, links) = self.attempt(socket, &steps.iter().collect::<Vec<_>>(), another)?;
        if refused.iter().any(|(step, error)| step.lacks_ipv6(error)) {
            match self.home {
                None => enable_ipv6(self.link)?,
                Some((home, here)) => home.run_from(here, || enable_ipv6(self.link))??,
            }
            let again: Vec<&Step> = refused.into_iter().map(|(step, _)| step).collect();
            (refused, _) = self.attempt(socket, &again, None)?;
        }
        match refused.into_iter().next() {
            None => Ok(links),
            Some((Step::Route(route), error))
                if error.is_present() && route.protocol == POD_ROUTE_PROTOCOL =>
            {
                Err(WiringError::AddressInUse(route.destination.addr()))
            }
            Some((step, error)) => Err(error.attempting(format!("{step} on {}", self.link)).into()),
        }
    }

    /// Sends the steps as one batch, and a look-up of another link; gives those that were refused, unless nothing is lost
    /// by it, and the links that were looked up.
    fn attempt<'s>(
        &self,
        socket: &mut Socket,
        steps: &[&'s Step],
        another: Option<u32>,
    ) -> Result<(Vec<Refused<'s>>, Vec<Link>), KernelError> {
        let mut batch = Batch::new();
        for step in steps {
            step.write(&mut batch, self.index);
        }
        if let Some(another) = another {
            link::request(&mut batch, another);
        }
        let mut links = Vec::new();
        let failures =
            socket.execute_reading(&mut batch, |kind, payload| links.extend(link::answer(kind, payload)))?;
        // A link that is not among the answers is not there: its refusal says no more.
        let refused =
            failures.into_iter().filter_map(|Failure { index, error }| Some((*steps.get(index)?, error)));
        Ok((refused.filter(|(step, error)| !step.may_fail(error)).collect(), links))
    }
}
