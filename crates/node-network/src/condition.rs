//! What an operator should know: each condition names its subject, the reason and the remedy.

mod code;
mod forwarding;
mod lan;
mod mtu;
mod severity;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::cluster::{NodeName, NodeProblem};
use crate::desired::OwnClash;
use crate::family::Family;
use crate::next_hop::NextHopProblem;
use crate::observed::{BridgeFault, RouteKey};
use crate::plan::AllowedIpsFault;

pub use forwarding::ForwardingCondition;
pub use lan::LanCondition;
pub use mtu::MtuCondition;
pub use severity::Severity;

/// A pod, as Events name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodReference {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, without which `kubectl describe` does not show what is said of it.
    pub uid: Option<String>,
}

/// Something that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Condition {
    /// A Node object holds something unusable.
    #[error("{0}")]
    BadNodeObject(NodeProblem),
    /// The source does not list this node.
    #[error(
        "node `{node}` is not among the {nodes} nodes of the source: check --node-name; nothing is deleted until it is listed"
    )]
    ThisNodeMissing {
        /// This node.
        node: NodeName,
        /// How many there are.
        nodes: usize,
    },
    /// A pod CIDR of this node cannot be read.
    #[error(
        "a pod CIDR of this node `{node}` cannot be read: correct its Node object; nothing of this node is changed and nothing is deleted until then"
    )]
    OwnPodCidrUnreadable {
        /// This node.
        node: NodeName,
    },
    /// Objects whose meaning is unknown.
    #[error(
        "{objects} objects of the source are no node that can be told: nothing is deleted until they are put right or removed"
    )]
    ObjectsLeftOut {
        /// How many.
        objects: usize,
    },
    /// The source is silent, and what it last said is used.
    #[error(
        "the source has not been read yet; peers are those of {age_seconds} s ago, and nothing is deleted"
    )]
    CachedSource {
        /// Age of the cache.
        age_seconds: u64,
    },
    /// This node has no pod CIDR.
    #[error(
        "node `{node}` has no pod CIDR: set spec.podCIDRs, run kube-controller-manager with --allocate-node-cidrs, or run `hostgw podcidr assign`"
    )]
    NoPodCidr {
        /// This node.
        node: NodeName,
    },
    /// A pod CIDR of a family in which the node has no address.
    #[error(
        "node `{node}` has an {family} pod CIDR and no {family} InternalIP: give the node an {family} address, or the annotation hostgw.io/internal-ip"
    )]
    NoInternalIp {
        /// The node.
        node: NodeName,
        /// The family.
        family: Family,
    },
    /// The Node object names an address that this node does not hold.
    #[error(
        "this node's InternalIP {address} is on none of its links: correct the kubelet's --node-ip, or add the address"
    )]
    InternalIpNotLocal {
        /// The address.
        address: IpAddr,
    },
    /// Two nodes claim the same pod addresses; this one lost.
    #[error(
        "pod CIDR {pod_cidr} of node `{node}` overlaps {other_cidr} of node `{other}`, which was there first: delete and re-create node `{node}` to get another"
    )]
    OverlappingPodCidr {
        /// The loser.
        node: NodeName,
        /// Its CIDR.
        pod_cidr: IpNet,
        /// The winner.
        other: NodeName,
        /// The winner's CIDR.
        other_cidr: IpNet,
    },
    /// A peer claims addresses of this node's own pods.
    #[error(
        "pod CIDR {pod_cidr} of node `{node}` overlaps this node's own {own_cidr} and is not routed: give one of the two another"
    )]
    OverlapsOwnPodCidr {
        /// The peer.
        node: NodeName,
        /// Its CIDR.
        pod_cidr: IpNet,
        /// Ours.
        own_cidr: IpNet,
    },
    /// Routing the CIDR would cut off a node.
    #[error(
        "pod CIDR {pod_cidr} of node `{node}` holds address {address} of node `{holder}` and is not routed: choose pod CIDRs apart from the nodes' network"
    )]
    PodCidrHoldsNodeAddress {
        /// The peer.
        node: NodeName,
        /// Its CIDR.
        pod_cidr: IpNet,
        /// The address.
        address: IpAddr,
        /// The node that holds it.
        holder: NodeName,
    },
    /// Routing the CIDR would fight with a connected network.
    #[error(
        "pod CIDR {pod_cidr} of node `{node}` covers {prefix} on link `{link}` of this node and is not routed: change one of the two"
    )]
    PodCidrCoversLink {
        /// The peer.
        node: NodeName,
        /// Its CIDR.
        pod_cidr: IpNet,
        /// The connected prefix.
        prefix: IpNet,
        /// Its link.
        link: String,
    },
    /// The CIDR takes addresses from a connected network.
    #[error(
        "pod CIDR {pod_cidr} of node `{node}` lies inside {prefix} on link `{link}`: hosts of that network with such addresses cannot be reached from here"
    )]
    PodCidrInsideLink {
        /// The peer.
        node: NodeName,
        /// Its CIDR.
        pod_cidr: IpNet,
        /// The connected prefix.
        prefix: IpNet,
        /// Its link.
        link: String,
    },
    /// A peer's address is ours too.
    #[error(
        "address {address} of node `{node}` is held by link `{link}` of this node: give the node an address of its own (annotation hostgw.io/internal-ip)"
    )]
    PeerAddressIsLocal {
        /// The peer.
        node: NodeName,
        /// The address.
        address: IpAddr,
        /// Our link.
        link: String,
    },
    /// Two nodes with one address; this one lost.
    #[error(
        "address {address} of node `{node}` is that of node `{other}` too: give it an address of its own (annotation hostgw.io/internal-ip)"
    )]
    DuplicateInternalIp {
        /// The loser.
        node: NodeName,
        /// The address.
        address: IpAddr,
        /// The winner.
        other: NodeName,
    },
    /// There is no usable way to a peer.
    #[error("no route to pod CIDR {pod_cidr} of node `{node}` via {address}{}: {problem}", if *.held { " can be confirmed; the last one is kept" } else { "" })]
    NoNextHop {
        /// The peer.
        node: NodeName,
        /// Its CIDR.
        pod_cidr: IpNet,
        /// Its address.
        address: IpAddr,
        /// Why.
        problem: NextHopProblem,
        /// The installed route stays.
        held: bool,
    },
    /// The next hop lies behind a WireGuard link.
    #[error("the way to pods {pod_cidr} of node `{node}` is WireGuard link `{link}`, and {fault}")]
    WireguardNextHop {
        /// The peer.
        node: NodeName,
        /// Its CIDR.
        pod_cidr: IpNet,
        /// The link.
        link: String,
        /// Why packets do not get through, or may not.
        fault: AllowedIpsFault,
    },
    /// Somebody else's route sits where ours belongs.
    #[error(
        "a route of protocol {protocol} holds {key}, where ours belongs, and is left alone: remove it, or set routes.metric"
    )]
    RouteClash {
        /// Where.
        key: RouteKey,
        /// Whose.
        protocol: u8,
    },
    /// Somebody added a leg to our route.
    #[error(
        "route {key} is a multipath set with a leg that is not ours, and is left alone: remove the other legs"
    )]
    MultipathClash {
        /// Where.
        key: RouteKey,
    },
    /// Somebody else's route wins over ours.
    #[error(
        "a route of protocol {protocol} to {key} wins over ours to {pod_cidr}: remove it, or set routes.metric below its metric"
    )]
    RouteShadowed {
        /// The peer's CIDR.
        pod_cidr: IpNet,
        /// The winner.
        key: RouteKey,
        /// Whose.
        protocol: u8,
    },
    /// The kernel does not use our route although it is installed.
    #[error(
        "packets to {pod_cidr} do not take our route: a look-up of {probed} finds {winner}; check `ip rule`, VPNs and VRFs"
    )]
    RouteNotEffective {
        /// The peer's CIDR.
        pod_cidr: IpNet,
        /// The address looked up.
        probed: IpAddr,
        /// What it found.
        winner: String,
    },
    /// More peers than the kernel keeps neighbours, or nearly.
    #[error(
        "{peers} nodes are reached directly by {family}, and this machine keeps {limit} neighbours, those of its pods among \
         them: set net.{}.neigh.default.gc_thresh3 to {wanted} and gc_thresh2 to {} where it boots; what finds no room \
         is lost",
        family.in_sysctls(), wanted / 2
    )]
    FewNeighbours {
        /// The family.
        family: Family,
        /// Addresses of peers on links that ask for them.
        peers: usize,
        /// `gc_thresh3`.
        limit: u32,
        /// What it should be.
        wanted: usize,
    },
    /// The address that pods' packets are to come to cannot be used yet.
    #[error(
        "this node's InternalIP {address} cannot be used: check that its link is up and that no other host has the address"
    )]
    InternalIpNotUsable {
        /// The address.
        address: IpAddr,
    },
    /// This node's own pod CIDR holds what is no pod.
    #[error(
        "this node's own pod CIDR {pod_cidr} {clash}, and is not guarded: choose pod CIDRs apart from the node's networks"
    )]
    OwnPodCidrClash {
        /// The CIDR.
        pod_cidr: IpNet,
        /// What is in it.
        clash: OwnClash,
    },
    /// The bridge is somebody else's.
    #[error(
        "setting bridge is `{bridge}`, which {fault}: name a bridge that is the pods' alone; the CNI configuration stays as it is"
    )]
    BridgeNotOfPods {
        /// Its name.
        bridge: String,
        /// Why.
        fault: BridgeFault,
    },
    /// The container runtime cannot be asked which pods it has.
    #[error(
        "the container runtime at {socket} cannot be asked which pods it has: {reason}; until then only pods whose links \
         are gone are cleared away"
    )]
    RuntimeSilent {
        /// Its socket.
        socket: String,
        /// Why.
        reason: String,
    },
    /// What the container runtime says of its pods cannot be true of this node's.
    #[error(
        "the container runtime knows {sandboxes} sandboxes and none of this node's pods, so that its word is not taken \
         on the {attachments} that it would have forgotten: check runtime.socket"
    )]
    RuntimeImplausible {
        /// Attachments that it would have forgotten.
        attachments: usize,
        /// Sandboxes that it listed.
        sandboxes: usize,
    },
    /// The API server does not let this agent write what it has to tell.
    #[error("the API server refuses this agent to {attempted}: {reason}")]
    ReportRefused {
        /// What was to be written.
        attempted: String,
        /// What it said, with the remedy.
        reason: String,
    },
    /// Pods of type `hostgw` hold addresses of which the classic chain's `host-local` knows nothing.
    #[error(
        "setting cni.chain is `classic`, and pods that type `hostgw` made hold {addresses} addresses, which host-local would \
         hand out again: drain the node; the CNI configuration stays as it is until then"
    )]
    ChainSwitchWaits {
        /// How many.
        addresses: usize,
    },
    /// No address of this node is one that the settings choose.
    #[error(
        "setting nodeAddress matches no address of this node: name links or prefixes that it has; annotation \
         hostgw.io/internal-ip of its Node stays as it is"
    )]
    NoChosenAddress,
    /// A pod's address is no longer lent to it by a DHCP server.
    #[error(
        "pod {holder}: its address {address} is no longer lent to it ({reason}); it keeps it all the same: delete the pod for a new address, or see to the DHCP server"
    )]
    LeaseLost {
        /// The pod, by namespace and name where they are known, else the attachment.
        holder: String,
        /// The pod, where it is known.
        pod: Option<Box<PodReference>>,
        /// Its address.
        address: IpAddr,
        /// What the servers said.
        reason: String,
    },
    /// Every address of a pod CIDR of this node is taken.
    #[error(
        "every address of this node's pod CIDR {pod_cidr} is taken by its {pods} pods: no more can start; lower the kubelet's \
         maxPods, or give nodes larger pod CIDRs"
    )]
    PodCidrExhausted {
        /// The CIDR.
        pod_cidr: IpNet,
        /// How many pods hold an address of it.
        pods: usize,
    },
    /// Of what forwards this node's pods' packets.
    #[error(transparent)]
    Forwarding(#[from] ForwardingCondition),
    /// Of what links carry.
    #[error(transparent)]
    Mtu(#[from] MtuCondition),
    /// Of pods on the node's LAN.
    #[error(transparent)]
    Lan(#[from] LanCondition),
    /// Pods could not be reached, so the node is not announced.
    #[error(
        "this node is not announced to the runtime: no pod starts here until what is said of its own pod CIDR, address and settings is put right"
    )]
    NotAnnounced,
}

impl Condition {
    /// The pod that it is about, rather than the node.
    #[must_use]
    pub fn pod(&self) -> Option<&PodReference> {
        match self {
            Self::LeaseLost { pod, .. } => pod.as_deref(),
            _ => None,
        }
    }
}
