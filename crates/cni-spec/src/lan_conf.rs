//! What only pods on the node's own LAN need (`mode` `l2` and `l2-routed`).

use link_name::LinkName;

use crate::error::CniError;
use crate::field::Field;
use crate::ipam_conf::IpamConf;
use crate::net_conf::Mode;

/// The keys here.
const KEYS: [&str; 5] = ["uplink", "isGateway", "promiscMode", "conflictProbeMs", "antiSpoof"];
/// The longest that a LAN is asked who has an address, in milliseconds: a runtime does not wait much longer for an ADD.
pub const MAX_PROBE_MS: u32 = 10_000;

/// What is said of the LAN. Elsewhere every key is refused: it would have no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanConf {
    /// `uplink`: the node's link to the LAN, on which it answers for pods in mode `l2-routed`; the link of the node's
    /// own address when absent.
    pub uplink: Option<LinkName>,
    /// `isGateway`: whether the pods' gateway is this node; else it is the LAN's router (mode `l2`).
    pub is_gateway: bool,
    /// `promiscMode`: the bridge hears every frame of the LAN (mode `l2`).
    pub promiscuous: bool,
    /// `conflictProbeMs`: for how long the LAN is asked whether somebody has an address, before a pod gets it; 0 does
    /// not ask.
    pub conflict_probe_ms: u32,
    /// `antiSpoof`: whether what a pod sends with another's address is dropped (mode `l2`; in others the agent sees to it).
    pub anti_spoof: bool,
}

impl Default for LanConf {
    fn default() -> Self {
        Self { uplink: None, is_gateway: true, promiscuous: false, conflict_probe_ms: 0, anti_spoof: false }
    }
}

impl LanConf {
    pub(crate) fn read(conf: &Field<'_, '_>, mode: Mode, ipam: &IpamConf) -> Result<Self, CniError> {
        let of_mode: &[&str] = match mode {
            Mode::Ptp | Mode::Bridge => &[],
            Mode::L2 => &["isGateway", "promiscMode", "conflictProbeMs", "antiSpoof"],
            Mode::L2Routed => &["uplink", "conflictProbeMs"],
        };
        for key in KEYS {
            if !of_mode.contains(&key) && conf.get(key)?.is_some() {
                return Err(conf.refuse_key_because(
                    key,
                    format!("has no effect in mode `{}`; remove it, or change `mode`", mode.as_str()),
                ));
            }
        }
        let uplink = conf.optional("uplink", |uplink| {
            LinkName::new(uplink.text()?).map_err(|error| uplink.refuse_because(error))
        })?;
        let is_gateway = conf.optional("isGateway", Field::boolean)?.unwrap_or(true);
        if !is_gateway && ipam.slaac.is_some() {
            return Err(conf.refuse_key_because(
                "isGateway",
                "false, but the gateway of addresses that are formed by `ipam.slaac` is this node; remove either",
            ));
        }
        if !is_gateway && ipam.range_sets.ranges().any(|range| range.given_gateway().is_none()) {
            return Err(conf.refuse_key_because(
                "isGateway",
                "false, but a range names no gateway; give the LAN's router as `gateway` of each range",
            ));
        }
        let probe = |field: Field<'_, '_>| field.number_as(0..=u64::from(MAX_PROBE_MS));
        Ok(Self {
            uplink,
            is_gateway,
            promiscuous: conf.optional("promiscMode", Field::boolean)?.unwrap_or(false),
            conflict_probe_ms: conf.optional("conflictProbeMs", probe)?.unwrap_or(0),
            anti_spoof: conf.optional("antiSpoof", Field::boolean)?.unwrap_or(false),
        })
    }
}
