//! What a runtime asks for at the time of a call: host ports, bandwidth, addresses (`runtimeConfig` and `args.cni`).

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address::parse_ip_maybe_prefixed;
use crate::error::CniError;
use crate::excerpt::quoted;
use crate::field::Field;
use crate::mac_address::MacAddress;

const MAX_PORT_MAPPINGS: usize = 4096;
const MAX_IPS: usize = 64;

/// Everything that was asked for. Source: CNI CONVENTIONS.md.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Host ports; entries with host port 0, which mean none, are left out.
    pub port_mappings: Vec<PortMapping>,
    /// Limits of the rate, both ways.
    pub bandwidth: Bandwidth,
    /// Addresses, from `args.cni.ips` and then `runtimeConfig.ips`, each once. Prefixes are dropped.
    pub ips: Vec<IpAddr>,
    /// The interface's address, from `runtimeConfig.mac` or else `args.cni.mac`.
    pub mac: Option<MacAddress>,
}

/// A port of the host that leads to a port of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortMapping {
    /// The host's port, 1 to 65535.
    pub host_port: u16,
    /// The pod's port, 1 to 65535.
    pub container_port: u16,
    /// The transport.
    pub protocol: TransportProtocol,
    /// Only this address of the host. `0.0.0.0` and `::` are all addresses of that family; absent, all of both.
    pub host_ip: Option<IpAddr>,
}

/// A transport with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportProtocol {
    /// TCP, the default.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl TransportProtocol {
    /// The name in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A text that names none of the protocols.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is no protocol with ports: give tcp, udp or sctp", quoted(.0))]
pub struct TransportProtocolError(String);

impl FromStr for TransportProtocol {
    type Err = TransportProtocolError;
    fn from_str(text: &str) -> Result<Self, TransportProtocolError> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|known| text.eq_ignore_ascii_case(known.as_str()))
            .ok_or_else(|| TransportProtocolError(text.to_owned()))
    }
}

impl fmt::Display for TransportProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Limits as seen by the pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// Of what the pod receives.
    pub ingress: Option<RateLimit>,
    /// Of what the pod sends.
    pub egress: Option<RateLimit>,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Bits per second, at least 8: the kernel counts whole bytes.
    pub rate: u64,
    /// The bucket's size in bits, at least 8 and below 8 · (2³² - 1): the kernel keeps bytes in 32 bits.
    pub burst: u64,
}

impl Capabilities {
    pub(crate) fn read(conf: &Field<'_, '_>) -> Result<Self, CniError> {
        let mut capabilities =
            Self { ips: read_wished_ips(conf)?, mac: read_wished_mac(conf)?, ..Self::default() };
        if let Some(runtime) = conf.get("runtimeConfig")? {
            capabilities.port_mappings = read_port_mappings(&runtime)?;
            capabilities.bandwidth =
                runtime.optional("bandwidth", |field| Bandwidth::read(&field))?.unwrap_or_default();
        }
        Ok(capabilities)
    }
}

/// The addresses of `args.cni.ips` and then of `runtimeConfig.ips`, each once.
pub(crate) fn read_wished_ips(conf: &Field<'_, '_>) -> Result<Vec<IpAddr>, CniError> {
    let mut ips = Vec::new();
    if let Some(args) = conf.get("args")?
        && let Some(cni) = args.get("cni")?
    {
        ips = read_ips(&cni)?;
    }
    if let Some(runtime) = conf.get("runtimeConfig")? {
        for ip in read_ips(&runtime)? {
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
    }
    Ok(ips)
}

/// The interface's address, from `runtimeConfig.mac` or else `args.cni.mac`.
pub(crate) fn read_wished_mac(conf: &Field<'_, '_>) -> Result<Option<MacAddress>, CniError> {
    let mut wished = None;
    if let Some(args) = conf.get("args")?
        && let Some(cni) = args.get("cni")?
    {
        wished = cni.optional("mac", |mac| read_mac(&mac))?.flatten();
    }
    if let Some(runtime) = conf.get("runtimeConfig")?
        && let Some(mac) = runtime.optional("mac", |mac| read_mac(&mac))?.flatten()
    {
        wished = Some(mac);
    }
    Ok(wished)
}

fn read_ips(parent: &Field<'_, '_>) -> Result<Vec<IpAddr>, CniError> {
    let mut ips: Vec<IpAddr> = parent.each("ips", MAX_IPS, |field| {
        let remedy = "give an IPv4 or IPv6 address, with or without a prefix";
        parse_ip_maybe_prefixed(field.text()?).ok_or_else(|| field.refuse(remedy))
    })?;
    let mut seen = HashSet::new();
    ips.retain(|ip| seen.insert(*ip));
    Ok(ips)
}

/// An empty text is no wish, as for the reference plugins.
fn read_mac(field: &Field<'_, '_>) -> Result<Option<MacAddress>, CniError> {
    match field.text()? {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|error| field.refuse_because(error)),
    }
}

