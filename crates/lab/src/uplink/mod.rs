//! The uplink's scenario: sessions and pings over a node's only link while the real `hostgw uplink join` and `leave` move
//! it into a bridge and back, again and again.

mod session;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::node::Node;
use crate::options::UplinkRuns;
use crate::seeded::Seeded;
use crate::topology::UPLINK;
use crate::{LabError, foreign};

use session::{Flow, start_all};

/// The program, on the node.
const PROGRAM: &str = "/opt/hostgw/hostgw";
/// The bridge that is made.
const BRIDGE: &str = "br0";
/// Between two moves at most, in milliseconds: moves meet the sessions at any moment of theirs.
const PAUSE_MS: usize = 60;
/// More failures of one kind would bury the report.
const LISTED: usize = 5;

/// What moving the uplink did to who was talking over it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UplinkReport {
    /// How many times the link was joined and left again.
    pub runs: u32,
    /// What the longest silence had to stay under, in milliseconds, if that was asked.
    pub budget_ms: Option<u64>,
    /// Each session and each stream of pings.
    pub flows: Vec<FlowReport>,
    /// From the command's start to its end, in milliseconds: the longest.
    pub longest_command_ms: u64,
    /// What went wrong.
    pub failures: Vec<String>,
}

/// One session or stream of pings, from the outside host to the node, a hundred messages a second.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FlowReport {
    /// `tcp ipv4`, `ping ipv6`, ….
    pub flow: String,
    /// Messages that were answered.
    pub answered: u64,
    /// Messages that were not; of a session none, as TCP repeats them.
    pub lost: u64,
    /// The longest time without an answer, in milliseconds.
    pub longest_silence_ms: u64,
    /// Of the runs' longest silences the median, in milliseconds.
    pub median_silence_ms: u64,
    /// Why the session ended, if it did before its time.
    pub broken: Option<String>,
}

impl UplinkReport {
    /// Whether no session was broken, every command did its work, and silences stayed within the budget.
    #[must_use]
    pub fn ok(&self) -> bool {
        let quiet = |flow: &FlowReport| self.budget_ms.is_none_or(|budget| flow.longest_silence_ms < budget);
        self.failures.is_empty() && self.flows.iter().all(|flow| flow.broken.is_none() && quiet(flow))
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "uplink joined and left {} times; the longest command took {} ms\n",
            self.runs, self.longest_command_ms
        );
        for flow in &self.flows {
            let budget = self.budget_ms.map_or(String::new(), |budget| format!(" (budget {budget})"));
            let end = flow.broken.as_deref().map_or(String::new(), |why| format!("; broken: {why}"));
            let mark = if flow.broken.is_some() { "✗" } else { "✓" };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{mark} {}: {} answered, {} lost, longest silence {} ms{budget}, median of runs {} ms{end}",
                flow.flow, flow.answered, flow.lost, flow.longest_silence_ms, flow.median_silence_ms
            );
        }
        for failure in &self.failures {
            let _ = writeln!(text, "✗ {failure}");
        }
        text
    }
}

/// Joins and leaves the first node's uplink as often as asked.
pub(crate) fn run(
    cluster: &Cluster,
    wanted: UplinkRuns,
    seed: u64,
    deadline: Instant,
) -> Result<UplinkReport, LabError> {
    let node = cluster.node(0)?;
    let before = snapshot(node)?;
    let flows = start_all(&cluster.outside, &node.place, &node.plan.internal)?;
    let mut report = UplinkReport {
        runs: 0,
        budget_ms: wanted.budget_ms,
        flows: Vec::new(),
        longest_command_ms: 0,
        failures: Vec::new(),
    };
    let mut pauses = Seeded::new(seed);
    while report.runs < wanted.runs && Instant::now() < deadline && report.failures.len() < LISTED {
        for arguments in [&["join", "--link", UPLINK, "--bridge", BRIDGE][..], &["leave", "--link", UPLINK]] {
            thread::sleep(Duration::from_millis(pauses.below(PAUSE_MS) as u64));
            let start = Instant::now();
            if let Some(failure) = command(node, arguments)? {
                report.failures.push(format!("run {}: {failure}", report.runs + 1));
            }
            let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            report.longest_command_ms = report.longest_command_ms.max(took);
        }
        flows.iter().for_each(Flow::end_of_run);
        report.runs += 1;
    }
    if report.runs < wanted.runs {
        report
            .failures
            .push(format!("{} of {} runs were made: give more --timeout", report.runs, wanted.runs));
    }
    report.flows = flows.into_iter().map(Flow::finish).collect();
    let changed = foreign::compare(&node.plan.name, &before, &snapshot(node)?).changed;
    report.failures.extend(changed.into_iter().take(LISTED));
    Ok(report)
}

fn snapshot(node: &Node) -> Result<BTreeSet<String>, LabError> {
    let name = node.plan.name.clone();
    node.place.run(move || foreign::snapshot(&name))
}

/// Runs `hostgw uplink` on the node; what it said if it failed.
fn command(node: &Node, arguments: &'static [&'static str]) -> Result<Option<String>, LabError> {
    node.place.run(move || {
        let output = Command::new(PROGRAM)
            .arg("uplink")
            .args(arguments)
            .args(["--confirm-within", "0s"])
            .stdin(Stdio::null())
            .output()
            .map_err(LabError::io(format!("run {PROGRAM} uplink")))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok((!output.status.success()).then(|| format!("{}: {said}", arguments.join(" "))))
    })
}
