//! The gateways that a bridge holds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni_spec::{CniError, ErrorCode};
use ipnet::IpNet;
use kernel::address::{self, NODAD};
use kernel::link::{self, Link};
use kernel::netlink::{Batch, Socket};

use crate::failure::kernel_refused;

/// What is to become of a link's addresses.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// The gateway is there.
    Nothing,
    /// It is added, and these go.
    Add(Vec<IpNet>),
    /// This one is in its way.
    Refuse(IpNet),
}

/// Gives the link a gateway's address, and with the first one its own Ethernet address for good: a bridge without one
/// takes that of its lowest port. `force` lets other addresses give way.
pub(super) fn ensure_gateway(
    holder: &Link,
    gateway: IpNet,
    force: bool,
    host: &mut Socket,
) -> Result<(), CniError> {
    let held = address::dump_of(host, holder.index).map_err(kernel_refused)?;
    let held: Vec<IpNet> = held.into_iter().map(|held| held.ip).collect();
    let gone = match change(&held, gateway, force) {
        Change::Nothing => return Ok(()),
        Change::Add(gone) => gone,
        Change::Refuse(present) => {
            return Err(CniError::new(
                ErrorCode::InvalidNetworkConfig,
                format!(
                    "`{}` holds {present}, which is not the gateway {gateway}: remove that address, name another `bridge`, \
                     or set `forceAddress`",
                    holder.name
                ),
            ));
        }
    };
    let mut batch = Batch::new();
    for gone in &gone {
        address::delete(&mut batch, holder.index, *gone);
    }
    // Nobody else has a gateway; waiting to hear so would cost the first packets.
    let flags = if gateway.addr().is_ipv6() { NODAD } else { 0 };
    address::add(&mut batch, holder.index, gateway, flags);
    if let Some(mac) = holder.mac {
        link::set_mac(&mut batch, holder.index, mac);
    }
    // Another pod's ADD may be doing the same.
    let is_harmful = |error: &kernel::KernelError| !error.is_present() && !error.is_absent();
    let failures = host.execute(&mut batch).map_err(kernel_refused)?;
    match failures.into_iter().find(|failure| is_harmful(&failure.error)) {
        None => Ok(()),
        Some(failure) => {
            let attempted = format!("give {} the gateway {gateway}", holder.name);
            Err(kernel_refused(failure.error.attempting(attempted)))
        }
    }
}

/// As the reference has it: a link holds one IPv4 address, and IPv6 addresses of subnets that do not overlap.
fn change(held: &[IpNet], gateway: IpNet, force: bool) -> Change {
    if held.contains(&gateway) {
        return Change::Nothing;
    }
    let clashes = |held: &IpNet| match (held, gateway) {
        (IpNet::V4(_), IpNet::V4(_)) => true,
        (IpNet::V6(_), IpNet::V6(_)) => held.contains(&gateway.addr()) || gateway.contains(&held.addr()),
        _ => false,
    };
    let clashing: Vec<IpNet> = held.iter().copied().filter(clashes).collect();
    match clashing.first() {
        Some(first) if !force => Change::Refuse(*first),
        _ => Change::Add(clashing),
    }
}

/// The address behind the subnet's own, which is the gateway where none is named.
pub(super) fn first_address(address: IpNet) -> Option<IpAddr> {
    match address.network() {
        IpAddr::V4(subnet) => {
            subnet.to_bits().checked_add(1).map(|next| IpAddr::V4(Ipv4Addr::from_bits(next)))
        }
        IpAddr::V6(subnet) => {
            subnet.to_bits().checked_add(1).map(|next| IpAddr::V6(Ipv6Addr::from_bits(next)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_second_ipv4_address_clashes_and_an_ipv6_one_only_where_subnets_overlap() {
        let held = [net("10.1.2.1/24"), net("fd00::1/64"), net("fe80::1/64")];
        assert_eq!(change(&held, net("10.1.2.1/24"), false), Change::Nothing);
        assert_eq!(change(&held, net("10.9.9.1/24"), false), Change::Refuse(net("10.1.2.1/24")));
        assert_eq!(change(&held, net("10.9.9.1/24"), true), Change::Add(vec![net("10.1.2.1/24")]));
        assert_eq!(change(&held, net("fd00::9/64"), false), Change::Refuse(net("fd00::1/64")));
        assert_eq!(change(&held, net("fd01::1/64"), false), Change::Add(Vec::new()));
        assert_eq!(change(&held[1..], net("10.1.2.1/24"), false), Change::Add(Vec::new()));
    }

    #[test]
    fn the_gateway_is_the_first_address_of_the_subnet() {
        assert_eq!(first_address(net("10.1.2.77/24")), Some("10.1.2.1".parse().unwrap()));
        assert_eq!(first_address(net("fd00::77/64")), Some("fd00::1".parse().unwrap()));
    }
}
