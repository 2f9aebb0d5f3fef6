//! The section `ipam` of type `dhcp`: the reference's keys, and ours.

use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::base_conf::{BaseConf, parse_conf};
use crate::error::CniError;
use crate::field::Field;
use crate::route::read_net;

/// Where leases are kept unless `ipam.leaseDir` says otherwise: they outlive a reboot.
pub const DEFAULT_LEASE_DIR: &str = "/var/lib/hostgw/leases";

/// For how long servers are waited for, in seconds, unless `ipam.timeout` says otherwise.
const DEFAULT_TIMEOUT: u64 = 10;
/// The longest that servers are waited for, in seconds: runtimes give up an ADD after some four minutes.
pub const MAX_DHCP_TIMEOUT: u32 = 180;
/// What one option holds (RFC 2132, section 2).
const MAX_VALUE_LEN: usize = 255;
const MAX_OPTIONS: usize = 64;

/// The names that the reference knows; every other option goes by its number.
const NAMES: [(&str, u8); 6] = [
    ("dhcp-client-identifier", 61),
    ("subnet-mask", 1),
    ("routers", 3),
    ("host-name", 12),
    ("user-class", 77),
    ("vendor-class-identifier", 60),
];
/// What is asked for without `skipDefault`: mask, router, name servers, domain, MTU, routes.
const DEFAULT_REQUESTED: [u8; 7] = [1, 121, 3, 33, 6, 15, 26];

/// Keys of the section that are not `host-local`'s too.
pub(crate) const KEYS: [&str; 15] = [
    "type",
    "dataDir",
    "ranges",
    "slaac",
    "routes",
    "subnet",
    "daemonSocketPath",
    "request",
    "provide",
    "priority",
    "timeout",
    "clientID",
    "conflictProbe",
    "defaultRoute",
    "leaseDir",
];

/// What the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpConf {
    /// `request`: the numbers of the options that are asked for.
    pub requested: Vec<u8>,
    /// `provide`: options that are sent.
    pub provided: Vec<ProvidedOption>,
    /// `priority`: the metric of the routes that a server names.
    pub priority: Option<u32>,
    /// `subnet`: an address must be of it.
    pub subnet: Option<Ipv4Net>,
    /// `timeout`, in seconds.
    pub timeout: u64,
    /// `clientID`.
    pub client_id: ClientId,
    /// `conflictProbe`: whether it is asked on the link who else has the address (RFC 5227).
    pub conflict_probe: bool,
    /// `defaultRoute`, where it is said.
    pub default_route: Option<DefaultRoute>,
    /// `leaseDir`.
    pub lease_dir: PathBuf,
}

/// An option that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvidedOption {
    /// Its number.
    pub code: u8,
    /// `value`: the text.
    pub value: Option<String>,
    /// `fromArg`: the key of `CNI_ARGS` whose value goes before the text.
    pub from_arg: Option<String>,
}

/// Who the client says that it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientId {
    /// This container: each life of a pod has a lease of its own, which is released with it.
    #[default]
    Container,
    /// This pod by its name: a pod of a StatefulSet gets its address again.
    Pod,
}

/// Where a pod's default route leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultRoute {
    /// To the router that the server names.
    #[default]
    Router,
    /// To the node, which then sees the traffic: Services need that.
    Node,
}

impl DhcpConf {
    pub(crate) fn read(ipam: &Field<'_, '_>) -> Result<Self, CniError> {
        let mut requested = Vec::new();
        let mut skip_default = false;
        let each = ipam.each("request", MAX_OPTIONS, |request| {
            let skips = request.optional("skipDefault", Field::boolean)?.unwrap_or(false);
            let option = request.optional("option", |option| read_option(&option))?.flatten();
            Ok((skips, option))
        })?;
        for (skips, option) in each {
            skip_default |= skips;
            requested.extend(option);
        }
        if !skip_default {
            requested.extend(DEFAULT_REQUESTED);
        }
        let mut seen = [false; 256];
        requested.retain(|code| !std::mem::replace(&mut seen[usize::from(*code)], true));
        let clients = [("container", ClientId::Container), ("pod", ClientId::Pod)];
        let ways = [("router", DefaultRoute::Router), ("node", DefaultRoute::Node)];
        Ok(Self {
            requested,
            provided: ipam.each("provide", MAX_OPTIONS, |option| read_provided(&option))?,
            priority: ipam
                .optional("priority", |priority| priority.number_as(0..=u64::from(u32::MAX)))?
                .filter(|priority| *priority != 0),
            subnet: ipam.optional("subnet", |subnet| match read_net(subnet)? {
                IpNet::V4(net) => Ok(net.trunc()),
                IpNet::V6(_) => Err(subnet.refuse("DHCP is spoken for IPv4 alone; give an IPv4 subnet")),
            })?,
            timeout: ipam
                .optional("timeout", |timeout| timeout.number(1..=u64::from(MAX_DHCP_TIMEOUT)))?
                .unwrap_or(DEFAULT_TIMEOUT),
            client_id: ipam.optional("clientID", |id| id.choice(&clients))?.unwrap_or_default(),
            conflict_probe: ipam.optional("conflictProbe", Field::boolean)?.unwrap_or(false),
            default_route: ipam.optional("defaultRoute", |way| way.choice(&ways))?,
            lease_dir: lease_dir(ipam)?,
        })
    }
}

