//! What DEL and GC need of a configuration: which network it is and where its attachment records are.

use std::path::PathBuf;

use crate::base_conf::{BaseConf, parse_conf};
use crate::dhcp_conf::{self, DEFAULT_LEASE_DIR};
use crate::error::CniError;
use crate::field::Field;
use crate::ipam_conf;

/// The part of a configuration that is enough to release what an attachment holds. The record says the rest, so a
/// fault anywhere else in the configuration cannot keep a pod's addresses taken.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreConf {
    /// The common part.
    pub base: BaseConf,
    /// `ipam.dataDir`: the folder of the attachment records.
    pub data_dir: PathBuf,
    /// `ipam.leaseDir`: the folder of the leases.
    pub lease_dir: PathBuf,
    /// `logFile` and `logLevel`.
    pub log: LogConf,
}

impl StoreConf {
    /// Reads what the runtime wrote to stdin.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let (conf, prev_result) = parse_conf(stdin)?;
        let conf = Field::conf(&conf);
        Self::read(&conf, BaseConf::read(&conf, prev_result)?)
    }

    pub(crate) fn read(conf: &Field<'_, '_>, base: BaseConf) -> Result<Self, CniError> {
        let (data_dir, lease_dir) = match conf.get("ipam")? {
            Some(ipam) => (ipam_conf::data_dir(&ipam)?, dhcp_conf::lease_dir(&ipam)?),
            None => (PathBuf::from(ipam_conf::DEFAULT_DATA_DIR), PathBuf::from(DEFAULT_LEASE_DIR)),
        };
        // Where to log matters less than that the attachment is released: ADD has refused what is wrong with it.
        Ok(Self { base, data_dir, lease_dir, log: LogConf::read(conf).unwrap_or_default() })
    }
}

/// Where the plugin logs, and how much. Failures are answered on stdout whatever this says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConf {
    /// `logFile`: an absolute path; without it, warnings go to stderr, which runtimes log, and the rest nowhere.
    pub file: Option<PathBuf>,
    /// `logLevel`.
    pub level: LogLevel,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// And what is odd.
    Warn,
    /// And what was done.
    #[default]
    Info,
    /// And why: what was found on the node, what was planned, and how long it took.
    Debug,
}

impl LogConf {
    pub(crate) fn read(conf: &Field<'_, '_>) -> Result<Self, CniError> {
        let levels = [
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
        ];
        Ok(Self {
            file: conf.optional("logFile", Field::absolute_path)?,
            level: conf.optional("logLevel", |level| level.choice(&levels))?.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_range_or_port_does_not_keep_del_from_its_records() {
        let conf = StoreConf::parse(
            br#"{"name":"n","type":"hostgw","ipam":{"ranges":7,"dataDir":"/d"},"runtimeConfig":[],"logLevel":7}"#,
        )
        .unwrap();
        assert_eq!(conf.data_dir, PathBuf::from("/d"));
        assert_eq!(conf.log, LogConf::default());
    }

    #[test]
    fn without_ipam_the_records_are_in_the_default_folder() {
        let conf = StoreConf::parse(br#"{"name":"n","type":"hostgw"}"#).unwrap();
        assert_eq!(conf.data_dir, PathBuf::from("/run/hostgw/ipam"));
    }
}
