//! How much each condition matters.

use serde::Serialize;

use super::Condition;
use crate::plan::AllowedIpsFault;

/// How much a condition matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is broken.
    Notice,
    /// Something may break, or is not as the source says.
    Warning,
    /// Some pods cannot be reached, or cannot start.
    Error,
}

impl Condition {
    /// How much it matters.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::PodCidrInsideLink { .. }
            | Self::WireguardNextHop { fault: AllowedIpsFault::Unreadable(_), .. } => Severity::Notice,
            Self::BadNodeObject(problem) => problem.severity,
            Self::Forwarding(condition) => condition.severity(),
            Self::Mtu(condition) => condition.severity(),
            Self::Lan(condition) => condition.severity(),
            Self::CachedSource { .. }
            | Self::InternalIpNotLocal { .. }
            | Self::InternalIpNotUsable { .. }
            | Self::MultipathClash { .. }
            | Self::FewNeighbours { .. }
            | Self::RuntimeSilent { .. }
            | Self::RuntimeImplausible { .. }
            | Self::ReportRefused { .. }
            | Self::NoNextHop { held: true, .. } => Severity::Warning,
            _ => Severity::Error,
        }
    }
}