/// Reads `leaseDir` alone, which DEL needs whatever else is wrong.
pub(crate) fn lease_dir(ipam: &Field<'_, '_>) -> Result<PathBuf, CniError> {
    Ok(ipam.optional("leaseDir", Field::absolute_path)?.unwrap_or_else(|| PathBuf::from(DEFAULT_LEASE_DIR)))
}

/// An option by name or number; none where the text is empty, as the reference has it.
fn read_option(field: &Field<'_, '_>) -> Result<Option<u8>, CniError> {
    let text = field.text()?;
    if text.is_empty() {
        return Ok(None);
    }
    if let Some((_, code)) = NAMES.iter().find(|(name, _)| *name == text) {
        return Ok(Some(*code));
    }
    match text.parse() {
        Ok(code @ 1..=254) => Ok(Some(code)),
        _ => {
            let names = NAMES.map(|(name, _)| name).join(", ");
            Err(field.refuse(format!("give a number from 1 to 254, or one of {names}")))
        }
    }
}

fn read_provided(field: &Field<'_, '_>) -> Result<ProvidedOption, CniError> {
    let named = field.required("option", "name the option, or give its number", |option| {
        Ok((read_option(&option)?, option))
    })?;
    let code = match named {
        // What every message says for itself.
        (Some(50..=55 | 57), option) => {
            return Err(option.refuse("the client sets this option itself; remove it"));
        }
        (Some(code), _) => code,
        (None, option) => return Err(option.refuse("name the option, or give its number")),
    };
    let value = field.optional("value", |value| match value.text()? {
        "" => Ok(None),
        text if text.len() > MAX_VALUE_LEN => {
            Err(value.refuse(format!("an option holds {MAX_VALUE_LEN} bytes; shorten it")))
        }
        text => Ok(Some(text.to_owned())),
    })?;
    let from_arg = field.optional("fromArg", Field::owned_text)?.filter(|key| !key.is_empty());
    Ok(ProvidedOption { code, value: value.flatten(), from_arg })
}

/// The configuration of the IPAM plugin `dhcp`. Keys that are not known are ignored, as the reference does.
#[derive(Clone, Debug, PartialEq)]
pub struct DhcpPluginConf {
    /// The common part.
    pub base: BaseConf,
    /// `ipam`.
    pub dhcp: DhcpConf,
}

impl DhcpPluginConf {
    /// Reads what the plugin that delegates wrote to stdin.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let (conf, prev_result) = parse_conf(stdin)?;
        let conf = Field::conf(&conf);
        let base = BaseConf::read(&conf, prev_result)?;
        let dhcp = conf.required("ipam", r#"give {"type": "dhcp"}"#, |ipam| DhcpConf::read(&ipam))?;
        Ok(Self { base, dhcp })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(ipam: &str) -> Result<DhcpConf, String> {
        let stdin = format!(
            r#"{{"cniVersion":"1.0.0","name":"n","type":"macvlan","ipam":{{"type":"dhcp",{ipam}}}}}"#
        );
        DhcpPluginConf::parse(stdin.as_bytes()).map(|conf| conf.dhcp).map_err(|error| error.msg)
    }

    #[test]
    fn options_go_by_name_or_number_and_the_defaults_can_be_left_out() {
        let conf = parse(
            r#""request":[{"option":"routers","skipDefault":true},{"option":"119"},{"option":""}],
               "provide":[{"option":"host-name","value":"a"},{"option":"12","fromArg":"K8S_POD_NAME"}]"#,
        )
        .unwrap();
        assert_eq!(conf.requested, [3, 119]);
        assert_eq!(conf.provided[0].value.as_deref(), Some("a"));
        assert_eq!((conf.provided[1].code, conf.provided[1].from_arg.as_deref()), (12, Some("K8S_POD_NAME")));
        let conf = parse(r#""request":[{"option":"3"}],"daemonSocketPath":"/x","foreign":1"#).unwrap();
        assert_eq!(conf.requested, [3, 1, 121, 33, 6, 15, 26]);
        assert_eq!((conf.timeout, conf.client_id), (10, ClientId::Container));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = format!(r#""provide":[{{"option":"12","value":"{}"}}]"#, "x".repeat(256));
        let wrong = [
            r#""request":[{"option":"dns"}]"#,
            r#""request":[{"option":"255"}]"#,
            r#""provide":[{"value":"x"}]"#,
            r#""provide":[{"option":"53","value":"x"}]"#,
            r#""subnet":"fd00::/64""#,
            r#""timeout":0"#,
            r#""clientID":"mac""#,
            r#""defaultRoute":"host""#,
            r#""leaseDir":"x""#,
            &long,
        ];
        let errors: Vec<String> = wrong.iter().map(|ipam| parse(ipam).unwrap_err()).collect();
        assert!(errors.iter().all(|error| error.starts_with("`ipam")), "{errors:#?}");
    }
}
