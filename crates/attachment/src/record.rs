//! The document that stands for one attachment, and how it lies in its file.

use std::net::IpAddr;

use ipnet::IpNet;
use link_name::LinkName;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::address_range::AddressRange;
use crate::claim::Claim;
use crate::host_port::HostPort;
use cni_spec::MacAddress;
use cni_spec::{Attachment, NetworkName};

/// One attachment: what it occupies, and how its pod is wired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The CNI network.
    pub network: NetworkName,
    /// Container and interface.
    pub attachment: Attachment,
    /// When the addresses were reserved, in seconds since 1970-01-01 UTC by the node's clock.
    pub created: u64,
    /// The pod's addresses, one for each range set, in the order of the sets.
    pub addresses: Vec<Allocation>,
    /// The node's ports that lead to the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
    /// What else must be known to check, restore and remove the attachment.
    pub wiring: Wiring,
}

/// An address, and where it was taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// The address with its subnet's prefix length.
    pub address: IpNet,
    /// The subnet's gateway, where the configuration or its default gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The range it belongs to.
    pub range: AddressRange,
}

/// How a pod is wired to its node. Everything here is decided before the first link is made, so that the record is
/// whole from the start; a link's index, which only the kernel knows, is found by the link's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wiring {
    /// The pod's network namespace.
    pub netns: Netns,
    /// `/proc/sys/kernel/random/boot_id` at the time of ADD.
    pub boot_id: String,
    /// The node's end of the veth pair.
    pub host_link: LinkName,
    /// Routed or bridged.
    pub mode: Mode,
    /// The pod's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_mac: Option<MacAddress>,
    /// The node's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_mac: Option<MacAddress>,
    /// The pod's MTU in bytes.
    pub mtu: u32,
    /// The node's addresses that pod routes prefer as source (`RTA_PREFSRC`), at most one a family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_addresses: Vec<IpAddr>,
    /// Routes inside the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pod_routes: Vec<PodRoute>,
    /// The addresses are a DHCP server's, and so are their gateways: they are not this node's to hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leased: bool,
    /// Present where the pod's traffic is shaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// The Kubernetes pod, where the runtime said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// The CNI result in the newest version that is spoken, for verbs that come without `prevResult`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<RenderedResult>,
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netns {
    /// `CNI_NETNS`.
    pub path: String,
    /// `st_dev` of that file: the kernel's nsfs.
    pub dev: u64,
    /// `st_ino` of that file, which names the namespace among those that live.
    pub inode: u64,
}

/// How a pod's packets reach the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By routes of the node to each pod's address.
    Ptp,
    /// By a port of this bridge.
    Bridge(LinkName),
    /// By a port of a bridge that leads to the node's LAN.
    L2 {
        /// The bridge, somebody else's.
        bridge: LinkName,
        /// The gateways that it holds for the pods, each with its subnet's prefix.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        gateways: Vec<IpNet>,
    },
    /// By routes of the node to each pod's address, for which it answers on its LAN.
    #[serde(rename = "l2-routed")]
    L2Routed {
        /// The node's link to the LAN.
        uplink: LinkName,
    },
}

impl Mode {
    /// The bridge of which the pod's link is a port, in the modes that have one.
    #[must_use]
    pub const fn bridge(&self) -> Option<&LinkName> {
        match self {
            Self::Bridge(bridge) | Self::L2 { bridge, .. } => Some(bridge),
            Self::Ptp | Self::L2Routed { .. } => None,
        }
    }
}

/// A route inside the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRoute {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; none where the destination is on link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

/// What shapes a pod's traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// The link through which the pod's own sending is shaped, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifb: Option<LinkName>,
}

/// A Kubernetes pod (`K8S_POD_NAMESPACE`, `K8S_POD_NAME`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A JSON document kept as it was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RenderedResult(Box<RawValue>);

impl RenderedResult {
    /// Renders `result`.
    pub fn new(result: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(result).map(Self)
    }

    /// Takes over a JSON document that is rendered already.
    pub fn from_json(json: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(json).map(Self)
    }

