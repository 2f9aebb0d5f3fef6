//! The configuration of the IPAM plugin `host-local`, as its documentation has it. Keys that are not known are ignored,
//! as the reference does: configurations that work there must work here.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::base_conf::{BaseConf, parse_conf};
use crate::capability::read_wished_ips;
use crate::cni_args::CniArgs;
use crate::error::{CniError, ErrorCode};
use crate::field::Field;
use crate::ipam_conf::{MAX_ROUTES, read_range_sets};
use crate::range_set::RangeSets;
use crate::route::Route;

/// Where the reference keeps its addresses unless `ipam.dataDir` says otherwise.
pub const HOST_LOCAL_DATA_DIR: &str = "/var/lib/cni/networks";

/// What ADD, CHECK and a strict STATUS are told.
#[derive(Clone, Debug, PartialEq)]
pub struct HostLocalConf {
    /// Whose addresses these are, and where they are kept.
    pub store: HostLocalStoreConf,
    /// One address comes from each set.
    pub range_sets: RangeSets,
    /// `ipam.routes`, passed on in the result.
    pub routes: Vec<Route>,
    /// `ipam.resolvConf`: a file from which the result's `dns` is read.
    pub resolv_conf: Option<PathBuf>,
    /// `args.cni.ips` and `runtimeConfig.ips`.
    ips: Vec<IpAddr>,
}

/// What is enough to release: a fault anywhere else must not keep a pod's addresses taken.
#[derive(Clone, Debug, PartialEq)]
pub struct HostLocalStoreConf {
    /// The common part.
    pub base: BaseConf,
    /// `ipam.dataDir`: the folder that holds one folder for each network.
    pub data_dir: PathBuf,
}

impl HostLocalConf {
    /// Reads what the runtime, or the plugin that delegates, wrote to stdin.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let (conf, prev_result) = parse_conf(stdin)?;
        let conf = Field::conf(&conf);
        let store = HostLocalStoreConf::read(&conf, BaseConf::read(&conf, prev_result)?)?;
        let Some(ipam) = conf.get("ipam")? else {
            return Err(conf.missing("ipam", r#"give the ranges, as in {"type": "host-local", "ranges": …}"#));
        };
        // A stray `gateway` or `rangeStart` beside `ranges` says nothing to the reference.
        let single = ipam.get("subnet")?.is_some();
        Ok(Self {
            range_sets: read_range_sets(&conf, &ipam, store.base.cni_version, single)?,
            routes: ipam.each("routes", MAX_ROUTES, |route| Route::read(&route))?,
            resolv_conf: non_empty_path(&ipam, "resolvConf")?,
            ips: read_wished_ips(&conf)?,
            store,
        })
    }

    /// Every address that was requested, by `CNI_ARGS` first.
    pub fn requested_ips(&self, args: &CniArgs) -> Result<Vec<IpAddr>, CniError> {
        if args.ips.len() > 1 {
            return Err(CniError::new(
                ErrorCode::InvalidEnvironment,
                "`CNI_ARGS`: IP names several addresses: give one, or use the capability `ips`",
            ));
        }
        let mut ips = args.ips.clone();
        ips.extend(self.ips.iter().filter(|ip| !args.ips.contains(ip)));
        Ok(ips)
    }
}

impl HostLocalStoreConf {
    /// Reads what the runtime, or the plugin that delegates, wrote to stdin.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let (conf, prev_result) = parse_conf(stdin)?;
        let conf = Field::conf(&conf);
        Self::read(&conf, BaseConf::read(&conf, prev_result)?)
    }

    fn read(conf: &Field<'_, '_>, base: BaseConf) -> Result<Self, CniError> {
        let data_dir = match conf.get("ipam")? {
            Some(ipam) => non_empty_path(&ipam, "dataDir")?,
            None => None,
        };
        Ok(Self { base, data_dir: data_dir.unwrap_or_else(|| PathBuf::from(HOST_LOCAL_DATA_DIR)) })
    }
}

fn non_empty_path(parent: &Field<'_, '_>, key: &'static str) -> Result<Option<PathBuf>, CniError> {
    let read = |field: Field<'_, '_>| match field.text()? {
        "" => Ok(None),
        _ => field.absolute_path().map(Some),
    };
    Ok(parent.optional(key, read)?.flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(ipam: &str) -> Result<HostLocalConf, CniError> {
        let stdin = format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"bridge","ipam":{ipam}}}"#);
        HostLocalConf::parse(stdin.as_bytes())
    }

    #[test]
    fn the_first_form_stands_before_the_ranges() {
        let conf = parse(
            r#"{"type":"host-local","subnet":"10.1.0.0/24","rangeStart":"10.1.0.9","ranges":[[{"subnet":"fd00::/64"}]],
                "dataDir":"","resolvConf":"","unknown":1}"#,
        )
        .unwrap();
        assert_eq!(conf.range_sets.to_string(), "10.1.0.9-10.1.0.254, fd00::1-fd00::ffff:ffff:ffff:ffff");
        assert_eq!((conf.store.data_dir, conf.resolv_conf), (PathBuf::from(HOST_LOCAL_DATA_DIR), None));
    }

    #[test]
    fn a_stray_gateway_beside_ranges_is_ignored() {
        let conf = parse(r#"{"gateway":"10.9.9.9","ranges":[[{"subnet":"10.1.0.0/24"}]]}"#).unwrap();
        assert_eq!(conf.range_sets.as_slice()[0].ranges()[0].gateway().to_string(), "10.1.0.1");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |ipam: &str| parse(ipam).unwrap_err().msg;
        insta::assert_debug_snapshot!([
            refused("null"),
            refused("{}"),
            refused(r#"{"subnet":"10.1.0.1/24"}"#),
            refused(r#"{"subnet":"10.1.0.0/24","dataDir":"networks"}"#),
            refused(r#"{"ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"10.1.0.0/16"}]]}"#),
        ]);
    }
}
