//! Sysctls: first what keeps the uplinks' learnt routes, then forwarding.

use link_name::LinkName;

use crate::condition::{Condition, ForwardingCondition};
use crate::desired::{OwnNetwork, Sysctl, WantedSysctl};
use crate::observed::ObservedNode;

/// A sysctl to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysctlChange {
    /// Which.
    pub sysctl: Sysctl,
    /// Its value now, to be put back at uninstall.
    pub from: String,
    /// Its value to be.
    pub to: &'static str,
}

pub(super) fn plan_sysctls(
    own: &OwnNetwork,
    observed: &ObservedNode,
    conditions: &mut Vec<Condition>,
) -> Vec<SysctlChange> {
    let forwards_ipv6 = own.sysctls.iter().any(|wanted| wanted.sysctl == Sysctl::Ipv6Forwarding);
    let uplinks =
        observed.links.values().filter(|link| forwards_ipv6 && link.learns_from_router_advertisements);
    // With forwarding on, the kernel stops listening to router advertisements unless accept_ra is 2.
    let keep_learning =
        uplinks.filter_map(|link| LinkName::new(link.name.as_str()).ok()).map(Sysctl::AcceptRa);
    let mut changes = Vec::new();
    let wanted =
        keep_learning.map(|sysctl| WantedSysctl { sysctl, value: "2" }).chain(own.sysctls.iter().cloned());
    for WantedSysctl { sysctl, value } in wanted {
        match observed.sysctls.get(&sysctl) {
            Some(now) if now == value => {}
            Some(now) => changes.push(SysctlChange { sysctl, from: now.clone(), to: value }),
            None => {
                let unreadable = ForwardingCondition::SysctlUnreadable { sysctl: sysctl.path() };
                conditions.push(unreadable.into());
            }
        }
    }
    changes.sort_by(|a, b| a.sysctl.cmp(&b.sysctl));
    changes
}
