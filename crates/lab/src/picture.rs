//! The topology as people see it, with every address. Rendering only.

use std::fmt::Write;
use std::net::IpAddr;

use crate::report::Report;

/// Draws the lab.
#[must_use]
pub fn picture(report: &Report) -> String {
    let mut drawing = String::new();
    // Writing to a String cannot fail.
    let _ = draw(&mut drawing, report);
    drawing
}

fn draw(to: &mut String, report: &Report) -> std::fmt::Result {
    let width = report.nodes.iter().map(|node| joined(&node.internal_ips).len()).max().unwrap_or(0);
    let outside = joined(&report.outside.ips);
    let seen = if report.mode.is_of_lan() { "themselves" } else { "their nodes" };
    writeln!(to, " outside   {outside}   default router, sees pods as {seen}")?;
    writeln!(to, "    │      {}   sees pods as themselves", joined(&report.outside.unmasqueraded_ips))?;
    writeln!(to, "════╪══ lan0 {}", "═".repeat(60))?;
    for (at, node) in report.nodes.iter().enumerate() {
        let last = at + 1 == report.nodes.len();
        let (branch, trunk) = if last { ("└", " ") } else { ("├", "│") };
        let cidrs: Vec<_> = node.pod_cidrs.iter().map(ToString::to_string).collect();
        writeln!(
            to,
            "    {branch}─ {:<7} {:<width$}   pods {}",
            node.name,
            joined(&node.internal_ips),
            cidrs.join(" ")
        )?;
        for (at, pod) in node.pods.iter().enumerate() {
            let twig = if at + 1 == node.pods.len() { "└" } else { "├" };
            let name = pod.name.rsplit('/').next().unwrap_or(&pod.name);
            let port = pod.host_port.map(|port| format!("   host port {port}")).unwrap_or_default();
            writeln!(to, "    {trunk}     {twig}─ {name:<6} {}{port}", joined(&pod.ips))?;
        }
    }
    Ok(())
}

fn joined(ips: &[IpAddr]) -> String {
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn every_place_stands_there_with_its_addresses() {
        insta::assert_snapshot!(picture(&example()));
    }
}
