//! The configuration of `type: hostgw`.

mod agreement;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::IpNet;
use link_name::LinkName;
use serde::{Deserialize, Serialize};

use crate::address::IpFamily;
use crate::base_conf::{BaseConf, parse_conf};
use crate::bridge_conf::DEFAULT_BRIDGE;
use crate::capability::Capabilities;
use crate::cni_args::CniArgs;
use crate::error::CniError;
use crate::excerpt::quoted;
use crate::field::Field;
use crate::ipam_conf::{IpamConf, MAX_ROUTES};
use crate::lan_conf::LanConf;
use crate::mac_address::MacAddress;
use crate::range_set::RangeSets;
use crate::result::Dns;
use crate::route::Route;
use crate::store_conf::LogConf;

/// The least that a link of IPv4 carries, in bytes (RFC 791).
pub const MIN_MTU: u32 = 68;
/// The least that the kernel lets IPv6 run with, in bytes (RFC 8200).
pub const MIN_MTU_V6: u32 = 1280;
/// The most that a link of Ethernet takes, in bytes (`ETH_MAX_MTU`).
pub const MAX_MTU: u32 = 65_535;

/// The keys at the top: this plugin's, the specification's, and what other plugins' users write by habit.
const KEYS: [&str; 34] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "prevResult",
    "capabilities",
    "runtimeConfig",
    "args",
    "ipMasq",
    "keyring",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
    "plugins",
    "mode",
    "bridge",
    "mtu",
    "ipam",
    "routes",
    "dns",
    "hairpin",
    "hairpinMode",
    "logFile",
    "logLevel",
    "nodeAddresses",
    "readyFile",
    "hostPortListenerCheck",
    "localhostPorts",
    "strictStatus",
    "uplink",
    "isGateway",
    "promiscMode",
    "conflictProbeMs",
    "antiSpoof",
];
/// The keys of `runtimeConfig` for the capabilities that this plugin has.
const RUNTIME_KEYS: [&str; 5] = ["portMappings", "bandwidth", "ips", "mac", "ipRanges"];

/// Everything that ADD and CHECK are told. Keys at the top that this plugin does not know are ignored, because
/// runtimes add their own; those it knows are strict, and so are all keys within them.
#[derive(Clone, Debug, PartialEq)]
pub struct NetConf {
    /// The common part.
    pub base: BaseConf,
    /// `mode`.
    pub mode: Mode,
    /// `bridge`: the bridge that pods join in [`Mode::Bridge`] and [`Mode::L2`].
    pub bridge: LinkName,
    /// What concerns the node's LAN.
    pub lan: LanConf,
    /// `mtu`, in bytes; `None` takes the uplink's.
    pub mtu: Option<u32>,
    /// `ipam`.
    pub ipam: IpamConf,
    /// The pod's routes: those of `ipam` and those beside it, or else a default route for each family.
    pub routes: Vec<Route>,
    /// `dns`, passed on in the result.
    pub dns: Dns,
    /// `hairpin`: whether a pod reaches itself through its own host port.
    pub hairpin: bool,
    /// `logFile` and `logLevel`.
    pub log: LogConf,
    /// `nodeAddresses`, which the agent writes: the source of what the node itself sends to pods.
    pub node_addresses: NodeAddresses,
    /// `readyFile`: while it does not exist, STATUS says that the plugin is not available.
    pub ready_file: Option<PathBuf>,
    /// `hostPortListenerCheck`.
    pub host_port_listener_check: ListenerCheck,
    /// `localhostPorts`: whether host ports are open on the node's 127.0.0.1 as well.
    pub localhost_ports: bool,
    /// `runtimeConfig` and `args.cni`.
    pub capabilities: Capabilities,
    /// What is accepted and probably not what was meant, each a sentence: keys that are nearly one of ours.
    pub doubts: Vec<String>,
}

/// How pods hang on their node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Each pod on a link of its own, routed.
    #[default]
    Ptp,
    /// All pods on one bridge.
    Bridge,
    /// All pods on a bridge that has the node's link to its LAN as a port, with addresses of that LAN.
    L2,
    /// Each pod on a link of its own, with an address of the node's LAN, where the node answers for it.
    L2Routed,
}

