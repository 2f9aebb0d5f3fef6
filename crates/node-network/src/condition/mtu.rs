//! What an operator should know of the MTUs of this node's links and its pods'.

use super::Severity;

/// A link that carries less, or more, than it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MtuCondition {
    /// Pods could not have IPv6.
    #[error(
        "setting mtu is `{mtu}` and this node has an IPv6 pod CIDR, for which a link must carry 1280 bytes: use 0, or 1280 at least; the CNI configuration stays as it is"
    )]
    MtuTooSmall {
        /// The setting in bytes.
        mtu: u32,
    },
    /// Pods have IPv6, and their node's link to the others does not.
    #[error(
        "link {link} has MTU {mtu}, and the kernel takes IPv6 off a link that carries less than 1280 bytes: raise its MTU, then give it its IPv6 addresses and routes again"
    )]
    UplinkWithoutIpv6 {
        /// The link.
        link: String,
        /// Its MTU in bytes.
        mtu: u32,
    },
    /// Pods were connected when the uplink carried more, and have kept their MTU.
    #[error(
        "pods of this node have a larger MTU than the uplink ({pods}, such as {example} with {mtu}): link `{link}` carries {link_mtu} bytes; {}recreate them, or let it carry as much",
        setting.map(|mtu| format!("set mtu to {mtu} and ")).unwrap_or_default()
    )]
    PodsAboveUplink {
        /// How many.
        pods: usize,
        /// One of them.
        example: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// The link.
        link: String,
        /// Its MTU in bytes.
        link_mtu: u32,
        /// What the setting must be so that new pods do not get too much as well, in bytes; none where they do not.
        setting: Option<u32>,
    },
    /// Pods were connected when the uplink carried less, or the setting was smaller.
    #[error(
        "pods of this node have a smaller MTU than a new pod would ({pods}, such as {example} with {mtu}): recreate them for {new} bytes"
    )]
    PodsBelowUplink {
        /// How many.
        pods: usize,
        /// One of them.
        example: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// That of a new pod in bytes.
        new: u32,
    },
}

impl MtuCondition {
    /// How much it matters.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::MtuTooSmall { .. } => Severity::Error,
            Self::UplinkWithoutIpv6 { .. } | Self::PodsAboveUplink { .. } => Severity::Warning,
            Self::PodsBelowUplink { .. } => Severity::Notice,
        }
    }

    /// A stable name for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::MtuTooSmall { .. } => "mtu-too-small",
            Self::UplinkWithoutIpv6 { .. } => "uplink-without-ipv6",
            Self::PodsAboveUplink { .. } => "pods-above-uplink-mtu",
            Self::PodsBelowUplink { .. } => "pods-below-uplink-mtu",
        }
    }
}
