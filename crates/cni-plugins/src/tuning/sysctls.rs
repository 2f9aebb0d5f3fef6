//! Sysctls below `net`, of the calling thread's namespace.

use std::collections::BTreeMap;

use cni_spec::{CniError, ErrorCode};
use link_name::LinkName;

use super::pod_sysctls;
use crate::failure::kernel_refused;

/// In a key, stands for the pod's interface.
const INTERFACE: &str = "IFNAME";

/// A sysctl by its path below `/proc/sys`, and a value.
pub(super) type Setting = (String, String);

/// The paths of the keys that a configuration has. Anything outside `net` is the node's.
pub(super) fn paths(sysctls: &BTreeMap<String, String>, ifname: &LinkName) -> Result<Vec<Setting>, CniError> {
    sysctls.iter().map(|(key, value)| Ok((path(key, ifname)?, value.clone()))).collect()
}

fn path(key: &str, ifname: &LinkName) -> Result<String, CniError> {
    // The interface's own name may hold dots.
    let path = key.replace('.', "/").replacen(INTERFACE, ifname.as_str(), 1);
    let path = path.trim_start_matches('/');
    let is_plain = !key.is_empty()
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && !path.contains('\0');
    if is_plain && path.starts_with("net/") {
        return Ok(path.to_owned());
    }
    Err(CniError::new(
        ErrorCode::InvalidNetworkConfig,
        format!("`sysctl` has the key `{}`: give one that begins with `net.`", key.escape_debug()),
    ))
}

/// Sets all, and gives what they were before; what was set is set back where one is refused.
pub(super) fn set(settings: &[Setting]) -> Result<Vec<Setting>, CniError> {
    let sysctls = pod_sysctls();
    let mut before = Vec::new();
    for (path, value) in settings {
        let held = sysctls.read(path).unwrap_or_default();
        if let Err(error) = sysctls.write(path, value) {
            set_back(&before);
            return Err(kernel_refused(error));
        }
        before.extend(held.map(|held| (path.clone(), held)));
    }
    Ok(before)
}

/// As far as the kernel lets it.
pub(super) fn set_back(before: &[Setting]) {
    let sysctls = pod_sysctls();
    for (path, value) in before.iter().rev() {
        sysctls.write(path, value).ok();
    }
}

pub(super) fn differences(settings: &[Setting]) -> Result<Vec<String>, CniError> {
    let sysctls = pod_sysctls();
    let mut differences = Vec::new();
    for (path, wanted) in settings {
        match sysctls.read(path).map_err(kernel_refused)? {
            // The kernel writes several values with tabs between them.
            Some(found) if found.split_whitespace().eq(wanted.split_whitespace()) => {}
            Some(found) => differences.push(format!("sysctl {path} is `{found}`, not `{wanted}`")),
            None => differences.push(format!("sysctl {path} does not exist")),
        }
    }
    Ok(differences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_paths_below_net_and_nothing_else() {
        let eth = LinkName::new("eth0.5").unwrap();
        let path = |key: &str| path(key, &eth).ok();
        assert_eq!(path("net.core.somaxconn").as_deref(), Some("net/core/somaxconn"));
        assert_eq!(
            path("net.ipv4.conf.IFNAME.arp_filter").as_deref(),
            Some("net/ipv4/conf/eth0.5/arp_filter")
        );
        assert_eq!(path("net/ipv4/ip_forward").as_deref(), Some("net/ipv4/ip_forward"));
        for bad in ["", "kernel.hostname", "net", "net/../kernel/hostname", "network.x", "net..x", "net.x\0"]
        {
            assert_eq!(path(bad), None, "{bad}");
        }
    }
}
