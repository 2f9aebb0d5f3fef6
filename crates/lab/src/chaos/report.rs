//! What chaos brought about, as part of the lab's document.

use serde::{Deserialize, Serialize};

use crate::options::Family;
use crate::report::ProbeKind;

/// Damage and its repair. Times count from the damage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Repair {
    /// What was broken.
    pub fault: String,
    /// Where.
    pub node: String,
    /// When a probe or a look at the kernel first noticed, in milliseconds.
    pub observed_broken_ms: u64,
    /// What was noticed.
    pub observed: String,
    /// When the cause itself was gone, in milliseconds, where a repair must wait for that: the cable is back, the disk
    /// has room. Absent where the cluster has to heal by itself.
    pub undone_ms: Option<u64>,
    /// When everything was whole again, in milliseconds.
    pub restored_ms: u64,
    /// What else was seen.
    pub notes: Vec<String>,
}

/// Something that chaos must not bring about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChaosFailure {
    /// After which fault.
    pub fault: String,
    /// Where that was.
    pub node: String,
    /// `fault_not_observed`, `not_restored`, `plan_not_empty`, `flow_dead`, `churn_failed`, `raced`, `unnamed` or
    /// `lab_error`.
    pub code: String,
    /// What was found.
    pub message: String,
}

/// How long a probe that was sent again and again went unanswered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outage {
    /// Where it started.
    pub from: String,
    /// Where it went.
    pub to: String,
    /// In which family.
    pub family: Family,
    /// What it proves.
    pub kind: ProbeKind,
    /// How many were sent.
    pub sent: u64,
    /// How many of them were lost or answered wrongly.
    pub lost: u64,
    /// The longest time from one success to the next with a loss between them, in milliseconds.
    pub longest_ms: u64,
    /// The fault during which that was.
    pub during: Option<String>,
}

/// TCP connections between pods that were opened before the first fault and used after each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// How many were opened, also in the place of excused ones.
    pub opened: usize,
    /// How many carried data both ways at the end.
    pub alive: usize,
    /// How many ended because a node of theirs was booted anew.
    pub excused: usize,
}

/// Pods that came and went all the while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Churned {
    /// ADDs that succeeded.
    pub added: u64,
    /// DELs that succeeded.
    pub deleted: u64,
    /// ADDs that failed and were tried again, as a runtime does.
    pub retried: u64,
    /// Calls that failed and should not have: for an ADD, twice.
    pub failed: u64,
    /// Calls that failed while they had to, as on a full disk.
    pub excused: u64,
}

/// What chaos brought about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChaosReport {
    /// For how many seconds it was asked.
    pub duration_s: u64,
    /// The faults in the order in which they came; the seed decides it.
    pub order: Vec<String>,
    /// What should not have happened.
    pub failures: Vec<ChaosFailure>,
    /// Each probe that was sent again and again, the longest outage first.
    pub outages: Vec<Outage>,
    /// Connections.
    pub flows: Flows,
    /// Pods.
    pub churn: Churned,
    /// How to have the same faults in the same order again.
    pub repeat: String,
}