impl Mode {
    /// As `mode` spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ptp => "ptp",
            Self::Bridge => "bridge",
            Self::L2 => "l2",
            Self::L2Routed => "l2-routed",
        }
    }

    /// Whether pods are hosts of the node's own LAN.
    #[must_use]
    pub const fn is_of_lan(self) -> bool {
        matches!(self, Self::L2 | Self::L2Routed)
    }

    /// Whether each pod has a link of its own, behind which the node routes.
    #[must_use]
    pub const fn is_routed(self) -> bool {
        matches!(self, Self::Ptp | Self::L2Routed)
    }
}

/// What becomes of a host port on which a socket of the host listens already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerCheck {
    /// ADD fails.
    #[default]
    Refuse,
    /// ADD goes on and logs it.
    Warn,
    /// Nobody looks.
    Off,
}

impl ListenerCheck {
    /// As `hostPortListenerCheck` spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Warn => "warn",
            Self::Off => "off",
        }
    }
}

/// The node's internal address, by family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    /// IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl NodeAddresses {
    /// The address of a family.
    #[must_use]
    pub fn of(&self, family: IpFamily) -> Option<IpAddr> {
        match family {
            IpFamily::V4 => self.v4.map(IpAddr::V4),
            IpFamily::V6 => self.v6.map(IpAddr::V6),
        }
    }
}

impl NetConf {
    /// Reads what the runtime wrote to stdin.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let (conf, prev_result) = parse_conf(stdin)?;
        let conf = Field::conf(&conf);
        let base = BaseConf::read(&conf, prev_result)?;
        let modes = [Mode::Ptp, Mode::Bridge, Mode::L2, Mode::L2Routed].map(|mode| (mode.as_str(), mode));
        let mode = conf.optional("mode", |mode| mode.choice(&modes))?.unwrap_or_default();
        let (ipam, mut routes) = IpamConf::read(&conf, base.cni_version)?;
        if mode != Mode::Ptp {
            agreement::fits_segment(&conf, mode, &ipam)?;
        }
        agreement::dhcp(&conf, mode, &ipam)?;
        agreement::slaac(&conf, mode, &ipam)?;
        routes.extend(conf.each("routes", MAX_ROUTES, |route| Route::read_wish(&route))?);
        agreement::routes(&conf, &routes, &ipam)?;
        agreement::on_link(&conf, mode, &routes, &ipam)?;
        if routes.is_empty() {
            // A DHCP server names the routes of its family.
            let of_server = |family| ipam.dhcp.is_some() && family == IpFamily::V4;
            let families = IpFamily::BOTH.into_iter().filter(|family| ipam.has_family(*family));
            let families = families.filter(|family| !of_server(*family));
            routes = families.map(|family| Route::new(family.default_route(), None)).collect();
        }
        let capabilities = Capabilities::read(&conf)?;
        agreement::host_ips(&conf, &capabilities, &ipam)?;
        let localhost_ports = read_localhost_ports(&conf, mode)?;
        agreement::loopback(&conf, &capabilities, localhost_ports)?;
        let checks = [ListenerCheck::Refuse, ListenerCheck::Warn, ListenerCheck::Off]
            .map(|check| (check.as_str(), check));
        Ok(Self {
            base,
            mode,
            bridge: read_bridge(&conf)?,
            lan: LanConf::read(&conf, mode, &ipam)?,
            mtu: read_mtu(&conf, &ipam)?,
            ipam,
            routes,
            dns: conf.optional("dns", |dns| read_dns(&dns))?.unwrap_or_default(),
            hairpin: conf.optional("hairpin", Field::boolean)?.unwrap_or(true),
            log: LogConf::read(&conf)?,
            node_addresses: read_node_addresses(&conf)?,
            ready_file: conf.optional("readyFile", Field::absolute_path)?,
            host_port_listener_check: conf
                .optional("hostPortListenerCheck", |check| check.choice(&checks))?
                .unwrap_or_default(),
            localhost_ports,
            capabilities,
            doubts: doubts(&conf)?,
        })
    }

    /// The configuration with a range in the place of `ipam.slaac`.
    #[must_use]
    pub fn with_ranges_of_other_families(&self, sets: &RangeSets) -> Self {
        let mut conf = self.clone();
        conf.ipam.range_sets = conf.ipam.range_sets.and_of_other_families(sets);
        conf
    }

    /// The configuration with what a DHCP server granted, beside the ranges of other families. Routes that the
    /// configuration names go before those of the server.
    #[must_use]
    pub fn leased(&self, set: RangeSets, routes: Vec<Route>, dns: Dns, mac: MacAddress) -> Self {
        let mut conf = self.clone();
        conf.ipam.range_sets = set.and_of_other_families(&self.ipam.range_sets);
        let named: Vec<IpNet> = conf.routes.iter().map(|route| route.dst).collect();
        conf.routes.extend(routes.into_iter().filter(|route| !named.contains(&route.dst)));
        if conf.dns.is_empty() {
            conf.dns = dns;
        }
        conf.capabilities.mac = Some(mac);
        conf
    }

    /// Every address that was requested, by `CNI_ARGS` first, as `host-local` orders them.
    #[must_use]
    pub fn requested_ips(&self, args: &CniArgs) -> Vec<IpAddr> {
        let mut ips = args.ips.clone();
        ips.extend(self.capabilities.ips.iter().filter(|ip| !args.ips.contains(ip)));
        ips
    }

    /// The interface address that was requested; the configuration goes before `CNI_ARGS`.
    #[must_use]
    pub fn requested_mac(&self, args: &CniArgs) -> Option<MacAddress> {
        self.capabilities.mac.or(args.mac)
    }
}

