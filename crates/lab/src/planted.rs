//! What is broken on purpose, to show that the lab notices: the object of a probe or a check, or a whole run.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::probe::report::ProbeKind;

/// What a planted fault is against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Fault {
    /// Every probe of a kind, but for first packets.
    Probe(ProbeKind),
    /// What a pod of the first node sends until its first packets were sent.
    FirstPacket,
    /// The check that a removed node's routes go: the agents are held.
    RemovedNode,
}

impl Fault {
    /// As it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Probe(kind) => kind.name(),
            Self::FirstPacket => "first-packet",
            Self::RemovedNode => "removed-node",
        }
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> Self {
        fault.name().to_owned()
    }
}

impl TryFrom<String> for Fault {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all =
            || ProbeKind::ALL.map(Self::Probe).into_iter().chain([Self::FirstPacket, Self::RemovedNode]);
        all().find(|fault| fault.name() == name).ok_or_else(|| {
            let names: Vec<_> = all().map(Self::name).collect();
            format!("there is no fault `{name}`: there are {}", names.join(", "))
        })
    }
}

/// What spoils a run of faults, restarts or trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// The agents are held: nothing is repaired.
    HoldAgents,
    /// The faults do no damage.
    NoDamage,
    /// An established flow is cut.
    CutFlow,
    /// A foreign route is deleted.
    DeleteForeign,
    /// A pod is never deleted.
    LeavePod,
    /// The agents leave the policy of others' FORWARD chains as it is.
    KeepDropping,
    /// Nobody attaches the pods of a node that was booted.
    LosePods,
    /// The LAN's router announces nothing.
    SilentRouter,
}

impl Sabotage {
    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::HoldAgents,
        Self::NoDamage,
        Self::CutFlow,
        Self::DeleteForeign,
        Self::LeavePod,
        Self::KeepDropping,
        Self::LosePods,
        Self::SilentRouter,
    ];

    pub(crate) const OF_CHAOS: [Self; 5] =
        [Self::HoldAgents, Self::NoDamage, Self::CutFlow, Self::DeleteForeign, Self::LeavePod];
    pub(crate) const OF_RESTARTS: [Self; 4] =
        [Self::HoldAgents, Self::NoDamage, Self::KeepDropping, Self::LosePods];
    pub(crate) const OF_SLAAC: [Self; 5] =
        [Self::HoldAgents, Self::NoDamage, Self::KeepDropping, Self::LosePods, Self::SilentRouter];
    pub(crate) const OF_TRIALS: [Self; 4] =
        [Self::HoldAgents, Self::NoDamage, Self::KeepDropping, Self::LosePods];

    /// As it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HoldAgents => "hold-agents",
            Self::NoDamage => "no-damage",
            Self::CutFlow => "cut-flow",
            Self::DeleteForeign => "delete-foreign",
            Self::LeavePod => "leave-pod",
            Self::KeepDropping => "keep-dropping",
            Self::LosePods => "lose-pods",
            Self::SilentRouter => "silent-router",
        }
    }
}

impl FromStr for Sabotage {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|sabotage| sabotage.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|sabotage| sabotage.name()).collect();
            format!("there is no sabotage `{name}`: there are {}", names.join(", "))
        })
    }
}
