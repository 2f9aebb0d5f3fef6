//! How many neighbours the kernel keeps. The limits are the machine's: in a child network namespace there is no such file.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kernel::KernelError;
use kernel::sysctl::Sysctls;
use node_network::observed::FibLookup;
use node_network::{Family, PerFamily};

/// So few fit into any table, and the files are not read at each pass.
const FEW: usize = 128;

/// The limit of each family that has more than a few peers (`arp(7)`: `gc_thresh3`).
pub(super) fn limits(
    sysctls: &Sysctls,
    next_hops: &BTreeMap<IpAddr, FibLookup>,
) -> Result<PerFamily<u32>, KernelError> {
    let mut limits = PerFamily::default();
    for family in Family::BOTH {
        if next_hops.keys().filter(|hop| Family::of(**hop) == family).count() <= FEW {
            continue;
        }
        let limit = sysctls.read(&format!("net/{}/neigh/default/gc_thresh3", family.in_sysctls()))?;
        if let Some(limit) = limit.and_then(|limit| limit.parse().ok()) {
            limits.insert(family, limit);
        }
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_where_there_are_many_peers_and_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("net/ipv4/neigh/default/gc_thresh3");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "1024\n").unwrap();
        let sysctls = Sysctls::at(folder.path());
        let hops = |count: u8, last: u8| {
            let v4 = (0..count).map(move |n| IpAddr::from([10, 0, n, last]));
            let v6 = (0..count).map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)]));
            v4.chain(v6).map(|hop| (hop, Err(String::new()))).collect::<BTreeMap<_, FibLookup>>()
        };
        let found = limits(&sysctls, &hops(200, 1)).unwrap();
        assert_eq!((found.get(Family::Ipv4), found.get(Family::Ipv6)), (Some(&1024), None));
        assert!(limits(&sysctls, &hops(100, 1)).unwrap().is_empty());
    }
}
