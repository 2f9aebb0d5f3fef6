//! The configurations of the plugins `bridge` and `ptp`, as their documentation has it. Keys that are not known are
//! ignored, as the reference does: configurations that work there must work here.

use link_name::LinkName;

use crate::base_conf::{BaseConf, parse_conf};
use crate::capability::read_wished_mac;
use crate::cni_args::CniArgs;
use crate::error::CniError;
use crate::field::Field;
use crate::mac_address::MacAddress;
use crate::net_conf::MAX_MTU;
use crate::result::Dns;
use crate::rule_backend::RuleBackend;

/// The pods' bridge where none is named, the reference's and ours.
pub const DEFAULT_BRIDGE: &str = "cni0";
const MAX_VLAN: u64 = 4094;
/// More items than there are VLANs say nothing new.
const MAX_TRUNK_ITEMS: usize = 4094;

/// What `bridge` and `ptp` have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct InterfaceConf {
    /// The common part.
    pub base: BaseConf,
    /// `mtu`, in bytes; `None` is the kernel's.
    pub mtu: Option<u32>,
    /// `ipMasq`.
    pub ip_masq: bool,
    /// `ipMasqBackend`.
    pub ip_masq_backend: Option<RuleBackend>,
    /// `ipam.type`: which plugin gives addresses; `None` where there are to be none.
    pub ipam: Option<String>,
    /// `dns`, which goes before that of the IPAM plugin.
    pub dns: Dns,
}

/// What ADD and CHECK of `bridge` are told.
#[derive(Clone, Debug, PartialEq)]
pub struct BridgeConf {
    /// What it shares with `ptp`.
    pub interface: InterfaceConf,
    /// `bridge`.
    pub bridge: LinkName,
    /// `isGateway`, or `isDefaultGateway`: the bridge holds the gateways.
    pub is_gateway: bool,
    /// `isDefaultGateway`: and pods have a default route to it.
    pub is_default_gateway: bool,
    /// `forceAddress`: another address of the bridge gives way to the gateway.
    pub force_address: bool,
    /// `hairpinMode`.
    pub hairpin: bool,
    /// `promiscMode`.
    pub promiscuous: bool,
    /// `vlan`: that of the pod's frames without a tag.
    pub vlan: Option<u16>,
    /// `vlanTrunk`, each id once, in order; `None` where the key is absent.
    pub vlan_trunk: Option<Vec<u16>>,
    /// `preserveDefaultVlan`.
    pub preserve_default_vlan: bool,
    /// `macspoofchk`: the pod sends with no other Ethernet address than its own.
    pub mac_spoof_check: bool,
    /// `disableContainerInterface`: the pod's interface stays down.
    pub disable_container_interface: bool,
    /// `portIsolation`: the pod reaches no other pod that is so isolated.
    pub port_isolation: bool,
    /// `enabledad`: the pod's IPv6 addresses are used once nobody else answers to them.
    pub enable_dad: bool,
    /// `runtimeConfig.mac`, or `args.cni.mac`.
    mac: Option<MacAddress>,
}

impl InterfaceConf {
    /// Reads what the runtime wrote to stdin.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let (conf, prev_result) = parse_conf(stdin)?;
        let conf = Field::conf(&conf);
        Self::read(&conf, BaseConf::read(&conf, prev_result)?)
    }

    fn read(conf: &Field<'_, '_>, base: BaseConf) -> Result<Self, CniError> {
        let mtu: Option<u32> = conf.optional("mtu", |mtu| mtu.number_as(0..=u64::from(MAX_MTU)))?;
        Ok(Self {
            base,
            mtu: mtu.filter(|mtu| *mtu != 0),
            ip_masq: flag(conf, "ipMasq")?,
            ip_masq_backend: conf.optional("ipMasqBackend", |backend| RuleBackend::read(&backend))?.flatten(),
            ipam: read_ipam_type(conf)?,
            dns: conf.optional("dns", |dns| Dns::read(&dns))?.unwrap_or_default(),
        })
    }
}

impl BridgeConf {
    /// Reads what the runtime wrote to stdin.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let (conf, prev_result) = parse_conf(stdin)?;
        let conf = Field::conf(&conf);
        let base = BaseConf::read(&conf, prev_result)?;
        let is_default_gateway = flag(&conf, "isDefaultGateway")?;
        let read = Self {
            interface: InterfaceConf::read(&conf, base)?,
            bridge: read_bridge(&conf)?,
            is_gateway: flag(&conf, "isGateway")? || is_default_gateway,
            is_default_gateway,
            force_address: flag(&conf, "forceAddress")?,
            hairpin: flag(&conf, "hairpinMode")?,
            promiscuous: flag(&conf, "promiscMode")?,
            vlan: conf.optional("vlan", |vlan| vlan.number_as(0..=MAX_VLAN))?.filter(|vlan| *vlan != 0),
            vlan_trunk: read_trunk(&conf)?,
            preserve_default_vlan: flag(&conf, "preserveDefaultVlan")?,
            mac_spoof_check: flag(&conf, "macspoofchk")?,
            disable_container_interface: flag(&conf, "disableContainerInterface")?,
            port_isolation: flag(&conf, "portIsolation")?,
            enable_dad: flag(&conf, "enabledad")?,
            mac: read_wished_mac(&conf)?,
        };
        if read.disable_container_interface && read.interface.ipam.is_some() {
            return Err(conf.refuse_key_because(
                "disableContainerInterface",
                "an interface that stays down has no use for addresses; remove it, or `ipam`",
            ));
        }
        if read.hairpin && read.promiscuous {
            return Err(conf.refuse_key_because(
                "hairpinMode",
                "with `promiscMode` each frame would come back twice; remove one of the two",
            ));
        }
        Ok(read)
    }

    /// The interface address that was requested; the configuration goes before `CNI_ARGS`.
    #[must_use]
    pub fn requested_mac(&self, args: &CniArgs) -> Option<MacAddress> {
        self.mac.or(args.mac)
    }

    /// Whether the bridge must tell VLANs apart.
    #[must_use]
    pub fn has_vlans(&self) -> bool {
        self.vlan.is_some() || self.vlan_trunk.is_some()
    }
}

