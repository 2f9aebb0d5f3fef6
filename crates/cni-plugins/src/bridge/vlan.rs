//! VLANs of a pod's port, and the node's own link into one.

use std::os::fd::AsFd;

use attachment::MacAddress;
use cni_spec::{BridgeConf, CniError, ErrorCode};
use kernel::KernelError;
use kernel::bridge::{PortVlan, add_vlan, delete_vlan, vlans};
use kernel::link::{self, Link, Made, Veth, VethEnd};
use kernel::netlink::{Batch, Socket};
use kernel::netns::NetNs;
use link_name::LinkName;

use super::make::is_unsupported;
use crate::failure::kernel_refused;
use crate::fnv::fnv1a;

/// The VLAN of frames without a tag where only a trunk is configured.
const DEFAULT_NATIVE: u16 = 1;

/// Gives the port of a pod the VLANs of the configuration.
pub(super) fn configure(conf: &BridgeConf, port: u32, host: &mut Socket) -> Result<(), CniError> {
    set_vlans(&wanted(conf), conf.preserve_default_vlan, port, host)
}

/// Which VLANs a port is to have.
fn wanted(conf: &BridgeConf) -> Vec<PortVlan> {
    let trunk = conf.vlan_trunk.as_deref().unwrap_or_default();
    let native = conf.vlan.or((!trunk.is_empty()).then_some(DEFAULT_NATIVE));
    let tagged = trunk.iter().filter(|id| Some(**id) != native);
    let native = native.map(|id| PortVlan { id, native: true });
    native.into_iter().chain(tagged.map(|id| PortVlan { id: *id, native: false })).collect()
}

fn set_vlans(wanted: &[PortVlan], keep_default: bool, port: u32, host: &mut Socket) -> Result<(), CniError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    if !keep_default {
        for vlan in vlans(host, port).map_err(refused)? {
            delete_vlan(&mut batch, port, vlan.id);
        }
    }
    for vlan in wanted {
        add_vlan(&mut batch, port, *vlan);
    }
    host.execute_all(&mut batch).map_err(refused)
}

/// The node's link into the VLAN, `<bridge>.<id>`, which holds its gateways: one end of a pair whose other end is a port of
/// the bridge.
pub(super) fn ensure_gateway_link(
    conf: &BridgeConf,
    bridge: &Link,
    id: u16,
    host: &mut Socket,
) -> Result<Link, CniError> {
    let name = LinkName::new(format!("{}.{id}", conf.bridge)).map_err(|error| {
        let reason = format!("`bridge`: with `vlan` {id} the gateway's {error}");
        CniError::new(ErrorCode::InvalidNetworkConfig, reason)
    })?;
    if let Some(found) = link::by_name(host, name.as_str()).map_err(kernel_refused)? {
        return Ok(found);
    }
    let hash = fnv1a(&[name.as_str()]);
    let digits = format!("{hash:016x}");
    let port_name = LinkName::new(format!("veth{}", &digits[..8]))
        .map_err(|error| CniError::new(ErrorCode::Internal, error.to_string()))?;
    let [_, _, a, b, c, d, e, f] = hash.to_be_bytes();
    let mac = |first| MacAddress::new([first, b, c, d, e, f]).ok().map(MacAddress::octets);
    let own = NetNs::current().map_err(kernel_refused)?;
    let veth = Veth {
        host: VethEnd { name: &port_name, mac: mac(a & 0xfc | 2), netns: None },
        peer: VethEnd { name: &name, mac: mac(a & 0xf8 | 6), netns: Some(own.as_fd()) },
        mtu: bridge.mtu,
        master: Some(bridge.index),
        up: true,
    };
    let port = match link::make(host, &port_name, |batch| link::create_veth(batch, &veth))
        .map_err(kernel_refused)?
    {
        Made::New(port) | Made::Refused(_, Some(port)) => port,
        Made::Refused(error, None) => {
            return Err(kernel_refused(error.attempting(format!("create link {name} into VLAN {id}"))));
        }
    };
    set_vlans(&[PortVlan { id, native: true }], conf.preserve_default_vlan, port.index, host)?;
    let found = link::by_name(host, name.as_str()).map_err(kernel_refused)?;
    let gateway = found.ok_or_else(|| {
        CniError::new(
            ErrorCode::KernelRefused,
            format!("link {name} into VLAN {id} is gone as soon as it was made"),
        )
    })?;
    let mut batch = Batch::new();
    link::set_up(&mut batch, gateway.index);
    link::request(&mut batch, gateway.index);
    host.execute_all(&mut batch).map_err(kernel_refused)?;
    Ok(gateway)
}

fn refused(error: KernelError) -> CniError {
    if is_unsupported(error.errno) {
        return CniError::new(
            ErrorCode::UnsupportedField,
            format!(
                "`vlan` and `vlanTrunk` need a kernel with VLAN filtering on bridges (CONFIG_BRIDGE_VLAN_FILTERING): {error}"
            ),
        );
    }
    kernel_refused(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(rest: &str) -> Vec<(u16, bool)> {
        let stdin = format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"bridge"{rest}}}"#);
        let conf = BridgeConf::parse(stdin.as_bytes()).unwrap();
        wanted(&conf).iter().map(|vlan| (vlan.id, vlan.native)).collect()
    }

    #[test]
    fn a_vlan_is_native_and_a_trunk_alone_has_native_vlan_1() {
        assert_eq!(planned(""), []);
        assert_eq!(planned(r#","vlan":100"#), [(100, true)]);
        assert_eq!(planned(r#","vlanTrunk":[{"minID":7,"maxID":8}]"#), [(1, true), (7, false), (8, false)]);
        assert_eq!(planned(r#","vlan":7,"vlanTrunk":[{"minID":7,"maxID":8}]"#), [(7, true), (8, false)]);
    }
}
