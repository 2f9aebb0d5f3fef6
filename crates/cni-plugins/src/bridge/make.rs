//! The bridge: found or made, also by several ADDs at once. It belongs to the node's administrator: what it is already it
//! stays.

use cni_spec::{BridgeConf, CniError, ErrorCode};
use kernel::bridge;
use kernel::link::{self, Link, Made, PROMISCUOUS};
use kernel::netlink::{Batch, Socket};
use kernel::sysctl::Sysctls;
use rustix::io::Errno;

use crate::failure::{kernel_refused, wiring_failed};
use crate::wiring::WiringError;

/// Finds or makes the bridge, up, and promiscuous where that is wished.
pub(super) fn ensure_bridge(conf: &BridgeConf, host: &mut Socket) -> Result<Link, CniError> {
    let found = link::by_name(host, conf.bridge.as_str()).map_err(kernel_refused)?;
    let found = match found {
        Some(found) => found,
        None => create(conf, host)?,
    };
    if found.kind.as_deref() != Some("bridge") {
        let kind = found.kind.unwrap_or_else(|| "physical link".to_owned());
        return Err(wiring_failed(WiringError::NotABridge { name: conf.bridge.to_string(), kind }));
    }
    if found.ipv6.is_some_and(|ipv6| ipv6.accept_ra != 0) {
        // A pod must not be able to teach the node routes.
        let key = format!("net/ipv6/conf/{}/accept_ra", conf.bridge);
        Sysctls::default().write(&key, "0").map_err(kernel_refused)?;
    }
    let mut batch = Batch::new();
    if conf.promiscuous && found.flags & PROMISCUOUS == 0 {
        link::set_promiscuous(&mut batch, found.index);
    }
    if !found.is_up() {
        link::set_up(&mut batch, found.index);
    }
    if !batch.is_empty() {
        host.execute_all(&mut batch).map_err(kernel_refused)?;
    }
    Ok(found)
}

fn create(conf: &BridgeConf, host: &mut Socket) -> Result<Link, CniError> {
    let made = link::make(host, &conf.bridge, |batch| {
        bridge::create(batch, &conf.bridge, conf.interface.mtu, conf.has_vlans());
    });
    match made.map_err(kernel_refused)? {
        Made::New(link) => Ok(link),
        // Another pod's ADD was quicker.
        Made::Refused(error, Some(present)) if error.is_present() => Ok(present),
        Made::Refused(error, _) if conf.has_vlans() && is_unsupported(error.errno) => Err(CniError::new(
            ErrorCode::UnsupportedField,
            format!(
                "`vlan` and `vlanTrunk` need a kernel with VLAN filtering on bridges (CONFIG_BRIDGE_VLAN_FILTERING), which \
                 this one lacks: {error}"
            ),
        )),
        Made::Refused(error, _) => {
            Err(kernel_refused(error.attempting(format!("create bridge {}", conf.bridge))))
        }
    }
}

/// What kernels answer to an attribute that they do not know.
pub(super) fn is_unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::INVAL | Errno::AFNOSUPPORT)
}
