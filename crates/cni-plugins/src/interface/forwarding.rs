//! Forwarding of the node, which gateways need: turned on as the reference does, where it is off.

use cni_spec::{CniError, IpFamily};
use kernel::sysctl::Sysctls;

use crate::failure::kernel_refused;

/// Turns forwarding on for these families.
pub(crate) fn enable_forwarding(families: impl Iterator<Item = IpFamily>) -> Result<(), CniError> {
    let sysctls = Sysctls::default();
    let mut done = Vec::new();
    for family in families {
        if done.contains(&family) {
            continue;
        }
        done.push(family);
        let key = match family {
            IpFamily::V4 => "net/ipv4/ip_forward",
            IpFamily::V6 => "net/ipv6/conf/all/forwarding",
        };
        if sysctls.read(key).map_err(kernel_refused)?.as_deref() != Some("1") {
            sysctls.write(key, "1").map_err(kernel_refused)?;
        }
    }
    Ok(())
}
