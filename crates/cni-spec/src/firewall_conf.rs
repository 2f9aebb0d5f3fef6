//! The configuration of the plugin `firewall`.

use crate::base_conf::{BaseConf, parse_conf};
use crate::error::CniError;
use crate::field::Field;
use crate::portmap_conf::read_chain;

const DEFAULT_ADMIN_CHAIN: &str = "CNI-ADMIN";
const DEFAULT_ZONE: &str = "trusted";

/// What keeps the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirewallBackend {
    /// iptables' table `filter`, by the plain name's flavour.
    Iptables,
    /// The same chains, written over netlink where nftables holds them.
    Nftables,
    /// A zone of firewalld.
    Firewalld,
}

/// Who may begin to speak to a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IngressPolicy {
    /// Everybody.
    #[default]
    Open,
    /// Pods of other bridges with a policy may not.
    SameBridge,
    /// Pods of its own bridge may not either.
    Isolated,
}

impl IngressPolicy {
    /// The word in configurations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::SameBridge => "same-bridge",
            Self::Isolated => "isolated",
        }
    }
}

/// Everything that a call is told.
#[derive(Clone, Debug, PartialEq)]
pub struct FirewallConf {
    /// The common part.
    pub base: BaseConf,
    /// `backend`; none leaves the choice to the plugin.
    pub backend: Option<FirewallBackend>,
    /// `iptablesAdminChainName`: the chain in which an administrator's rules come before ours.
    pub admin_chain: String,
    /// `firewalldZone`.
    pub firewalld_zone: String,
    /// `ingressPolicy`.
    pub ingress_policy: IngressPolicy,
}

impl FirewallConf {
    /// Reads what the runtime wrote to stdin.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let (conf, prev_result) = parse_conf(stdin)?;
        let conf = Field::conf(&conf);
        let base = BaseConf::read(&conf, prev_result)?;
        let backend = conf.optional("backend", |backend| {
            backend.choice(&[
                ("", None),
                ("iptables", Some(FirewallBackend::Iptables)),
                ("nftables", Some(FirewallBackend::Nftables)),
                ("firewalld", Some(FirewallBackend::Firewalld)),
            ])
        })?;
        let admin_chain = conf.optional("iptablesAdminChainName", |chain| match chain.text()? {
            "" => Ok(None),
            _ => read_chain(&chain).map(Some),
        })?;
        let zone = conf.optional("firewalldZone", Field::owned_text)?.filter(|zone| !zone.is_empty());
        let policy = conf.optional("ingressPolicy", |policy| {
            policy.choice(&[
                ("", IngressPolicy::Open),
                ("open", IngressPolicy::Open),
                ("same-bridge", IngressPolicy::SameBridge),
                ("isolated", IngressPolicy::Isolated),
            ])
        })?;
        Ok(Self {
            base,
            backend: backend.flatten(),
            admin_chain: admin_chain.flatten().unwrap_or_else(|| DEFAULT_ADMIN_CHAIN.to_owned()),
            firewalld_zone: zone.unwrap_or_else(|| DEFAULT_ZONE.to_owned()),
            ingress_policy: policy.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<FirewallConf, CniError> {
        FirewallConf::parse(
            format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"firewall"{rest}}}"#).as_bytes(),
        )
    }

    #[test]
    fn empty_texts_are_the_defaults() {
        let plain = parse("").unwrap();
        assert_eq!(
            (plain.admin_chain.as_str(), plain.firewalld_zone.as_str(), plain.backend),
            ("CNI-ADMIN", "trusted", None)
        );
        let empty = r#","backend":"","iptablesAdminChainName":"","firewalldZone":"","ingressPolicy":"""#;
        assert_eq!(parse(empty).unwrap(), plain);
    }

    #[test]
    fn each_wrong_key_is_named() {
        let refused: Vec<String> = [
            r#","backend":"pf""#,
            r#","backend":1"#,
            r#","iptablesAdminChainName":"a chain""#,
            r#","iptablesAdminChainName":"-X""#,
            r#","ingressPolicy":"closed""#,
            r#","firewalldZone":7"#,
        ]
        .map(|rest| parse(rest).unwrap_err().msg)
        .to_vec();
        insta::assert_debug_snapshot!(refused);
    }
}
