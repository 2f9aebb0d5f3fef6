//! The document that stands for one lease.

use std::time::Duration;

use attachment::{Attachment, MacAddress, Netns, NetworkName, PodName};
use dhcp_client::{Identity, Terms};
use ipnet::Ipv4Net;
use kernel::KernelError;
use kernel::link::Link;
use link_name::LinkName;
use serde::{Deserialize, Serialize};

use super::line::{Line, Station};

/// Raised when a field changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// One lease, with all that it takes to prolong it and to give it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    pub(crate) schema_version: u32,
    /// The CNI network.
    pub network: NetworkName,
    /// Container and interface.
    pub attachment: Attachment,
    /// The Kubernetes pod, where the runtime said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// Its UID, where the runtime said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The hardware address that the server knows.
    pub mac: MacAddress,
    /// Option 61.
    pub(crate) client_id: Vec<u8>,
    /// Further options that are sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) provided: Vec<(u8, Vec<u8>)>,
    /// Options that are asked for.
    pub(crate) requested: Vec<u8>,
    /// Of which the address must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subnet: Option<Ipv4Net>,
    /// The link of the node on which the servers are, where pods hang on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_link: Option<LinkName>,
    /// The pod's own link, where it is on the servers' link itself; else the pod is behind `node_link`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_link: Option<PodLink>,
    /// The lease is not given back with its pod, for one of the same name to come.
    #[serde(default)]
    pub remember: bool,
    /// The server has confirmed it; else it has only been asked for.
    pub confirmed: bool,
    /// When it was, in seconds since 1970 by the node's clock.
    pub bound_at: u64,
    /// From whose Ethernet address the confirmation came: the server's, or that of the way there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_mac: Option<MacAddress>,
    /// What was granted.
    pub terms: Terms,
}

/// A pod's end of its link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodLink {
    /// The pod's network namespace.
    pub netns: Netns,
    /// The link's name there.
    pub link: LinkName,
}

impl Lease {
    pub(crate) fn new(
        (network, attachment): (&NetworkName, &Attachment),
        identity: &Identity,
        mac: MacAddress,
        terms: Terms,
    ) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            network: network.clone(),
            attachment: attachment.clone(),
            pod: None,
            pod_uid: None,
            mac,
            client_id: identity.client_id.clone(),
            provided: identity.provided.clone(),
            requested: identity.requested.clone(),
            subnet: identity.subnet,
            node_link: None,
            pod_link: None,
            remember: false,
            confirmed: false,
            bound_at: 0,
            server_mac: None,
            terms,
        }
    }

    /// Where its client is.
    #[must_use]
    pub const fn station(&self) -> Station {
        match (&self.node_link, &self.pod_link) {
            (Some(_), None) => Station::BehindNode,
            _ => Station::OnLink,
        }
    }

    /// Opens `link` to speak of this lease, by what carries the number `xid`.
    pub fn line(&self, link: &Link, xid: u32) -> Result<Line, KernelError> {
        Line::open(link, self.mac.octets(), self.station(), xid)
    }

    /// Who asks for it.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            mac: self.mac.octets(),
            client_id: self.client_id.clone(),
            provided: self.provided.clone(),
            requested: self.requested.clone(),
            subnet: self.subnet,
        }
    }

    /// The same lease, confirmed now.
    #[must_use]
    pub fn renewed(&self, terms: Terms, now: Duration, server_mac: [u8; 6]) -> Self {
        Self {
            terms,
            confirmed: true,
            bound_at: now.as_secs(),
            server_mac: MacAddress::new(server_mac).ok(),
            ..self.clone()
        }
    }

    /// The same lease, over: its server has taken it back.
    #[must_use]
    pub fn ended(&self) -> Self {
        let terms = Terms { lease_seconds: 1, renew_seconds: 1, rebind_seconds: 1, ..self.terms.clone() };
        Self { terms, bound_at: 0, ..self.clone() }
    }

    /// When it was confirmed, since 1970.
    #[must_use]
    pub const fn bound_at(&self) -> Duration {
        Duration::from_secs(self.bound_at)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads what [`Self::encode`] wrote; none in anything else. Public for the fuzzer.
    #[doc(hidden)]
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(bytes).ok().filter(|lease| lease.schema_version == SCHEMA_VERSION)
    }
}
