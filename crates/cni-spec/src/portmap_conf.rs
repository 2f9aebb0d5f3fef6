//! The configuration of the plugin `portmap`.

use crate::base_conf::{BaseConf, parse_conf};
use crate::capability::{Capabilities, PortMapping};
use crate::error::CniError;
use crate::field::Field;
use crate::rule_backend::RuleBackend;

/// The bit of the mark that the reference plugin uses where none is given.
const DEFAULT_MARK_BIT: u8 = 13;
const MAX_CONDITIONS: usize = 256;
/// `XT_EXTENSION_MAXNAMELEN` less the NUL.
const MAX_CHAIN_LEN: usize = 28;

/// Everything that ADD and CHECK are told.
#[derive(Clone, Debug, PartialEq)]
pub struct PortmapConf {
    /// The common part.
    pub base: BaseConf,
    /// `backend`, or the one that other keys ask for; none leaves the choice to the plugin.
    pub backend: Option<RuleBackend>,
    /// `snat`: whether the ports also work from localhost and from the pod itself. By default they do.
    pub snat: bool,
    /// `masqAll`: whether everybody who comes by a port is shown to the pod as the node.
    pub masq_all: bool,
    /// `markMasqBit`, 0 to 31: the bit of the packets' mark by which iptables knows what to masquerade.
    pub mark_bit: u8,
    /// `externalSetMarkChain`: somebody else's chain that sets a mark to be masqueraded by.
    pub external_set_mark_chain: Option<String>,
    /// `conditionsV4`: words of iptables in front of each rule.
    pub conditions_v4: Vec<String>,
    /// `conditionsV6`.
    pub conditions_v6: Vec<String>,
    /// `runtimeConfig.portMappings`.
    pub port_mappings: Vec<PortMapping>,
}

impl PortmapConf {
    /// Reads what the runtime wrote to stdin.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let (conf, prev_result) = parse_conf(stdin)?;
        let conf = Field::conf(&conf);
        let base = BaseConf::read(&conf, prev_result)?;
        let wanted = conf.optional("backend", |backend| RuleBackend::read(&backend))?.flatten();
        let external = conf.optional("externalSetMarkChain", |chain| read_chain(&chain))?;
        let mark_bit = conf.optional("markMasqBit", |bit| bit.number_as(0..=31))?;
        if external.is_some() && mark_bit.is_some() {
            return Err(conf.refuse_key_because(
                "externalSetMarkChain",
                "it cannot go together with `markMasqBit`; remove one",
            ));
        }
        let conditions_v4 = conf.each("conditionsV4", MAX_CONDITIONS, |word| read_word(&word))?;
        let conditions_v6 = conf.each("conditionsV6", MAX_CONDITIONS, |word| read_word(&word))?;
        let backend = [
            ("externalSetMarkChain", external.as_ref().map(|_| RuleBackend::Iptables)),
            ("conditionsV4", language(&conditions_v4)),
            ("conditionsV6", language(&conditions_v6)),
        ]
        .into_iter()
        .filter_map(|(key, needed)| Some((key, needed?)))
        .try_fold(wanted, |backend, (key, needed)| match backend {
            Some(other) if other != needed => Err(conf.refuse_key_because(
                key,
                format!(
                    "it is in the words of {} and `backend` is another; change one of them",
                    match needed {
                        RuleBackend::Iptables => "iptables",
                        RuleBackend::Nftables => "nftables",
                    }
                ),
            )),
            _ => Ok(Some(needed)),
        })?;
        Ok(Self {
            base,
            backend,
            snat: conf.optional("snat", Field::boolean)?.unwrap_or(true),
            masq_all: conf.optional("masqAll", Field::boolean)?.unwrap_or_default(),
            mark_bit: mark_bit.unwrap_or(DEFAULT_MARK_BIT),
            external_set_mark_chain: external,
            conditions_v4,
            conditions_v6,
            port_mappings: Capabilities::read(&conf)?.port_mappings,
        })
    }
}

/// A word of a rule; it must not end the line that it stands in.
fn read_word(field: &Field<'_, '_>) -> Result<String, CniError> {
    let text = field.text()?;
    if text.chars().any(char::is_control) {
        return Err(field.refuse("a word of a rule has no control characters; remove them"));
    }
    Ok(text.to_owned())
}

/// The name of a chain.
pub(crate) fn read_chain(field: &Field<'_, '_>) -> Result<String, CniError> {
    let text = field.text()?;
    let is_word = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | '!');
    if text.is_empty() || text.len() > MAX_CHAIN_LEN || text.starts_with('-') || !text.chars().all(is_word) {
        return Err(
            field.refuse(format!("give the name of a chain, at most {MAX_CHAIN_LEN} letters and digits"))
        );
    }
    Ok(text.to_owned())
}

/// iptables' conditions begin with a dash or an exclamation mark, those of nftables never do.
fn language(conditions: &[String]) -> Option<RuleBackend> {
    let first = conditions.first()?;
    match first.starts_with(['-', '!']) {
        true => Some(RuleBackend::Iptables),
        false if first.is_empty() => None,
        false => Some(RuleBackend::Nftables),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<PortmapConf, CniError> {
        let stdin = format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"portmap"{rest}}}"#);
        PortmapConf::parse(stdin.as_bytes())
    }

    #[test]
    fn defaults_are_those_of_the_reference_plugin_but_for_the_backend() {
        let conf = parse("").unwrap();
        assert_eq!((conf.snat, conf.masq_all, conf.mark_bit, conf.backend), (true, false, 13, None));
    }

    #[test]
    fn words_of_one_backend_choose_it() {
        let backend = |rest: &str| parse(rest).unwrap().backend;
        assert_eq!(backend(r#","conditionsV4":["!","-s","10.0.0.0/8"]"#), Some(RuleBackend::Iptables));
        assert_eq!(backend(r#","conditionsV6":["iifname","eth0"]"#), Some(RuleBackend::Nftables));
        assert_eq!(backend(r#","externalSetMarkChain":"KUBE-MARK-MASQ""#), Some(RuleBackend::Iptables));
        assert_eq!(backend(r#","conditionsV4":[],"backend":"nftables""#), Some(RuleBackend::Nftables));
    }

    #[test]
    fn each_wrong_key_is_named() {
        let refused: Vec<String> = [
            r#","backend":"pf""#,
            r#","snat":"no""#,
            r#","markMasqBit":32"#,
            r#","markMasqBit":1,"externalSetMarkChain":"X""#,
            r#","externalSetMarkChain":"two words""#,
            r#","conditionsV4":"-s""#,
            r#","conditionsV4":["-s\n-X"]"#,
            r#","conditionsV4":["-s"],"backend":"nftables""#,
            r#","conditionsV4":["-s"],"conditionsV6":["ip6"]"#,
            r#","runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":0}]}"#,
        ]
        .map(|rest| parse(rest).unwrap_err().msg)
        .to_vec();
        insta::assert_debug_snapshot!(refused);
    }
}
