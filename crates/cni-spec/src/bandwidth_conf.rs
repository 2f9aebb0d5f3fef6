//! The configuration of the plugin `bandwidth`.

use crate::base_conf::{BaseConf, parse_conf};
use crate::capability::{Bandwidth, Capabilities};
use crate::error::CniError;
use crate::field::Field;

/// Everything that a call is told.
#[derive(Clone, Debug, PartialEq)]
pub struct BandwidthConf {
    /// The common part.
    pub base: BaseConf,
    /// The limits: those beside the common part if there are any, or else `runtimeConfig.bandwidth`.
    pub limits: Bandwidth,
    /// `shapedSubnets` or `unshapedSubnets` ask for a part of the traffic. Only the reference's releases 1.7 and 1.8 have
    /// them; the newest shapes all, and so is it done here.
    pub shapes_subnets: bool,
}

impl BandwidthConf {
    /// Reads what the runtime wrote to stdin.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let (conf, prev_result) = parse_conf(stdin)?;
        let conf = Field::conf(&conf);
        let base = BaseConf::read(&conf, prev_result)?;
        let mut shapes_subnets = false;
        for key in ["shapedSubnets", "unshapedSubnets"] {
            shapes_subnets |=
                conf.optional(key, |subnets| Ok(subnets.list(usize::MAX)?.len() > 0))? == Some(true);
        }
        let own = Bandwidth::read_beside(&conf)?;
        let limits = match own {
            Some(own) => own,
            None => Capabilities::read(&conf)?.bandwidth,
        };
        Ok(Self { base, limits, shapes_subnets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<BandwidthConf, CniError> {
        let stdin = format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"bandwidth"{rest}}}"#);
        BandwidthConf::parse(stdin.as_bytes())
    }

    #[test]
    fn limits_beside_the_common_part_win() {
        let runtime = r#","runtimeConfig":{"bandwidth":{"ingressRate":800,"ingressBurst":800}}"#;
        assert_eq!(parse(runtime).unwrap().limits.ingress.unwrap().rate, 800);
        let both = format!(r#"{runtime},"egressRate":16,"egressBurst":16"#);
        let limits = parse(&both).unwrap().limits;
        assert_eq!((limits.ingress, limits.egress.unwrap().rate), (None, 16));
        // As Go reads them: a key that is there makes them the configuration's, also with nothing in it.
        assert_eq!(parse(&format!(r#"{runtime},"egressRate":0"#)).unwrap().limits, Bandwidth::default());
    }

    #[test]
    fn a_rate_without_a_burst_and_a_burst_without_a_rate_are_named() {
        for (rest, named) in [
            (r#","ingressRate":800"#, "`ingressBurst` is missing"),
            (r#","egressBurst":800"#, "`egressRate` is missing"),
            (r#","egressBurst":-1,"egressRate":8"#, "`egressBurst` is -1"),
            (r#","shapedSubnets":"10.0.0.0/8""#, "`shapedSubnets` is"),
        ] {
            let error = parse(rest).unwrap_err();
            assert!(error.msg.starts_with(named), "{error}");
        }
        assert!(parse(r#","unshapedSubnets":["10.0.0.0/8"]"#).unwrap().shapes_subnets);
    }
}