fn read_port_mappings(runtime: &Field<'_, '_>) -> Result<Vec<PortMapping>, CniError> {
    let mut seen = HashSet::new();
    let mappings = runtime.each("portMappings", MAX_PORT_MAPPINGS, |field| {
        let Some(mapping) = PortMapping::read(&field)? else {
            return Ok(None);
        };
        if !seen.insert((mapping.protocol, mapping.host_ip, mapping.host_port)) {
            return Err(field.refuse_key_because(
                "hostPort",
                format!("{} {} is mapped twice; remove one", mapping.protocol, mapping.host_port),
            ));
        }
        Ok(Some(mapping))
    })?;
    Ok(mappings.into_iter().flatten().collect())
}

impl PortMapping {
    /// `None` for host port 0, which maps nothing.
    fn read(field: &Field<'_, '_>) -> Result<Option<Self>, CniError> {
        field.only(&["hostPort", "containerPort", "protocol", "hostIP"])?;
        let remedy = "give the node's port, or 0 for none";
        let host_port = field.required("hostPort", remedy, |port| port.number_as(0..=65_535))?;
        if host_port == 0 {
            return Ok(None);
        }
        let container_port =
            field.required("containerPort", "give the pod's port", |port| port.number_as(1..=65_535))?;
        let protocol = field.optional("protocol", |protocol| {
            let text = protocol.text()?;
            match text {
                "" => Ok(TransportProtocol::Tcp),
                text => text.parse().map_err(|_| protocol.refuse("give tcp, udp or sctp")),
            }
        })?;
        let host_ip = field.optional("hostIP", |ip| {
            if ip.text()?.is_empty() {
                return Ok(None);
            }
            let address = ip.ip()?;
            if address.is_multicast() {
                return Err(ip.refuse("give an address of the host, or leave it out"));
            }
            if address.is_ipv6() && address.is_loopback() {
                return Err(ip.refuse(
                    "the kernel translates nothing that is sent to ::1; give another address of the host",
                ));
            }
            Ok(Some(address))
        })?;
        Ok(Some(Self {
            host_port,
            container_port,
            protocol: protocol.unwrap_or(TransportProtocol::Tcp),
            host_ip: host_ip.flatten(),
        }))
    }
}

impl Bandwidth {
    const KEYS: [&str; 4] = ["ingressRate", "ingressBurst", "egressRate", "egressBurst"];

    /// Reads limits that stand beside other keys; none where there is not one of them.
    pub(crate) fn read_beside(field: &Field<'_, '_>) -> Result<Option<Self>, CniError> {
        for key in Self::KEYS {
            if field.get(key)?.is_some() {
                return Self::read_limits(field).map(Some);
            }
        }
        Ok(None)
    }

    fn read(field: &Field<'_, '_>) -> Result<Self, CniError> {
        field.only(&Self::KEYS)?;
        Self::read_limits(field)
    }

    fn read_limits(field: &Field<'_, '_>) -> Result<Self, CniError> {
        Ok(Self {
            ingress: RateLimit::read(field, "ingressRate", "ingressBurst")?,
            egress: RateLimit::read(field, "egressRate", "egressBurst")?,
        })
    }
}

