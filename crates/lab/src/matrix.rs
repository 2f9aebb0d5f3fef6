//! The results as a table: one row a kind, one column a family, then whatever was wrong. Rendering only.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use crate::options::Family;
use crate::report::{ChaosFailure, ChaosReport, ProbeKind, ProbeReport, Repair, Report};

/// More failures of one kind are counted, not listed.
const LISTED: usize = 4;

/// Renders results, failures and timings.
#[must_use]
pub fn matrix(report: &Report) -> String {
    if let Some(uplink) = &report.uplink {
        return uplink.text();
    }
    let mut text = table(report).to_string();
    text.push('\n');
    // Writing to a String cannot fail.
    if let Some(dhcp) = &report.dhcp {
        text.push_str(&dhcp.text());
    }
    let _ = failures(&mut text, report).and_then(|()| footer(&mut text, report));
    text
}

fn table(report: &Report) -> Table {
    let families = report.family.each();
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let mut header = vec!["probe".to_owned()];
    header.extend(families.iter().flat_map(|family| [family.to_string(), "median µs".to_owned()]));
    table.set_header(header);
    for kind in ProbeKind::ALL.into_iter().filter(|kind| kind.is_of(report.mode)) {
        let mut row = vec![kind.name().to_owned()];
        row.extend(families.iter().flat_map(|family| cells(report, kind, *family)));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn cells(report: &Report, kind: ProbeKind, family: Family) -> [String; 2] {
    let of_kind: Vec<_> =
        report.probes.iter().filter(|probe| probe.kind == kind && probe.family == family).collect();
    if of_kind.is_empty() {
        return ["–".to_owned(), String::new()];
    }
    let passed = of_kind.iter().filter(|probe| probe.ok).count();
    let mark = if passed == of_kind.len() { "✓" } else { "✗" };
    let mut times: Vec<_> = of_kind.iter().filter_map(|probe| probe.rtt_us).collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2).map(ToString::to_string).unwrap_or_default();
    [format!("{passed}/{} {mark}", of_kind.len()), median]
}

/// One row a damage, then what was not as it must be.
fn repairs<'a>(
    text: &mut String,
    repairs: &[Repair],
    failures: impl Iterator<Item = &'a ChaosFailure>,
) -> std::fmt::Result {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["fault", "on", "noticed ms", "undone ms", "whole ms"]);
    for repair in repairs {
        let undone = repair.undone_ms.map(|ms| ms.to_string()).unwrap_or_default();
        let times = [repair.observed_broken_ms.to_string(), undone, repair.restored_ms.to_string()];
        table.add_row([repair.fault.clone(), repair.node.clone()].into_iter().chain(times));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(text, "{table}")?;
    for failure in failures {
        writeln!(text, "✗ {} on {}: {}: {}", failure.fault, failure.node, failure.code, failure.message)?;
    }
    Ok(())
}

/// What went on while faults came.
fn meanwhile(text: &mut String, chaos: &ChaosReport) -> std::fmt::Result {
    let (flows, churn) = (chaos.flows, chaos.churn);
    for outage in chaos.outages.iter().filter(|outage| outage.longest_ms > 0).take(LISTED) {
        let during = outage.during.as_deref().unwrap_or("no fault");
        let (kind, from, to) = (outage.kind.name(), &outage.from, &outage.to);
        writeln!(
            text,
            "  longest outage {} ms: {kind} {} {from} → {to}, {during}",
            outage.longest_ms, outage.family
        )?;
    }
    let expected = flows.opened.saturating_sub(flows.excused);
    let mark = if flows.alive == expected { "✓" } else { "✗" };
    writeln!(
        text,
        "{mark} {} of {expected} connections between pods live ({} were of rebooted nodes)",
        flows.alive, flows.excused
    )?;
    let mark = if churn.failed == 0 { "✓" } else { "✗" };
    writeln!(
        text,
        "{mark} {} pods came and {} went meanwhile; {} calls failed",
        churn.added, churn.deleted, churn.failed
    )?;
    if !chaos.failures.is_empty() {
        writeln!(text, "  the same again: {}", chaos.repeat)?;
    }
    Ok(())
}

fn failures(text: &mut String, report: &Report) -> std::fmt::Result {
    for kind in ProbeKind::ALL {
        let failed: Vec<_> = report.probes.iter().filter(|probe| probe.kind == kind && !probe.ok).collect();
        for ProbeReport { from, to, family, transport, error, .. } in failed.iter().take(LISTED) {
            let transport = format!("{transport:?}").to_lowercase();
            let error = error.as_deref().unwrap_or("failed");
            writeln!(text, "✗ {} {family} {transport} {from} → {to}: {error}", kind.name())?;
        }
        if failed.len() > LISTED {
            writeln!(text, "✗ {}: and {} more", kind.name(), failed.len() - LISTED)?;
        }
    }
    Ok(())
}

fn footer(text: &mut String, report: &Report) -> std::fmt::Result {
    if report.chaos.is_some() || report.restarts.is_some() {
        repairs(text, &report.repairs, report.failures())?;
    }
    if let Some(chaos) = &report.chaos {
        meanwhile(text, chaos)?;
    }
    if let Some(removed) = &report.removed_node {
        match removed.routes_absent_ms {
            Some(ms) => writeln!(text, "✓ {} removed: its routes were gone after {ms} ms", removed.name)?,
            None => removed
                .errors
                .iter()
                .take(LISTED)
                .try_for_each(|error| writeln!(text, "✗ {} removed: {error}", removed.name))?,
        }
    }
    for node in &report.teardown {
        node.left.iter().try_for_each(|left| writeln!(text, "✗ pods left on {}: {left}", node.node))?;
    }
    if !report.teardown.is_empty() && report.teardown.iter().all(|node| node.ok) {
        writeln!(text, "✓ deleted pods left nothing")?;
    }
    for node in &report.foreign_objects {
        node.changed
            .iter()
            .try_for_each(|changed| writeln!(text, "✗ changed on {}: {changed}", node.node))?;
    }
    if !report.foreign_objects.is_empty() && report.foreign_objects.iter().all(|node| node.ok) {
        let compared: usize = report.foreign_objects.iter().map(|node| node.compared).sum();
        writeln!(text, "✓ {compared} objects of others are as they were")?;
    }
    let total: u64 = report.steps.iter().map(|step| step.ms).sum();
    let passed = report.probes.iter().filter(|probe| probe.ok).count();
    let (mark, all) = (if report.ok { "✓" } else { "✗" }, report.probes.len());
    writeln!(text, "{mark} {passed} of {all} probes passed, {total} ms in all (seed {})", report.seed)?;
    if report.kept {
        let name = &report.name;
        writeln!(
            text,
            "\nThe lab is kept: {name}\n  hostgw lab exec {name} node1/pod1 -- ip address\n  hostgw lab down {name}"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn results_are_counted_and_failures_named() {
        insta::assert_snapshot!(matrix(&example()));
    }
}
