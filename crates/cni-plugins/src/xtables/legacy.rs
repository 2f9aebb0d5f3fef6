//! Whether this network namespace uses tables of iptables' legacy flavour.

use kernel::route::Family;

/// Whether a table was ever used here. Asking iptables for one that is not there would bring it into being.
pub(super) fn is_used(version: Family, table: &str) -> bool {
    let names = match version {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    // Without the file this kernel has no such flavour.
    std::fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == table))
}
