//! What programs call each condition.

use super::Condition;

impl Condition {
    /// A stable name for programs, as in `hostgw status -o json` and the metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadNodeObject(_) => "bad-node-object",
            Self::ThisNodeMissing { .. } => "this-node-missing",
            Self::OwnPodCidrUnreadable { .. } => "own-pod-cidr-unreadable",
            Self::ObjectsLeftOut { .. } => "objects-left-out",
            Self::CachedSource { .. } => "cached-source",
            Self::NoPodCidr { .. } => "no-pod-cidr",
            Self::NoInternalIp { .. } => "no-internal-ip",
            Self::InternalIpNotLocal { .. } => "internal-ip-not-local",
            Self::OverlappingPodCidr { .. } => "overlapping-pod-cidr",
            Self::OverlapsOwnPodCidr { .. } => "overlaps-own-pod-cidr",
            Self::PodCidrHoldsNodeAddress { .. } => "pod-cidr-holds-node-address",
            Self::PodCidrCoversLink { .. } => "pod-cidr-covers-link",
            Self::PodCidrInsideLink { .. } => "pod-cidr-inside-link",
            Self::PeerAddressIsLocal { .. } => "peer-address-is-local",
            Self::DuplicateInternalIp { .. } => "duplicate-internal-ip",
            Self::NoNextHop { .. } => "no-next-hop",
            Self::WireguardNextHop { .. } => "wireguard-next-hop",
            Self::RouteClash { .. } => "route-clash",
            Self::MultipathClash { .. } => "multipath-clash",
            Self::RouteShadowed { .. } => "route-shadowed",
            Self::RouteNotEffective { .. } => "route-not-effective",
            Self::FewNeighbours { .. } => "few-neighbours",
            Self::InternalIpNotUsable { .. } => "internal-ip-not-usable",
            Self::OwnPodCidrClash { .. } => "own-pod-cidr-clash",
            Self::BridgeNotOfPods { .. } => "bridge-not-of-pods",
            Self::RuntimeSilent { .. } => "runtime-silent",
            Self::RuntimeImplausible { .. } => "runtime-implausible",
            Self::ReportRefused { .. } => "report-refused",
            Self::ChainSwitchWaits { .. } => "chain-switch-waits",
            Self::NoChosenAddress => "no-chosen-address",
            Self::LeaseLost { .. } => "lease-lost",
            Self::PodCidrExhausted { .. } => "pod-cidr-exhausted",
            Self::Forwarding(condition) => condition.code(),
            Self::Mtu(condition) => condition.code(),
            Self::Lan(condition) => condition.code(),
            Self::NotAnnounced => "not-announced",
        }
    }
}
