//! What pods on the bridge to the LAN may say there: put back where somebody flushed it, and forgotten with the link.

use std::collections::BTreeSet;

use attachment::{Mode, State};
use cni_plugins::lan_guard::{guard_pod, guarded, unguard};
use kernel::netlink::Socket;
use node_network::Settings;
use node_network::observed::ObservedNode;
use node_network::settings::Mode as SettingsMode;

use super::{PodsReport, Records};

/// Guards the links of attached pods, where that is wanted; of all others nothing is left.
pub(crate) fn restore_guards(
    netfilter: &mut Socket,
    records: &Records,
    observed: &ObservedNode,
    settings: &Settings,
    report: &mut PodsReport,
) {
    // Without a bridge to the LAN there is nobody to guard, and without a record nobody who was.
    let on_bridge = || {
        let entries = records.entries.iter().map(|(_, entry)| entry);
        entries.filter(|entry| matches!(entry.record.wiring.mode, Mode::L2 { .. }))
    };
    if settings.mode != SettingsMode::L2 && on_bridge().next().is_none() {
        return;
    }
    let held = match guarded(netfilter) {
        Ok(held) => held,
        Err(error) => return report.problems.push(error.to_string()),
    };
    let living: BTreeSet<&str> = observed.links.values().map(|link| link.name.as_str()).collect();
    let to_guard = on_bridge().filter(|entry| {
        settings.lan.anti_spoof
            && entry.state == State::Attached
            && living.contains(entry.record.wiring.host_link.as_str())
    });
    for record in to_guard.map(|entry| &entry.record) {
        if held.contains(record.wiring.host_link.as_str()) {
            continue;
        }
        match guard_pod(netfilter, record) {
            Ok(()) => report.done.push(format!("pod {}: guarded again", record.attachment)),
            Err(error) => report.problems.push(format!("pod {}: {error}", record.attachment)),
        }
    }
    // That of a link that lives may be of a pod whose ADD is under way.
    for link in held.iter().filter(|link| !settings.lan.anti_spoof || !living.contains(link.as_str())) {
        match unguard(netfilter, link) {
            Ok(true) => report.done.push(format!("link {link} is guarded no more")),
            Ok(false) => {}
            Err(error) => report.problems.push(error.to_string()),
        }
    }
}
