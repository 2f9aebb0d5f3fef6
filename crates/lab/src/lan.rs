//! The virtual LAN: a bridge in the lab's own network namespace, and for each place a veth whose other end is the
//! place's uplink.

use std::net::IpAddr;
use std::os::fd::AsFd;

use ipnet::IpNet;
use kernel::link::{Mac, Veth, VethEnd};
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::route::{Family, Hop, Route};
use kernel::sysctl::Sysctls;
use kernel::{KernelError, address, link, route};
use link_name::LinkName;

use crate::LabError;
use crate::place::Place;
use crate::topology::LAN_MTU;

/// The bridge.
const BRIDGE: &str = "lan0";

/// Makes the bridge in the calling thread's network namespace; gives its index.
pub(crate) fn create_bridge() -> Result<u32, LabError> {
    let name = link_name(BRIDGE)?;
    let bridge = || {
        let mut socket = Socket::open(Protocol::Route)?;
        let mut batch = Batch::new();
        // Locally administered; any fixed address would do.
        link::create_bridge(&mut batch, &name, [0x02, 0, 0, 0, 0, 1], LAN_MTU, true);
        loopback_up(&mut socket, &mut batch)?;
        socket.execute_all(&mut batch)?;
        index_of(&mut socket, BRIDGE)
    };
    bridge().map_err(LabError::kernel("the LAN"))
}

/// Plugs a place in: called where the bridge is. The place's end may be given a name and an Ethernet address.
pub(crate) fn plug_in(place: &Place, bridge: u32, uplink: &str, mac: Option<Mac>) -> Result<(), LabError> {
    let (port, uplink, netns) = (link_name(place.name())?, link_name(uplink)?, place.netns());
    let veth = Veth {
        host: VethEnd { name: &port, mac: None, netns: None },
        peer: VethEnd { name: &uplink, mac, netns: Some(netns.as_fd()) },
        mtu: LAN_MTU,
        master: Some(bridge),
        up: true,
    };
    let plug = || {
        let mut batch = Batch::new();
        link::create_veth(&mut batch, &veth);
        Socket::open(Protocol::Route)?.execute_all(&mut batch)
    };
    plug().map_err(LabError::kernel("the LAN"))
}

/// Takes a place's link away, both its ends: called where the bridge is.
pub(crate) fn unplug(place: &str) -> Result<(), LabError> {
    change_port(place, link::delete)
}

/// Pulls the cable of a place out: its link stays up without carrier. Called where the bridge is.
pub(crate) fn pull_cable(place: &str) -> Result<(), LabError> {
    change_port(place, link::set_down)
}

/// Puts the cable back in.
pub(crate) fn put_cable(place: &str) -> Result<(), LabError> {
    change_port(place, link::set_up)
}

/// Gives a link, which must be down, another name (`linux/rtnetlink.h`, `linux/if_link.h`).
pub(crate) fn rename(batch: &mut Batch, index: u32, name: &LinkName) {
    const RTM_SETLINK: u16 = 19;
    const IFLA_IFNAME: u16 = 3;
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    batch.message("rename a link", RTM_SETLINK, 0, &header).text(IFLA_IFNAME, name.as_str());
}

fn change_port(place: &str, change: impl FnOnce(&mut Batch, u32)) -> Result<(), LabError> {
    let work = || {
        let mut socket = Socket::open(Protocol::Route)?;
        let mut batch = Batch::new();
        change(&mut batch, index_of(&mut socket, place)?);
        socket.execute_all(&mut batch)
    };
    work().map_err(LabError::kernel("the LAN"))
}

/// Makes the uplink a port of a new bridge, as an administrator does who puts pods on the LAN. Runs in the place.
pub(crate) fn bridge_uplink(place: &str, uplink: &str, bridge: &str) -> Result<(), LabError> {
    let name = link_name(bridge)?;
    let join = || {
        let mut socket = Socket::open(Protocol::Route)?;
        let uplink = link::by_name(&mut socket, uplink)?
            .ok_or_else(|| KernelError::new(format!("find link {uplink}"), rustix::io::Errno::NODEV))?;
        let mut batch = Batch::new();
        // A bridge of the uplink's address: to the LAN the node stays who it was.
        link::create_bridge(&mut batch, &name, uplink.mac.unwrap_or_default(), LAN_MTU, false);
        socket.execute_all(&mut batch)?;
        expect_no_duplicates(bridge)?;
        let index = index_of(&mut socket, bridge)?;
        let mut batch = Batch::new();
        link::set_master(&mut batch, uplink.index, index);
        link::set_up(&mut batch, uplink.index);
        link::set_up(&mut batch, index);
        socket.execute_all(&mut batch)
    };
    join().map_err(LabError::kernel(place))
}

/// Gives the uplink its addresses, and default routes over `routers`; what is there already stays. Runs in the place.
pub(crate) fn configure_uplink(
    place: &str,
    name: &str,
    addresses: &[IpNet],
    routers: &[IpAddr],
) -> Result<(), LabError> {
    let configure = || {
        expect_no_duplicates(name)?;
        let mut socket = Socket::open(Protocol::Route)?;
        let mut batch = Batch::new();
        loopback_up(&mut socket, &mut batch)?;
        let uplink = index_of(&mut socket, name)?;
        link::set_up(&mut batch, uplink);
        for ip in addresses {
            let flags = if ip.addr().is_ipv6() { address::NODAD } else { 0 };
            address::add(&mut batch, uplink, *ip, flags);
        }
        for router in routers {
            let hop = Hop { gateway: Some(*router), index: Some(uplink), ..Hop::default() };
            route::add(&mut batch, &Route { hops: vec![hop], ..Route::to(default_destination(*router)) });
        }
        // Asking finishes the pending carrier change, which would hold up the first packet.
        link::request(&mut batch, uplink);
        execute_missing(&mut socket, &mut batch)
    };
    configure().map_err(LabError::kernel(place))
}

/// Nobody else is on this LAN: waiting a second for duplicates would only delay the link-local address, without which a
/// link asks for no neighbour. To be said before the link is up.
fn expect_no_duplicates(link: &str) -> Result<(), KernelError> {
    Sysctls::default().write(&format!("net/ipv6/conf/{link}/accept_dad"), "0")
}

/// Carries out a batch of additions; that something is there already is no failure.
pub(crate) fn execute_missing(socket: &mut Socket, batch: &mut Batch) -> Result<(), KernelError> {
    let failures = socket.execute(batch)?;
    failures.into_iter().map(|failure| failure.error).find(|error| !error.is_present()).map_or(Ok(()), Err)
}

fn default_destination(router: IpAddr) -> IpNet {
    route::default_destination(if router.is_ipv4() { Family::V4 } else { Family::V6 })
}

fn loopback_up(socket: &mut Socket, batch: &mut Batch) -> Result<(), KernelError> {
    link::set_up(batch, index_of(socket, "lo")?);
    Ok(())
}

/// The index of a link that must be there.
pub(crate) fn index_of(socket: &mut Socket, name: &str) -> Result<u32, KernelError> {
    let missing = || KernelError::new(format!("find link {name}"), rustix::io::Errno::NODEV);
    link::by_name(socket, name)?.map(|link| link.index).ok_or_else(missing)
}

/// A name that the lab made up itself.
pub(crate) fn link_name(name: &str) -> Result<LinkName, LabError> {
    let invalid = |error: link_name::LinkNameError| std::io::Error::other(error);
    LinkName::new(name).map_err(invalid).map_err(LabError::io(format!("name a link {name}")))
}