    /// The document's text.
    #[must_use]
    pub fn json(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for RenderedResult {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

impl Eq for RenderedResult {}

/// How far an attachment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Reserved; its ADD runs, or died.
    Adding,
    /// Its ADD succeeded.
    Attached,
}

/// A record as found on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// How far it has come.
    pub state: State,
    /// What it says.
    pub record: Record,
}

/// Why a file holds no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordFault {
    /// Nothing in it: torn by a power loss.
    #[error("file is empty")]
    Empty,
    /// It does not begin as a record of version 1 does.
    #[error("file is no attachment record of schema version 1")]
    Foreign,
    /// It ends early, or was overwritten.
    #[error("file is damaged: {0}")]
    Damaged(serde_json::Error),
    /// Its name says another attachment than its content.
    #[error("file names the attachment {0}")]
    Misnamed(Box<Attachment>),
}

// The state is the only thing that ever changes in a record. It stands at a fixed place and both words take the same
// room, padded outside the quotes where JSON allows white space, so that it is overwritten in place: the file's inode
// is what the claims are, and overwriting needs no room on the disk.
const HEAD_ADDING: &[u8; 38] = br#"{"schemaVersion":1,"state":"adding"  ,"#;
const HEAD_ATTACHED: &[u8; 38] = br#"{"schemaVersion":1,"state":"attached","#;
/// Where the state's word stands in the file, in bytes.
pub(crate) const STATE_OFFSET: u64 = 27;
/// What is written there once ADD has succeeded.
pub(crate) const STATE_ATTACHED: &[u8; 10] = br#""attached""#;
/// The first byte in which the two words differ; it alone is believed, so that a reader cannot meet a half-written
/// state.
const STATE_BYTE: usize = 29;

impl Record {
    /// The names that this record occupies.
    pub fn claims(&self) -> impl Iterator<Item = Claim> + '_ {
        let addresses = self.addresses.iter().map(|allocation| Claim::Address(allocation.address.addr()));
        addresses.chain(self.host_ports.iter().flat_map(HostPort::claims))
    }

    /// The gateways that the pod's bridge holds, each with its subnet's prefix.
    pub fn bridge_gateways(&self) -> impl Iterator<Item = IpNet> + '_ {
        // On the LAN, others are its router's, or the node's anyway.
        let of_lan = match &self.wiring.mode {
            Mode::L2 { gateways, .. } => Some(gateways.as_slice()),
            _ => None,
        };
        let own = self.addresses.iter().filter(move |_| !self.wiring.leased && of_lan.is_none());
        own.filter_map(|held| IpNet::new(held.gateway?, held.address.prefix_len()).ok())
            .chain(of_lan.unwrap_or_default().iter().copied())
    }

    /// The file's bytes, in state [`State::Adding`]. Public for the fuzzer.
    #[doc(hidden)]
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = Vec::with_capacity(2048);
        bytes.extend_from_slice(HEAD_ADDING);
        // The body's opening brace takes the place of the head's last comma until the head is put in front of it.
        let brace = bytes.len() - 1;
        bytes.truncate(brace);
        serde_json::to_writer(&mut bytes, self)?;
        bytes[brace] = b',';
        bytes.push(b'\n');
        Ok(bytes)
    }
}

