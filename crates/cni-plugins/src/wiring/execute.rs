//! Carrying out a link plan: the pair, the pod's side, the node's side, each one batch, then waiting until the first
//! packet would get through. What was made stays on failure: undoing is the caller's, who knows the whole.

use kernel::KernelError;
use kernel::link::{self, Link, Mac, Made, Veth, VethEnd};
use kernel::netlink::{Batch, Failure, Protocol, Socket};
use kernel::netns::NetNs;
use kernel::sysctl::Sysctls;
use rustix::fd::AsFd;
use rustix::io::Errno;

use super::readiness::{Awaited, lister};
use super::steps::{be_deaf_to_routers, enable_ipv6};
use super::{LinkPlan, POD_ROUTE_PROTOCOL, Step, WiringError, delete_link, lan};

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wired {
    /// Index of the node's end.
    pub host_index: u32,
    /// Index of the pod's end, in the pod's namespace.
    pub pod_index: u32,
    /// The link to the LAN on which the node answers for the pod now, if it does: index and Ethernet address.
    pub uplink: Option<(u32, Mac)>,
}

/// Makes the link. `host` is a socket of the node's namespace, in which the calling thread is, and is again when this
/// returns; `bridge` is needed where the plan's wiring is one (see [`super::BridgePlan::ensure`]).
pub fn attach(
    plan: &LinkPlan,
    bridge: Option<&Link>,
    node: &NetNs,
    pod: &NetNs,
    host: &mut Socket,
) -> Result<Wired, WiringError> {
    let (host_index, pod_index) = create_pair(plan, bridge, pod, host)?;

    pod.enter()?;
    let prepared = prepare_pod(plan);
    node.enter()?;
    let (mut inside, pod_awaited) = prepared?;
    carry_out(&mut inside, &plan.pod_steps, pod_index, plan.pod_link.as_str())?;

    if plan.wiring.is_routed() {
        if !plan.pod_awaits.is_empty() {
            enable_ipv6(&plan.host_link)?;
        }
        be_deaf_to_routers(&plan.host_link)?;
    }
    let host_awaited = Awaited::listen(&plan.host_awaits, plan.host_link.as_str())?;
    carry_out(host, &plan.host_steps, host_index, plan.host_link.as_str())?;
    let uplink = lan::answer_for(plan, host)?;
    if let Some(bridge) = bridge {
        // Its first port gives the bridge a carrier, too.
        carry_out(host, &[Step::Settle], bridge.index, &bridge.name)?;
    }
    carry_out(&mut inside, &plan.last_pod_steps, pod_index, plan.pod_link.as_str())?;

    pod_awaited.wait(pod_index, lister(&mut inside))?;
    host_awaited.wait(host_index, lister(host))?;
    Ok(Wired { host_index, pod_index, uplink })
}

/// The same where the name of the node's end can only be an earlier life's of this very attachment: that goes first.
pub(crate) fn attach_anew(
    plan: &LinkPlan,
    bridge: Option<&Link>,
    node: &NetNs,
    pod: &NetNs,
    host: &mut Socket,
) -> Result<Wired, WiringError> {
    match attach(plan, bridge, node, pod, host) {
        Err(WiringError::HostLinkExists(name)) => {
            if let Some(stale) = link::by_name(host, &name)? {
                delete_link(host, stale.index, None)?;
            }
            attach(plan, bridge, node, pod, host)
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
    pod.enter()?;
    let prepared = prepare_pod(plan);
    node.enter()?;
    let (mut inside, awaited) = prepared?;
    carry_out(&mut inside, &plan.pod_steps, wired.pod_index, plan.pod_link.as_str())?;
    carry_out(&mut inside, &plan.last_pod_steps, wired.pod_index, plan.pod_link.as_str())?;
    awaited.wait(wired.pod_index, lister(&mut inside))
}

/// Creates the pair and learns both indexes from one answer: a veth end names its peer's.
fn create_pair(
    plan: &LinkPlan,
    bridge: Option<&Link>,
    pod: &NetNs,
    host: &mut Socket,
) -> Result<(u32, u32), WiringError> {
    let veth = Veth {
        host: VethEnd { name: &plan.host_link, mac: Some(plan.host_mac), netns: None },
        peer: VethEnd { name: &plan.pod_link, mac: Some(plan.pod_mac), netns: Some(pod.as_fd()) },
        mtu: plan.mtu,
        master: bridge.map(|bridge| bridge.index),
        // It must first be told to make no link-local address of its own.
        up: false,
    };
    match link::make(host, &plan.host_link, |batch| link::create_veth(batch, &veth))? {
        Made::New(Link { index, peer: Some(peer), .. }) => Ok((index, peer)),
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
/// comes up.
fn prepare_pod(plan: &LinkPlan) -> Result<(Socket, Awaited), WiringError> {
    let socket = Socket::open(Protocol::Route)?;
    let awaited = Awaited::listen(&plan.pod_awaits, plan.pod_link.as_str())?;
    let sysctls = Sysctls::default();
    for (key, value) in &plan.pod_settings {
        match sysctls.write(&key.replace("{link}", plan.pod_link.as_str()), value) {
            Err(error) if error.errno != Errno::NOENT || !plan.pod_awaits.is_empty() => {
                return Err(error.into());
            }
            // A kernel without IPv6 hears no advertisements.
            _ => {}
        }
    }
    if !plan.pod_awaits.is_empty() {
        enable_ipv6(&plan.pod_link)?;
    }
    Ok((socket, awaited))
}

fn carry_out(socket: &mut Socket, steps: &[Step], index: u32, link: &str) -> Result<(), WiringError> {
    let mut batch = Batch::new();
    for step in steps {
        step.write(&mut batch, index);
    }
    let harmful = |failure: &Failure| !steps[failure.index].may_fail(&failure.error);
    match socket.execute(&mut batch)?.into_iter().find(harmful) {
        None => Ok(()),
        Some(Failure { index, error }) => Err(match &steps[index] {
            Step::Route(route) if error.is_present() && route.protocol == POD_ROUTE_PROTOCOL => {
                WiringError::AddressInUse(route.destination.addr())
            }
            step => error.attempting(format!("{step} on {link}")).into(),
        }),
    }
}
