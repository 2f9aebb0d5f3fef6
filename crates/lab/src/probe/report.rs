//! What became of a probe.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::options::{Family, Mode};

/// What a probe proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeKind {
    /// A pod reaches a pod on its own node.
    PodPodSame,
    /// A pod reaches a pod on another node, and is seen with its own address.
    PodPodRemote,
    /// A pod reaches nodes, its own and another, and is seen with its own address.
    PodNode,
    /// A node reaches pods, its own and another's, and is seen with its internal address.
    NodePod,
    /// A host port answers a host that is not of the cluster, which is seen with its own address.
    HostportOutside,
    /// A host port answers its own node.
    HostportNode,
    /// A host port answers the very pod that owns it.
    HostportHairpin,
    /// A pod that leaves the cluster is seen with its node's address.
    EgressMasq,
    /// A pod keeps its address towards CIDRs that are never masqueraded.
    EgressNomasq,
    /// A host of the nodes' LAN reaches a pod by the pod's own address, and is seen with its own.
    LanPod,
    /// A datagram of exactly the pod's MTU passes unfragmented; one byte more is refused at once.
    Mtu,
}

impl ProbeKind {
    /// Every kind, in the order of the contract.
    pub const ALL: [Self; 11] = [
        Self::PodPodSame,
        Self::PodPodRemote,
        Self::PodNode,
        Self::NodePod,
        Self::HostportOutside,
        Self::HostportNode,
        Self::HostportHairpin,
        Self::EgressMasq,
        Self::EgressNomasq,
        Self::LanPod,
        Self::Mtu,
    ];

    /// Whether there is anything to prove of it: on the LAN nobody is masqueraded, and elsewhere no host finds a pod.
    #[must_use]
    pub fn is_of(self, mode: Mode) -> bool {
        match self {
            Self::EgressMasq => !mode.is_of_lan(),
            Self::LanPod => mode.is_of_lan(),
            _ => true,
        }
    }

    /// As it is written in the contract.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PodPodSame => "pod-pod-same",
            Self::PodPodRemote => "pod-pod-remote",
            Self::PodNode => "pod-node",
            Self::NodePod => "node-pod",
            Self::HostportOutside => "hostport-outside",
            Self::HostportNode => "hostport-node",
            Self::HostportHairpin => "hostport-hairpin",
            Self::EgressMasq => "egress-masq",
            Self::EgressNomasq => "egress-nomasq",
            Self::LanPod => "lan-pod",
            Self::Mtu => "mtu",
        }
    }
}

impl std::str::FromStr for ProbeKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            format!("no probe is of kind `{name}`: kinds are {}", names.join(", "))
        })
    }
}

/// How a probe travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Exactly one datagram, never repeated.
    Udp,
    /// One connection.
    Tcp,
}

/// A probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Where it started.
    pub from: String,
    /// Where it went.
    pub to: String,
    /// In which family.
    pub family: Family,
    /// What it proves.
    pub kind: ProbeKind,
    /// How it travelled.
    pub transport: Transport,
    /// Whether it was sent as soon as the pod's ADD returned, before the pod sent anything else to that place.
    pub first_packet: bool,
    /// Whether the right place answered, and saw the right source address.
    pub ok: bool,
    /// From the datagram's departure to its answer, in microseconds.
    pub rtt_us: Option<u64>,
    /// The source address that the answering place saw.
    pub seen_source: Option<IpAddr>,
    /// What was wrong.
    pub error: Option<String>,
}
