//! The data of the CNI specification, versions 0.1.0 to 1.1.0: a call's environment, its network configuration,
//! its result and its errors. Bytes and look-ups come in, values and text go out; this crate never touches a file,
//! the environment, a socket or a clock (held by its `clippy.toml`).
//!
//! Every parser takes bytes or text and answers with a value that cannot be wrong, or with the [`CniError`] that the
//! runtime gets to see: a code of the specification, the path of the field, its value, and the remedy.
//!
//! ```
//! use cni_spec::{AttachResult, CallEnvironment, Command, IpConfig, NetConf};
//!
//! # fn main() -> Result<(), cni_spec::CniError> {
//! let stdin = br#"{
//!     "cniVersion": "1.0.0", "name": "pods", "type": "hostgw",
//!     "ipam": {"ranges": [[{"subnet": "10.244.1.0/24"}]]}
//! }"#;
//! let conf = NetConf::parse(stdin)?;
//! let environment = CallEnvironment::read(|variable| {
//!     let value = match variable {
//!         "CNI_COMMAND" => "ADD",
//!         "CNI_CONTAINERID" => "4f1d",
//!         "CNI_NETNS" => "/run/netns/4f1d",
//!         "CNI_IFNAME" => "eth0",
//!         _ => return None,
//!     };
//!     Some(value.to_owned())
//! })?;
//! assert_eq!(environment.command(), Command::Add);
//!
//! let pool = &conf.ipam.range_sets.as_slice()[0].ranges()[0];
//! let result = AttachResult {
//!     ips: vec![IpConfig {
//!         interface: None,
//!         address: "10.244.1.254/24".parse().expect("an address and its prefix"),
//!         gateway: Some(pool.gateway()),
//!     }],
//!     ..AttachResult::default()
//! };
//! assert_eq!(
//!     result.to_json(conf.base.cni_version)?,
//!     r#"{"cniVersion":"1.0.0","ips":[{"address":"10.244.1.254/24","gateway":"10.244.1.1"}]}"#
//! );
//! # Ok(())
//! # }
//! ```

mod address;
mod bandwidth_conf;
mod base_conf;
mod bridge_conf;
mod capability;
mod cni_args;
mod command;
mod dhcp_conf;
mod environment;
mod error;
mod excerpt;
mod field;
mod firewall_conf;
mod gc;
mod host_local_conf;
mod identifier;
mod ipam_conf;
mod lan_conf;
mod mac_address;
mod nearest;
mod net_conf;
mod portmap_conf;
mod range;
mod range_set;
mod result;
mod route;
mod rule_backend;
mod static_conf;
mod status_conf;
mod store_conf;
mod tuning_conf;
mod version;

pub use address::IpFamily;
pub use bandwidth_conf::BandwidthConf;
pub use base_conf::BaseConf;
pub use bridge_conf::{BridgeConf, DEFAULT_BRIDGE, InterfaceConf, ipam_type};
pub use capability::{
    Bandwidth, Capabilities, PortMapping, RateLimit, TransportProtocol, TransportProtocolError,
};
pub use cni_args::{CniArgs, MAX_ARGS_LEN};
pub use command::Command;
pub use dhcp_conf::{
    ClientId, DEFAULT_LEASE_DIR, DefaultRoute, DhcpConf, DhcpPluginConf, MAX_DHCP_TIMEOUT, ProvidedOption,
};
pub use environment::{AttachmentCall, CallEnvironment};
pub use error::{CniError, ErrorCode};
pub use field::MAX_INPUT_LEN;
pub use firewall_conf::{FirewallBackend, FirewallConf, IngressPolicy};
pub use gc::GcRequest;
pub use host_local_conf::{HOST_LOCAL_DATA_DIR, HostLocalConf, HostLocalStoreConf};
pub use identifier::{Attachment, ContainerId, IdentifierError, MAX_IDENTIFIER_LEN, NetworkName};
pub use ipam_conf::{DEFAULT_DATA_DIR, IpamConf};
pub use lan_conf::{LanConf, MAX_PROBE_MS};
pub use mac_address::{MacAddress, MacAddressError};
pub use net_conf::{ListenerCheck, MAX_MTU, MIN_MTU, MIN_MTU_V6, Mode, NetConf, NodeAddresses};
pub use portmap_conf::PortmapConf;
pub use range::{Range, RangeError};
pub use range_set::{RangeSet, RangeSetError, RangeSets};
pub use result::{AttachResult, Dns, Interface, IpConfig};
pub use route::Route;
pub use rule_backend::RuleBackend;
pub use static_conf::StaticConf;
pub use status_conf::StatusConf;
pub use store_conf::{LogConf, LogLevel, StoreConf};
pub use tuning_conf::TuningConf;
pub use version::{SpecVersion, version_report};
