//! Proves that the comparison can fail: plugins of ours that do one thing wrong, each of which must be found.

use crate::case::Case;
use crate::error::SuiteError;
use crate::listed::Listed;
use crate::programs::Programs;
use crate::{report, suite};

/// A fault: its name, the case that must show it, the plugin that has it, and the shell's line that makes it. The line
/// runs when the plugin has ended with `answer` and `code`.
const FAULTS: [(&str, &str, &str, &str); 10] = [
    (
        "an-address-more",
        "bridge-gateway",
        "bridge",
        "[ $CNI_COMMAND = ADD ] && pod ip addr add 10.9.9.9/32 dev eth0",
    ),
    ("another-mtu", "bridge-gateway", "bridge", "[ $CNI_COMMAND = ADD ] && pod ip link set eth0 mtu 1300"),
    ("a-route-less", "bridge-gateway", "bridge", "[ $CNI_COMMAND = ADD ] && pod ip route del default"),
    (
        "a-sysctl",
        "bridge-gateway",
        "bridge",
        "[ $CNI_COMMAND = ADD ] && echo 2 >/proc/sys/net/ipv4/conf/all/rp_filter",
    ),
    ("another-result", "bridge-gateway", "bridge", "answer=$(echo \"$answer\" | sed 's/10.1.2.2/10.1.2.3/')"),
    ("a-link-left", "bridge-gateway", "bridge", "[ $CNI_COMMAND = DEL ] && ip link add left type bridge"),
    (
        "another-code",
        "refused-unknown-ipam",
        "bridge",
        "answer=$(echo \"$answer\" | sed 's/\"code\":[0-9]*/\"code\":77/')",
    ),
    ("no-failure", "bridge-check-address", "bridge", "[ $CNI_COMMAND = CHECK ] && answer= code=0"),
    (
        "state-left",
        "bridge-gateway",
        "bridge",
        "[ $CNI_COMMAND = DEL ] && echo pod-a >/var/lib/cni/networks/net/10.1.2.9",
    ),
    (
        "a-rule-that-drops",
        "portmap-ports",
        "portmap",
        "[ $CNI_COMMAND = ADD ] && nft 'add table ip t; add chain ip t c { type filter hook forward priority 0; policy drop; }'",
    ),
];

/// Whether each was found.
pub(crate) fn run(programs: &Programs, listed: &Listed, cases: &[Case]) -> Result<bool, SuiteError> {
    let mut all = true;
    for (name, case_name, plugin, line) in FAULTS {
        let Some(case) = cases.iter().find(|case| case.name == case_name) else {
            report::line(&format!("planted {name}: there is no case {case_name}"));
            all = false;
            continue;
        };
        let faulty = programs.with_fault(name, plugin, line)?;
        let found = suite::compare_once(programs, case, &faulty)?;
        let unlisted = found.iter().find(|it| listed.expecting(it.run, &it.case, &it.difference).is_empty());
        match unlisted {
            Some(it) => report::line(&format!("planted {name}: found at {}", it.difference.at)),
            None => {
                all = false;
                report::line(&format!("planted {name}: NOT FOUND"));
            }
        }
    }
    Ok(all)
}
