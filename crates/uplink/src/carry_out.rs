//! Carrying out a plan: prepared as bytes before the first one is sent, and sent in as few system calls as netlink takes.

use std::time::{Duration, Instant};

use kernel::KernelError;
use kernel::link;
use kernel::netlink::{APPEND, Batch, CREATE, REPLACE, Socket};
use kernel::route::{self, Family, Filter, TABLE_LOCAL};
use kernel::sysctl::Sysctls;
use link_name::LinkName;

use crate::object::{Kind, LinkRef, Object};
use crate::observe;
use crate::plan::{Change, LINK_LOCAL_NONE, NewBridge, Plan};

const RTM_SETLINK: u16 = 19;
const IFLA_AF_SPEC: u16 = 26;
const AF_INET6: u16 = 10;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;

/// Writes each change as one message.
fn write(changes: &[Change]) -> Batch {
    let mut batch = Batch::new();
    for change in changes {
        match change {
            Change::LinkLocal { link, mode } => write_link_local(&mut batch, link, *mode),
            Change::Enslave { link, bridge } => link::set_master(&mut batch, link.index, bridge.index),
            Change::Free { link } => link::set_master(&mut batch, link.index, 0),
            Change::Settle { link } => link::request(&mut batch, link.index),
            Change::Add(object) => {
                // Behind others: an IPv4 route of the same key stays; an IPv6 one becomes one more leg.
                let flags = if object.kind() == Kind::Route { CREATE | APPEND } else { add_flags(object) };
                write_object(&mut batch, "add", object, 0, flags);
            }
            Change::AddAhead(object) => write_object(&mut batch, "add", object, 0, CREATE),
            Change::Amend(object) => write_object(&mut batch, "amend", object, 0, CREATE | REPLACE),
            Change::Delete(object) => write_object(&mut batch, "delete", object, 1, 0),
            Change::DeleteBridge { bridge } => link::delete(&mut batch, bridge.index),
        }
    }
    batch
}

/// A neighbour that is known already is confirmed by what we know; anything else is left as it is found.
fn add_flags(object: &Object) -> u16 {
    match object.kind() {
        Kind::Neighbour => CREATE | REPLACE,
        _ => CREATE | kernel::netlink::EXCL,
    }
}

fn write_object(batch: &mut Batch, verb: &str, object: &Object, message: u16, flags: u16) {
    let attempted = match (verb, object.kind()) {
        ("add", Kind::Address) => "add an address",
        ("add", Kind::Route) => "add a route",
        ("add", Kind::Rule) => "add a policy rule",
        ("add", Kind::Neighbour) => "add a neighbour",
        ("amend", _) => "set an address's flags and lifetimes",
        (_, Kind::Address) => "delete an address",
        (_, Kind::Route) => "delete a route",
        (_, Kind::Rule) => "delete a policy rule",
        (_, Kind::Neighbour) => "delete a neighbour",
    };
    batch.message(attempted, object.kind().new_message() + message, flags, object.bytes());
}

fn write_link_local(batch: &mut Batch, link: &LinkRef, mode: u8) {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&link.index.to_ne_bytes());
    batch.message("set a link's addr_gen_mode", RTM_SETLINK, 0, &header).nest(IFLA_AF_SPEC, |families| {
        families.nest(AF_INET6, |inet6| {
            inet6.u8(IFLA_INET6_ADDR_GEN_MODE, mode);
        });
    });
}

/// Whether a refusal means that the change is made already.
fn is_well(change: &Change, error: &KernelError) -> bool {
    match change {
        Change::Add(_) | Change::AddAhead(_) => error.is_present(),
        Change::Delete(_) | Change::DeleteBridge { .. } => error.is_absent(),
        _ => false,
    }
}

/// For how long the kernel is given to take over an IPv6 address.
const TAKING_OVER: Duration = Duration::from_secs(5);
/// How often it is looked whether it did.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// Sends the whole plan: `first`, and when the kernel took all of it, the rest, of which one refusal does not stop what is
/// behind it: half a move is what nobody wants. Gives the refusals.
pub(crate) fn carry_out(socket: &mut Socket, plan: &Plan) -> Result<Vec<KernelError>, KernelError> {
    let (mut first, mut then, mut last) = (write(&plan.first), write(&plan.then), write(&plan.last));
    let refused = refusals(socket, &plan.first, &mut first)?;
    if !refused.is_empty() {
        return Ok(refused);
    }
    let mut refused = refusals(socket, &plan.then, &mut then)?;
    wait_for_local_routes(socket, &plan.then)?;
    refused.extend(refusals(socket, &plan.last, &mut last)?);
    Ok(refused)
}

