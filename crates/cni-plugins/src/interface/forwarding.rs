//! Forwarding of the node, which gateways need: turned on as the reference does, where it is off.

use cni_spec::{CniError, IpFamily};
use kernel::link;
use kernel::netlink::Socket;
use kernel::sysctl::Sysctls;

use crate::failure::kernel_refused;

/// Turns forwarding on for the families of these; `host` is a socket of the node's namespace.
pub(crate) fn enable_forwarding(
    families: impl Iterator<Item = IpFamily>,
    host: &mut Socket,
) -> Result<(), CniError> {
    let mut done = Vec::new();
    for family in families {
        if done.contains(&family) {
            continue;
        }
        done.push(family);
        if link::forwarding(host, family == IpFamily::V6).map_err(kernel_refused)? == Some(true) {
            continue;
        }
        let key = match family {
            IpFamily::V4 => "net/ipv4/ip_forward",
            IpFamily::V6 => "net/ipv6/conf/all/forwarding",
        };
        let sysctls = Sysctls::default();
        if sysctls.read(key).map_err(kernel_refused)?.as_deref() != Some("1") {
            sysctls.write(key, "1").map_err(kernel_refused)?;
        }
    }
    Ok(())
}
