//! The configuration of the IPAM plugin `static`: addresses as they are given, by the configuration, `CNI_ARGS`, `args`
//! or the runtime.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::IpFamily;
use crate::base_conf::{BaseConf, parse_conf};
use crate::cni_args::CniArgs;
use crate::error::{CniError, ErrorCode};
use crate::field::Field;
use crate::ipam_conf::MAX_ROUTES;
use crate::result::{Dns, IpConfig};
use crate::route::{Route, read_net};
use crate::version::SpecVersion;

const MAX_ADDRESSES: usize = 64;

/// What `static` is told.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticConf {
    /// The common part.
    pub base: BaseConf,
    /// The addresses, in the order of the result.
    pub addresses: Vec<IpConfig>,
    /// `ipam.routes`.
    pub routes: Vec<Route>,
    /// `ipam.dns`.
    pub dns: Dns,
}

impl StaticConf {
    /// Reads what the runtime, or the plugin that delegates, wrote to stdin. As in the reference, `CNI_ARGS` adds
    /// addresses, `args.cni.ips` replaces all, and `runtimeConfig.ips` replaces those.
    pub fn parse(stdin: &[u8], args: &CniArgs) -> Result<Self, CniError> {
        let (conf, prev_result) = parse_conf(stdin)?;
        let conf = Field::conf(&conf);
        let base = BaseConf::read(&conf, prev_result)?;
        let Some(ipam) = conf.get("ipam")? else {
            return Err(
                conf.missing("ipam", r#"give the addresses, as in {"type": "static", "addresses": …}"#)
            );
        };
        let mut addresses = ipam.each("addresses", MAX_ADDRESSES, |field| {
            let gateway = field.optional("gateway", Field::ip_or_none)?.flatten();
            let address = field.required("address", "give the address in CIDR notation", read_net)?;
            Ok(ip_config(address, gateway))
        })?;
        add_from_args(&mut addresses, args)?;
        if let Some(args) = conf.get("args")?
            && let Some(cni) = args.get("cni")?
        {
            replace(&mut addresses, &cni)?;
        }
        if let Some(runtime) = conf.get("runtimeConfig")? {
            replace(&mut addresses, &runtime)?;
        }
        refuse_several_of_a_family(&ipam, &addresses, base.cni_version)?;
        Ok(Self {
            addresses,
            routes: ipam.each("routes", MAX_ROUTES, |route| Route::read(&route))?,
            dns: ipam.optional("dns", |dns| Dns::read(&dns))?.unwrap_or_default(),
            base,
        })
    }
}

fn ip_config(address: IpNet, gateway: Option<IpAddr>) -> IpConfig {
    IpConfig { interface: None, address, gateway }
}

fn add_from_args(addresses: &mut Vec<IpConfig>, args: &CniArgs) -> Result<(), CniError> {
    if args.networks.len() != args.ips.len() {
        return Err(CniError::new(
            ErrorCode::InvalidEnvironment,
            "`CNI_ARGS`: IP has no prefix: write each address as in 10.1.0.5/24",
        ));
    }
    addresses.extend(args.networks.iter().map(|network| ip_config(*network, None)));
    for gateway in &args.gateways {
        for ip in addresses.iter_mut().filter(|ip| ip.address.contains(gateway)) {
            ip.gateway = Some(*gateway);
        }
    }
    Ok(())
}

fn replace(addresses: &mut Vec<IpConfig>, parent: &Field<'_, '_>) -> Result<(), CniError> {
    let given = parent.each("ips", MAX_ADDRESSES, |field| Ok(ip_config(read_net(field)?, None)))?;
    if !given.is_empty() {
        *addresses = given;
    }
    Ok(())
}

/// Results of these versions carry one address a family.
fn refuse_several_of_a_family(
    ipam: &Field<'_, '_>,
    addresses: &[IpConfig],
    version: SpecVersion,
) -> Result<(), CniError> {
    let count = |family| addresses.iter().filter(|ip| IpFamily::of(ip.address.addr()) == family).count();
    match IpFamily::BOTH.into_iter().find(|family| count(*family) > 1) {
        Some(family) if version < SpecVersion::V0_3_0 => Err(ipam.refuse_key_because(
            "addresses",
            format!(
                "{} {family} addresses, but `cniVersion` {version} carries one a family; raise `cniVersion` to 0.3.0 \
                 or later",
                count(family)
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str, args: &str) -> Result<Vec<String>, String> {
        let stdin = format!(
            r#"{{"cniVersion":"0.2.0","name":"n","type":"static","ipam":{{"addresses":[{{"address":"10.1.0.5/24"}}]}}{rest}}}"#
        );
        let args = CniArgs::parse(args).unwrap();
        let conf = StaticConf::parse(stdin.as_bytes(), &args).map_err(|error| error.msg)?;
        Ok(conf.addresses.iter().map(|ip| format!("{} {:?}", ip.address, ip.gateway)).collect())
    }

    #[test]
    fn args_add_and_give_gateways_and_the_runtime_replaces() {
        let added = parse("", "IP=fd00::5/64;GATEWAY=10.1.0.1,fd00::1").unwrap();
        assert_eq!(added, ["10.1.0.5/24 Some(10.1.0.1)", "fd00::5/64 Some(fd00::1)"]);
        let runtime = r#","args":{"cni":{"ips":["10.3.0.3/16"]}},"runtimeConfig":{"ips":["10.2.0.2/16"]}"#;
        assert_eq!(parse(runtime, "").unwrap(), ["10.2.0.2/16 None"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        insta::assert_debug_snapshot!([
            parse("", "IP=10.1.0.6").unwrap_err(),
            parse("", "IP=10.1.0.6/24").unwrap_err(),
            parse(r#","runtimeConfig":{"ips":["10.2.0.2"]}"#, "").unwrap_err(),
        ]);
    }
}