/// The kernel makes the route by which it receives for an IPv6 address a little later than the address: without it on the
/// new holder, packets that come in between would find nobody. One that never comes is found by the verification.
fn wait_for_local_routes(socket: &mut Socket, changes: &[Change]) -> Result<(), KernelError> {
    let mut waiting: Vec<_> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Add(object) if object.is_ipv6() => object.address(),
            _ => None,
        })
        .collect();
    let deadline = Instant::now() + TAKING_OVER;
    while !waiting.is_empty() && Instant::now() < deadline {
        let filter = Filter { table: Some(TABLE_LOCAL), ..Filter::default() };
        let local = route::dump(socket, Family::V6, filter)?;
        waiting.retain(|address| {
            !local.iter().any(|route| {
                route.destination.addr() == address.ip.addr()
                    && route.hops.iter().any(|hop| hop.index == Some(address.index))
            })
        });
        if !waiting.is_empty() {
            std::thread::sleep(LOOK_EVERY);
        }
    }
    Ok(())
}

fn refusals(
    socket: &mut Socket,
    changes: &[Change],
    batch: &mut Batch,
) -> Result<Vec<KernelError>, KernelError> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let failures = socket.execute(batch)?;
    let real = |failure: kernel::netlink::Failure| {
        let change = changes.get(failure.index)?;
        (!is_well(change, &failure.error)).then(|| failure.error.attempting(change.to_string()))
    };
    Ok(failures.into_iter().filter_map(real).collect())
}

/// Makes the bridge: pinned address and MTU, no link-local address of its own accord, `settings` as the link has them, up.
/// Nothing of the node's network changes by this.
pub(crate) fn create_bridge(
    socket: &mut Socket,
    sysctls: &Sysctls,
    new: &NewBridge,
    settings: &[(String, String)],
) -> Result<LinkRef, KernelError> {
    let name = LinkName::new(new.name.as_str())
        .map_err(|error| KernelError::new(format!("name the bridge: {error}"), rustix::io::Errno::INVAL))?;
    let create = |batch: &mut Batch| link::create_bridge(batch, &name, new.mac, new.mtu, false);
    let bridge = match link::make(socket, &name, create)? {
        link::Made::New(link) => LinkRef::from(&link),
        link::Made::Refused(error, _) => return Err(error.attempting(format!("create bridge {name}"))),
    };
    write_settings(sysctls, &bridge.name, settings)?;
    let mut batch = Batch::new();
    // Behind the settings: a copied secret would choose a mode.
    write_link_local(&mut batch, &bridge, LINK_LOCAL_NONE);
    // Set once more, the MTU is the administrator's, and does not follow that of later ports.
    link::set_mtu(&mut batch, bridge.index, new.mtu);
    link::set_up(&mut batch, bridge.index);
    socket.execute_all(&mut batch)?;
    Ok(bridge)
}

/// Whether the kernel lets this process change links here: it is asked for a change of nothing.
pub(crate) fn refuse_unprivileged(socket: &mut Socket, link: &LinkRef) -> Result<(), KernelError> {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&link.index.to_ne_bytes());
    let mut batch = Batch::new();
    batch.message("change a link", RTM_SETLINK, 0, &header);
    socket.execute_all(&mut batch)
}

/// Gives a link the settings that differ from its own.
pub(crate) fn write_settings(
    sysctls: &Sysctls,
    link: &str,
    settings: &[(String, String)],
) -> Result<(), KernelError> {
    let own = observe::sysctls(sysctls, link)?;
    for (key, value) in settings {
        let differs = !own.contains(&(key.clone(), value.clone()));
        if differs {
            sysctls.write(&format!("net/{}", key.replace("/*/", &format!("/{link}/"))), value)?;
        }
    }
    Ok(())
}

/// Sets how the link's link-local address is made, once all it shall hold is there.
pub(crate) fn set_link_local(socket: &mut Socket, link: &LinkRef, mode: u8) -> Result<(), KernelError> {
    let mut batch = Batch::new();
    write_link_local(&mut batch, link, mode);
    socket.execute_all(&mut batch)
}
