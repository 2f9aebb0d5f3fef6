//! The keys that every plugin's configuration has; all that `loopback` needs.

use serde_json::Value;

use crate::error::{CniError, ErrorCode};
use crate::field::{Field, parse_object};
use crate::identifier::NetworkName;
use crate::result::AttachResult;
use crate::version::SpecVersion;

/// The common part of a network configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseConf {
    /// The version that results and errors are written in.
    pub cni_version: SpecVersion,
    /// The network's name.
    pub name: NetworkName,
    /// `type`: the name of the plugin's file.
    pub plugin_type: String,
    prev_result: Option<Value>,
}

impl BaseConf {
    /// Reads the common part of what the runtime wrote to stdin. Other keys are the plugin's, and not looked at.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let (conf, prev_result) = parse_conf(stdin)?;
        Self::read(&Field::conf(&conf), prev_result)
    }

    pub(crate) fn read(conf: &Field<'_, '_>, prev_result: Option<Value>) -> Result<Self, CniError> {
        // First, because what else there may be depends on it.
        let cni_version = match conf.optional("cniVersion", Field::text) {
            Ok(text) => SpecVersion::parse(text.unwrap_or_default())?,
            Err(error) => return Err(CniError { code: ErrorCode::Decode, ..error }),
        };
        let name = conf.required("name", "give the network a name", |name| {
            NetworkName::new(name.text()?)
                .map_err(|reason| CniError::new(ErrorCode::InvalidNetworkConfig, format!("`name` {reason}")))
        })?;
        let plugin_type = conf.required("type", "name the plugin's file", |plugin_type| {
            let text = plugin_type.text()?;
            if text.is_empty() || text.len() > 255 || text.contains(['/', '\\', '\0']) {
                return Err(plugin_type.refuse("give the name of the plugin's file, without its folder"));
            }
            Ok(text.to_owned())
        })?;
        Ok(Self { cni_version, name, plugin_type, prev_result })
    }

    /// The result of the plugin before in the chain, or of the ADD that a CHECK or DEL follows.
    ///
    /// Read only when asked for, because DEL must not fail over a result that it does not need.
    pub fn prev_result(&self) -> Result<Option<AttachResult>, CniError> {
        self.prev_result
            .as_ref()
            .map(|value| AttachResult::read(&Field::document("prevResult", value), self.cni_version))
            .transpose()
    }

    /// The same for CHECK, for which the specification requires it.
    pub fn required_prev_result(&self) -> Result<AttachResult, CniError> {
        self.prev_result()?.ok_or_else(|| {
            CniError::new(
                ErrorCode::InvalidNetworkConfig,
                "`prevResult` is missing: the runtime must pass the result of ADD",
            )
        })
    }
}

/// Parses a configuration, and takes the previous result out of it.
pub(crate) fn parse_conf(stdin: &[u8]) -> Result<(Value, Option<Value>), CniError> {
    let mut conf = parse_object(stdin, "the network configuration")?;
    let prev_result =
        conf.get_mut("prevResult").map(Value::take).filter(|prev_result| !prev_result.is_null());
    Ok((conf, prev_result))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(stdin: &str) -> (u16, String) {
        let error = BaseConf::parse(stdin.as_bytes()).unwrap_err();
        (error.code.number(), error.msg)
    }

    #[test]
    fn containerds_loopback_configuration_is_read() {
        let conf =
            BaseConf::parse(br#"{"cniVersion":"0.3.1","name":"cni-loopback","type":"loopback"}"#).unwrap();
        assert_eq!(conf.cni_version, SpecVersion::V0_3_1);
        assert_eq!(conf.name.as_str(), "cni-loopback");
        assert_eq!(conf.plugin_type, "loopback");
        assert_eq!(conf.prev_result(), Ok(None));
    }

    #[test]
    fn a_configuration_without_version_is_of_the_first() {
        let conf = BaseConf::parse(br#"{"name":"n","type":"t","prevResult":null}"#).unwrap();
        assert_eq!(conf.cni_version, SpecVersion::V0_1_0);
    }

    #[test]
    fn each_wrong_key_is_named() {
        insta::assert_debug_snapshot!([
            refused(""),
            refused("[]"),
            refused("{}"),
            refused(r#"{"cniVersion":1}"#),
            refused(r#"{"cniVersion":"3.0.0"}"#),
            refused(r#"{"name":""}"#),
            refused(r#"{"name":"../etc"}"#),
            refused(r#"{"name":7}"#),
            refused(r#"{"name":"n"}"#),
            refused(r#"{"name":"n","type":"../../bin/sh"}"#),
        ]);
    }

    #[test]
    fn the_previous_result_is_read_only_when_asked_for() {
        let conf =
            BaseConf::parse(br#"{"cniVersion":"1.0.0","name":"n","type":"t","prevResult":{"ips":[{}]}}"#)
                .unwrap();
        insta::assert_snapshot!(conf.prev_result().unwrap_err(), @"`prevResult.ips[0].address` is missing: give the address in CIDR notation");
        let without = BaseConf::parse(br#"{"cniVersion":"1.0.0","name":"n","type":"t"}"#).unwrap();
        assert_eq!(without.required_prev_result().unwrap_err().code, ErrorCode::InvalidNetworkConfig);
    }
}
