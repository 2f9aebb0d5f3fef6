//! What STATUS needs of a configuration: the file that says whether the node's data path is up.

use std::path::PathBuf;

use crate::base_conf::{BaseConf, parse_conf};
use crate::command::Command;
use crate::error::CniError;
use crate::field::Field;

/// The part of a configuration that STATUS looks at. No more, because an error of STATUS makes the node NotReady, and
/// what is wrong with one key must not evict pods that run well.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusConf {
    /// The common part.
    pub base: BaseConf,
    /// `readyFile`: while it does not exist, the plugin is not available.
    pub ready_file: Option<PathBuf>,
    /// `strictStatus`: whether everything else is looked at as well, see docs/configuration.md.
    pub strict: bool,
}

impl StatusConf {
    /// Reads what the runtime wrote to stdin; refuses versions that do not have STATUS.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let (conf, prev_result) = parse_conf(stdin)?;
        let conf = Field::conf(&conf);
        let base = BaseConf::read(&conf, prev_result)?;
        Command::Status.check_allowed_in(base.cni_version)?;
        Ok(Self {
            base,
            ready_file: conf.optional("readyFile", Field::absolute_path)?,
            strict: conf.optional("strictStatus", Field::boolean)?.unwrap_or(false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_range_does_not_make_the_node_not_ready() {
        let conf = StatusConf::parse(
            br#"{"cniVersion":"1.1.0","name":"n","type":"hostgw","ipam":7,"readyFile":"/run/hostgw/ready"}"#,
        )
        .unwrap();
        assert_eq!(conf.ready_file, Some(PathBuf::from("/run/hostgw/ready")));
    }

    #[test]
    fn status_exists_since_1_1() {
        let error = StatusConf::parse(br#"{"cniVersion":"1.0.0","name":"n","type":"hostgw"}"#).unwrap_err();
        assert_eq!(error.code.number(), 1);
    }
}