/// Which IPAM plugin a configuration names; read alone where a fault elsewhere must not matter.
pub fn ipam_type(stdin: &[u8]) -> Result<Option<String>, CniError> {
    let (conf, _) = parse_conf(stdin)?;
    read_ipam_type(&Field::conf(&conf))
}

fn read_ipam_type(conf: &Field<'_, '_>) -> Result<Option<String>, CniError> {
    let Some(ipam) = conf.get("ipam")? else { return Ok(None) };
    let kind = ipam.optional("type", |kind| {
        let text = kind.text()?;
        if text.len() > 255 || text.contains(['/', '\\', '\0']) || matches!(text, "." | "..") {
            return Err(kind.refuse("give the name of the plugin's file, without its folder"));
        }
        Ok(text.to_owned())
    })?;
    Ok(kind.filter(|kind| !kind.is_empty()))
}

fn flag(conf: &Field<'_, '_>, key: &'static str) -> Result<bool, CniError> {
    Ok(conf.optional(key, Field::boolean)?.unwrap_or(false))
}

fn read_bridge(conf: &Field<'_, '_>) -> Result<LinkName, CniError> {
    let given = conf.optional("bridge", Field::text)?.unwrap_or(DEFAULT_BRIDGE);
    LinkName::new(given).map_err(|error| conf.refuse_key_because("bridge", error))
}

fn read_trunk(conf: &Field<'_, '_>) -> Result<Option<Vec<u16>>, CniError> {
    let Some(trunk) = conf.get("vlanTrunk")? else { return Ok(None) };
    let mut ids = Vec::new();
    for item in trunk.list(MAX_TRUNK_ITEMS)? {
        let id = |key| item.optional(key, |id| id.number_as::<u16>(1..=MAX_VLAN));
        match (id("minID")?, id("maxID")?) {
            (Some(min), Some(max)) if min <= max => ids.extend(min..=max),
            (Some(min), Some(max)) => {
                return Err(
                    item.refuse_key_because("minID", format!("{min} is above `maxID` {max}: swap them"))
                );
            }
            (None, Some(_)) => return Err(item.missing("minID", "give it together with `maxID`")),
            (Some(_), None) => return Err(item.missing("maxID", "give it together with `minID`")),
            (None, None) => {}
        }
        ids.extend(id("id")?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(Some(ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<BridgeConf, String> {
        let stdin = format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"bridge"{rest}}}"#);
        BridgeConf::parse(stdin.as_bytes()).map_err(|error| error.msg)
    }

    #[test]
    fn what_is_left_out_is_what_the_reference_takes() {
        let conf =
            parse(r#","ipam":{},"unknown":7,"mtu":0,"vlan":0,"runtimeConfig":{"portMappings":7}"#).unwrap();
        assert_eq!((conf.bridge.as_str(), conf.interface.mtu, conf.vlan), ("cni0", None, None));
        assert_eq!(conf.interface.ipam, None);
        assert!(!conf.is_gateway && !conf.hairpin && !conf.has_vlans());
    }

    #[test]
    fn a_default_gateway_is_a_gateway() {
        let conf = parse(r#","isDefaultGateway":true,"ipam":{"type":"static"}"#).unwrap();
        assert!(conf.is_gateway);
        assert_eq!(conf.interface.ipam.as_deref(), Some("static"));
    }

    #[test]
    fn a_trunk_is_the_union_of_its_items() {
        let conf = parse(r#","vlanTrunk":[{"minID":101,"maxID":103},{"id":7},{"id":102},{}]"#).unwrap();
        assert_eq!(conf.vlan_trunk, Some(vec![7, 101, 102, 103]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        insta::assert_debug_snapshot!([
            parse(r#","vlan":4095"#).unwrap_err(),
            parse(r#","vlanTrunk":[{"minID":5}]"#).unwrap_err(),
            parse(r#","vlanTrunk":[{"maxID":5}]"#).unwrap_err(),
            parse(r#","vlanTrunk":[{"minID":6,"maxID":5}]"#).unwrap_err(),
            parse(r#","vlanTrunk":[{"id":0}]"#).unwrap_err(),
            parse(r#","hairpinMode":true,"promiscMode":true"#).unwrap_err(),
            parse(r#","disableContainerInterface":true,"ipam":{"type":"static"}"#).unwrap_err(),
            parse(r#","isGateway":"yes""#).unwrap_err(),
            parse(r#","bridge":"a bridge of long name""#).unwrap_err(),
            parse(r#","ipMasqBackend":"ebtables""#).unwrap_err(),
            parse(r#","ipam":{"type":"../sh"}"#).unwrap_err(),
            parse(r#","runtimeConfig":{"mac":"01:00:00:00:00:00"}"#).unwrap_err(),
        ]);
    }
}