impl RateLimit {
    /// `None` where both are absent or 0, which means no limit.
    fn read(
        field: &Field<'_, '_>,
        rate_key: &'static str,
        burst_key: &'static str,
    ) -> Result<Option<Self>, CniError> {
        let max_burst = u64::from(u32::MAX) * 8 - 1;
        let rate = field.optional(rate_key, |rate| rate.number(0..=u64::MAX))?.unwrap_or(0);
        let burst = field.optional(burst_key, |burst| burst.number(0..=max_burst))?.unwrap_or(0);
        let whole_byte = |key, bits| {
            if bits >= 8 {
                return Ok(());
            }
            Err(field.refuse_key_because(key, format!("{bits} bits are less than a byte; give at least 8")))
        };
        match (rate, burst) {
            (0, 0) => Ok(None),
            (0, _) => {
                Err(field
                    .missing(rate_key, format!("give it together with `{burst_key}`, in bits per second")))
            }
            (_, 0) => Err(field.missing(burst_key, format!("give it together with `{rate_key}`, in bits"))),
            (rate, burst) => {
                whole_byte(rate_key, rate)?;
                whole_byte(burst_key, burst)?;
                Ok(Some(Self { rate, burst }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(runtime: &Value) -> Result<Capabilities, CniError> {
        Capabilities::read(&Field::conf(&json!({"runtimeConfig": runtime})))
    }

    #[test]
    fn what_containerd_passes_is_read() {
        let capabilities = read(&json!({
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": ""},
                {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1"},
                {"hostPort": 0, "containerPort": 0, "protocol": ""},
            ],
            "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 2_147_483_647, "egressRate": 0, "egressBurst": 0},
            "ips": ["10.1.2.3/24", "fd00::3"], "mac": "02:00:00:00:00:01",
        }))
        .unwrap();
        insta::assert_debug_snapshot!(capabilities);
    }

    #[test]
    fn what_containerd_passes_in_its_own_spelling_is_read_the_same() {
        let capabilities = read(&json!({
            "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": ""}],
            "bandwidth": {"IngressRate": 1_000_000, "IngressBurst": 2_147_483_647, "EgressRate": 0, "EgressBurst": 0},
        }))
        .unwrap();
        let (port, ingress) = (capabilities.port_mappings[0], capabilities.bandwidth.ingress.unwrap());
        assert_eq!((port.host_port, port.container_port, port.host_ip), (8080, 80, None));
        assert_eq!((ingress.rate, ingress.burst), (1_000_000, 2_147_483_647));
    }

    #[test]
    fn a_missing_protocol_is_tcp() {
        let capabilities = read(&json!({"portMappings": [{"hostPort": 1, "containerPort": 2}]})).unwrap();
        assert_eq!(capabilities.port_mappings[0].protocol, TransportProtocol::Tcp);
    }

    #[test]
    fn args_come_first_and_the_capability_decides_the_mac() {
        let conf = json!({
            "args": {"cni": {"ips": ["10.1.2.3", "10.1.2.3/24"], "mac": "02:00:00:00:00:01", "labels": []}},
            "runtimeConfig": {"ips": ["fd00::3", "10.1.2.3"], "mac": "02:00:00:00:00:02"},
        });
        let capabilities = Capabilities::read(&Field::conf(&conf)).unwrap();
        assert_eq!(capabilities.ips, ["10.1.2.3", "fd00::3"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert_eq!(capabilities.mac.unwrap().octets()[5], 2);
    }

    #[test]
    fn the_same_port_of_another_address_or_protocol_is_another() {
        let mappings = json!([
            {"hostPort": 53, "containerPort": 1, "protocol": "tcp"},
            {"hostPort": 53, "containerPort": 1, "protocol": "udp"},
            {"hostPort": 53, "containerPort": 1, "protocol": "udp", "hostIP": "192.0.2.1"},
        ]);
        assert_eq!(read(&json!({"portMappings": mappings})).unwrap().port_mappings.len(), 3);
    }

    #[test]
    fn each_wrong_wish_is_named() {
        let port = |mapping: Value| read(&json!({"portMappings": [mapping]})).unwrap_err().msg;
        let one = json!({"hostPort": 80, "containerPort": 80});
        let bandwidth = |limits: Value| read(&json!({"bandwidth": limits})).unwrap_err().msg;
        insta::assert_debug_snapshot!([
            read(&json!([])).unwrap_err().msg,
            port(json!({"hostPort": 65_536})),
            port(json!({"hostPort": -1})),
            port(json!({"hostPort": "80"})),
            port(json!({"hostPort": 80})),
            port(json!({"containerPort": 80})),
            port(json!({"hostPort": 80, "containerPort": 80, "hostIp6": "::"})),
            bandwidth(json!({"ingressRat": 1000, "ingressBurst": 1000})),
            port(json!({"hostPort": 80, "containerPort": 0})),
            port(json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"})),
            port(json!({"hostPort": 80, "containerPort": 80, "hostIP": "localhost"})),
            port(json!({"hostPort": 80, "containerPort": 80, "hostIP": "224.0.0.1"})),
            read(&json!({"portMappings": [one, one]})).unwrap_err().msg,
            read(&json!({"portMappings": vec![one; 4097]})).unwrap_err().msg,
            bandwidth(json!({"ingressRate": 1000})),
            bandwidth(json!({"egressBurst": 1000})),
            bandwidth(json!({"egressRate": 7, "egressBurst": 1000})),
            bandwidth(json!({"egressRate": 1000, "egressBurst": 34_359_738_360_u64})),
            bandwidth(json!({"egressRate": 1.5, "egressBurst": 1000})),
            read(&json!({"ips": ["10.1.2.3/33"]})).unwrap_err().msg,
            read(&json!({"ips": "10.1.2.3"})).unwrap_err().msg,
            read(&json!({"mac": "02:00"})).unwrap_err().msg,
        ]);
    }
}