impl Entry {
    /// Reads a record's file, as [`Record::encode`] wrote it. Takes the bytes over because it puts the body's brace back
    /// into them. Public for the fuzzer; everybody else asks a store.
    #[doc(hidden)]
    pub fn decode(mut bytes: Vec<u8>) -> Result<Self, RecordFault> {
        if bytes.is_empty() {
            return Err(RecordFault::Empty);
        }
        let before_state = &HEAD_ADDING[..STATE_BYTE];
        let brace = HEAD_ADDING.len() - 1;
        let state = match bytes.get(STATE_BYTE) {
            Some(byte) if *byte == HEAD_ADDING[STATE_BYTE] => State::Adding,
            Some(byte) if *byte == HEAD_ATTACHED[STATE_BYTE] => State::Attached,
            _ => return Err(RecordFault::Foreign),
        };
        if !bytes.starts_with(before_state) || bytes.get(brace) != Some(&b',') {
            return Err(RecordFault::Foreign);
        }
        bytes[brace] = b'{';
        let record = serde_json::from_slice(&bytes[brace..]).map_err(RecordFault::Damaged)?;
        Ok(Self { state, record })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> Record {
        Record {
            network: NetworkName::new("k8s").unwrap(),
            attachment: "0123abcd:eth0".parse().unwrap(),
            created: 1_700_000_000,
            addresses: vec![Allocation {
                address: "10.244.1.5/24".parse().unwrap(),
                gateway: Some("10.244.1.1".parse().unwrap()),
                range: "10.244.1.1-10.244.1.254".parse().unwrap(),
            }],
            host_ports: serde_json::from_str(r#"[{"protocol":"tcp","hostPort":8080,"containerPort":80}]"#)
                .unwrap(),
            wiring: Wiring {
                netns: Netns { path: "/run/netns/p".to_owned(), dev: 4, inode: 4_026_532_281 },
                boot_id: "6e1b".to_owned(),
                host_link: LinkName::new("hgw0123").unwrap(),
                mode: Mode::Bridge(LinkName::new("cni0").unwrap()),
                pod_mac: Some("02:00:00:00:00:01".parse().unwrap()),
                host_mac: None,
                mtu: 1500,
                node_addresses: vec!["192.0.2.1".parse().unwrap()],
                leased: false,
                pod_routes: vec![PodRoute { dst: "0.0.0.0/0".parse().unwrap(), gw: None }],
                bandwidth: Some(Bandwidth { ifb: None }),
                pod: Some(PodName { namespace: "default".to_owned(), name: "web-0".to_owned() }),
                result: Some(RenderedResult::from_json(r#"{"cniVersion": "1.1.0"}"#.to_owned()).unwrap()),
            },
        }
    }

    fn attached(mut bytes: Vec<u8>) -> Vec<u8> {
        let at = usize::try_from(STATE_OFFSET).unwrap();
        bytes[at..at + STATE_ATTACHED.len()].copy_from_slice(STATE_ATTACHED);
        bytes
    }

    #[test]
    fn both_states_are_plain_json_of_one_length() {
        let adding = record().encode().unwrap();
        let attached = attached(adding.clone());
        assert!(attached.starts_with(HEAD_ATTACHED));
        for (bytes, state) in [(adding, "adding"), (attached, "attached")] {
            let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!((&document["schemaVersion"], &document["state"]), (&1.into(), &state.into()));
            assert_eq!(document["attachment"]["containerID"], "0123abcd");
            assert_eq!(document["wiring"]["mode"]["bridge"], "cni0");
            assert_eq!(document["wiring"]["result"]["cniVersion"], "1.1.0");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = record().encode().unwrap();
        assert_eq!(Entry::decode(bytes.clone()).unwrap(), Entry { state: State::Adding, record: record() });
        assert_eq!(
            Entry::decode(attached(bytes)).unwrap(),
            Entry { state: State::Attached, record: record() }
        );
    }

    #[test]
    fn a_state_caught_half_written_reads_as_one_of_the_two() {
        let bytes = record().encode().unwrap();
        for written in 0..=STATE_ATTACHED.len() {
            let at = usize::try_from(STATE_OFFSET).unwrap();
            let mut torn = bytes.clone();
            torn[at..at + written].copy_from_slice(&STATE_ATTACHED[..written]);
            assert_eq!(Entry::decode(torn).unwrap().record, record());
        }
    }

    #[test]
    fn a_record_cut_short_anywhere_is_refused() {
        let bytes = record().encode().unwrap();
        for length in 0..bytes.len() - 1 {
            assert!(Entry::decode(bytes[..length].to_vec()).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_record_of_another_schema_version_is_refused() {
        let text = String::from_utf8(record().encode().unwrap()).unwrap();
        let newer = text.replace(r#""schemaVersion":1"#, r#""schemaVersion":2"#);
        assert!(matches!(Entry::decode(newer.into_bytes()), Err(RecordFault::Foreign)));
    }

    proptest! {
        #[test]
        fn damage_never_makes_the_reader_panic(at in 0..600usize, byte: u8) {
            let mut bytes = record().encode().unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _read = Entry::decode(bytes);
        }
    }
}
