//! What happens to a node's link to the LAN, and what its administrator or network manager does about it: the link's own
//! addresses and routes are not ours to restore.

use kernel::link::{self, Mac};
use kernel::netlink::{Batch, Protocol, Socket};

use crate::chaos::field::Field;
use crate::chaos::setback::Setback;
use crate::lan::{self, index_of, link_name};
use crate::report::ProbeKind;
use crate::topology::{LAN_MTU, UPLINK};
use crate::{LabError, fault, foreign};

/// Less than 1280 bytes: the kernel takes IPv6 off the link (RFC 8200, section 5).
const SMALL_MTU: u32 = 1200;
/// The uplink's other name.
const OTHER_NAME: &str = "wan0";

/// The cable is pulled at the switch.
pub(crate) fn pull_cable(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    Ok(lan::pull_cable(&field.name(at))?)
}

/// It is put back.
pub(crate) fn put_cable(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    Ok(lan::put_cable(&field.name(at))?)
}

/// `ip link set eth0 down`.
pub(crate) fn set_down(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    change(field, at, link::set_down)
}

/// `ip link set eth0 up`, with addresses and routes.
pub(crate) fn set_up(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    configure(field, at)
}

/// The link goes.
pub(crate) fn delete(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    Ok(lan::unplug(&field.name(at))?)
}

/// Another comes, of the same name and Ethernet address.
pub(crate) fn make_anew(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    lan::plug_in(&field.cluster.node(at)?.place, field.cluster.bridge, UPLINK, field.macs[at])?;
    configure(field, at)
}

/// The link gets another name, for which it must be down.
pub(crate) fn rename(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    rename_to(field, at, OTHER_NAME)
}

/// And its own again.
pub(crate) fn rename_back(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    rename_to(field, at, UPLINK)
}

fn rename_to(field: &mut Field<'_>, at: usize, name: &'static str) -> Result<(), Setback> {
    let old = std::mem::replace(&mut field.uplinks[at], name);
    if old != name {
        let new = link_name(name)?;
        // Looked at while the link is down, when nobody can repair anything: once it is up an agent may be quicker than a look.
        field.damage_kernel(at, || {
            fault::execute(|socket, batch| {
                let index = index_of(socket, old)?;
                link::set_down(batch, index);
                lan::rename(batch, index, &new);
                Ok(())
            })
        })?;
    }
    configure(field, at)
}

/// The link's MTU falls so far that IPv6 goes.
pub(crate) fn shrink_mtu(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    // A pod that hears of the smaller MTU remembers it for ten minutes (RFC 1191, section 6.3; `mtu_expires`), and that is its
    // own affair: none that is probed is told. (docs/decisions/0030)
    field.unsent = Some(ProbeKind::Mtu);
    field.pulses.quiet()?;
    field.send_pulses()?;
    change(field, at, |batch, index| link::set_mtu(batch, index, SMALL_MTU))
}

/// It is as before.
pub(crate) fn restore_mtu(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    change(field, at, |batch, index| link::set_mtu(batch, index, LAN_MTU))?;
    configure(field, at)?;
    field.unsent = None;
    Ok(field.send_pulses()?)
}

fn change(field: &Field<'_>, at: usize, write: impl FnOnce(&mut Batch, u32)) -> Result<(), Setback> {
    let name = field.uplinks[at];
    field.in_netns(at, || {
        fault::execute(|socket, batch| {
            write(batch, index_of(socket, name)?);
            Ok(())
        })
    })?;
    Ok(())
}

/// What an administrator has on the uplink: addresses, default routes, and others' routes.
fn configure(field: &Field<'_>, at: usize) -> Result<(), Setback> {
    let node = field.cluster.node(at)?;
    let (name, uplink) = (node.plan.name.clone(), field.uplinks[at]);
    let (addresses, routers) = (node.plan.internal.clone(), field.cluster.routers());
    let families = field.cluster.topology.families.each();
    node.place.run(move || {
        lan::configure_uplink(&name, uplink, &addresses, &routers)?;
        foreign::plant_over_uplink(&name, uplink, families, &routers)
    })?;
    Ok(())
}

/// The Ethernet address of a node's uplink; runs in the node's network namespace.
pub(crate) fn mac_of(node: &str) -> Result<Option<Mac>, LabError> {
    let find = || Ok(link::by_name(&mut Socket::open(Protocol::Route)?, UPLINK)?.and_then(|link| link.mac));
    find().map_err(LabError::kernel(node))
}
