//! What pods on the bridge to the LAN may say there: put back where somebody flushed it, and forgotten with the link.

use std::collections::BTreeSet;
use std::path::Path;

use attachment::{Mode, State};
use cni_plugins::lan_guard::{guard_pod, guarded, unguard};
use node_network::Settings;
use node_network::observed::ObservedNode;
use node_network::settings::Mode as SettingsMode;

use super::{PodsReport, Records, is_gone};
use crate::observe::Kernel;

/// Guards the links of attached pods, where that is wanted; of all others nothing is left.
pub(crate) fn restore_guards(
    Kernel { netfilter, route, .. }: &mut Kernel,
    data_dir: &Path,
    records: &Records,
    observed: &ObservedNode,
    settings: &Settings,
    report: &mut PodsReport,
) {
    // Without a bridge to the LAN there is nobody to guard, and without a record nobody who was.
    let on_bridge =
        || records.entries.iter().filter(|(_, entry)| matches!(entry.record.wiring.mode, Mode::L2 { .. }));
    if settings.mode != SettingsMode::L2 && on_bridge().next().is_none() {
        return;
    }
    let held = match guarded(netfilter) {
        Ok(held) => held,
        Err(error) => return report.problems.push(error.to_string()),
    };
    let living: BTreeSet<&str> = observed.links.values().map(|link| link.name.as_str()).collect();
    let to_guard = on_bridge().filter(|(_, entry)| {
        settings.lan.anti_spoof
            && entry.state == State::Attached
            && living.contains(entry.record.wiring.host_link.as_str())
    });
    // Whether a link is gone is asked now, and not of what was observed before the guards were listed: a pod may have come
    // since, or gone.
    for (network, entry) in to_guard {
        let record = &entry.record;
        if held.contains(record.wiring.host_link.as_str()) || !Records::still_holds(data_dir, network, entry)
        {
            continue;
        }
        match guard_pod(netfilter, record) {
            Err(_) if is_gone(route, record.wiring.host_link.as_str()) => {}
            Ok(()) => report.done.push(format!("pod {}: guarded again", record.attachment)),
            Err(error) => report.problems.push(format!("pod {}: {error}", record.attachment)),
        }
    }
    // That of a link that lives may be of a pod whose ADD is under way.
    for link in held.iter().filter(|link| !settings.lan.anti_spoof || !living.contains(link.as_str())) {
        if settings.lan.anti_spoof && !is_gone(route, link) {
            continue;
        }
        match unguard(netfilter, link) {
            Ok(true) => report.done.push(format!("link {link} is guarded no more")),
            Ok(false) => {}
            Err(error) => report.problems.push(error.to_string()),
        }
    }
}