fn read_dns(dns: &Field<'_, '_>) -> Result<Dns, CniError> {
    let read = Dns::read(dns)?;
    dns.only(&["nameservers", "domain", "search", "options"])?;
    Ok(read)
}

/// Foreign keys are not ours to refuse, but one that is nearly ours is worth a word.
fn doubts(conf: &Field<'_, '_>) -> Result<Vec<String>, CniError> {
    const SHOWN: usize = 8;
    let doubt = |(key, meant): (&str, &str)| {
        format!("key {} is not known and ignored: was `{meant}` meant?", quoted(key))
    };
    let mut misses = conf.near_misses(&KEYS);
    if let Some(runtime) = conf.get("runtimeConfig")? {
        misses.extend(runtime.near_misses(&RUNTIME_KEYS));
    }
    Ok(misses.into_iter().take(SHOWN).map(doubt).collect())
}

fn read_bridge(conf: &Field<'_, '_>) -> Result<LinkName, CniError> {
    let given = conf.optional("bridge", |bridge| {
        LinkName::new(bridge.text()?).map_err(|error| bridge.refuse_because(error))
    })?;
    match given {
        Some(name) => Ok(name),
        None => LinkName::new(DEFAULT_BRIDGE).map_err(|error| conf.refuse_key_because("bridge", error)),
    }
}

fn read_mtu(conf: &Field<'_, '_>, ipam: &IpamConf) -> Result<Option<u32>, CniError> {
    let Some(field) = conf.get("mtu")? else {
        return Ok(None);
    };
    if field.number(0..=u64::from(MAX_MTU)) == Ok(0) {
        return Ok(None);
    }
    let mtu = field.number_as(u64::from(MIN_MTU)..=u64::from(MAX_MTU))?;
    if mtu < MIN_MTU_V6 && ipam.has_family(IpFamily::V6) {
        return Err(
            field.refuse(format!("IPv6 needs {MIN_MTU_V6} at least; raise it, or remove the IPv6 ranges"))
        );
    }
    Ok(Some(mtu))
}

fn read_node_addresses(conf: &Field<'_, '_>) -> Result<NodeAddresses, CniError> {
    let mut addresses = NodeAddresses::default();
    conf.each("nodeAddresses", 2, |field| {
        let address = field.ip()?;
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err(field.refuse("give the node's internal address, which its peers reach"));
        }
        let before = match address {
            IpAddr::V4(v4) => addresses.v4.replace(v4).is_some(),
            IpAddr::V6(v6) => addresses.v6.replace(v6).is_some(),
        };
        if before {
            return Err(field.refuse("give one address a family"));
        }
        Ok(())
    })?;
    Ok(addresses)
}

/// The bridge may be somebody else's, and all on it would be let in by what one pod's own link can be told.
fn read_localhost_ports(conf: &Field<'_, '_>, mode: Mode) -> Result<bool, CniError> {
    conf.optional("localhostPorts", |field| match (field.boolean()?, mode) {
        (true, Mode::Bridge | Mode::L2) => {
            Err(field.refuse("host ports on localhost need mode ptp; remove the key, or change `mode`"))
        }
        (wanted, _) => Ok(wanted),
    })
    .map(Option::unwrap_or_default)
}
