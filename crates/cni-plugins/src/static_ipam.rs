//! The IPAM plugin `static`: hands out the addresses that it is told. It keeps nothing, so that there is nothing to
//! release or to collect.

use cni_spec::{AttachResult, CallEnvironment, CniArgs, CniError, ErrorCode, StaticConf};

use crate::answer::Answer;
use crate::call::Call;
use crate::failure::io_failed;

/// Serves one call of the plugin.
pub(crate) fn serve(call: &Call<'_>, answer: &mut Answer) -> Result<(), CniError> {
    match call.environment {
        CallEnvironment::Add(pod) => {
            let json = add(&StaticConf::parse(call.stdin, &pod.args)?).to_json(call.base.cni_version)?;
            answer.give(&json).map_err(|error| io_failed("write the result to standard output", &error))
        }
        CallEnvironment::Check(pod) => check(call.stdin, &pod.args),
        CallEnvironment::Del(_)
        | CallEnvironment::Gc
        | CallEnvironment::Status
        | CallEnvironment::Version => Ok(()),
    }
}

/// What the plugin answers.
pub(crate) fn add(conf: &StaticConf) -> AttachResult {
    AttachResult {
        ips: conf.addresses.clone(),
        routes: conf.routes.clone(),
        dns: conf.dns.clone(),
        ..AttachResult::default()
    }
}

/// Verifies that `prevResult` has each address, with its gateway.
pub(crate) fn check(stdin: &[u8], args: &CniArgs) -> Result<(), CniError> {
    let conf = StaticConf::parse(stdin, args)?;
    let expected = conf.base.required_prev_result()?;
    let missing = conf.addresses.iter().find(|wanted| {
        let has = |ip: &&cni_spec::IpConfig| ip.address.addr() == wanted.address.addr();
        let found = expected.ips.iter().find(has);
        found.is_none_or(|found| wanted.gateway.is_some() && wanted.gateway != found.gateway)
    });
    match missing {
        None => Ok(()),
        Some(ip) => Err(CniError::new(
            ErrorCode::CheckFailed,
            format!(
                "address {} of the configuration is not in `prevResult`, or has another gateway",
                ip.address
            ),
        )),
    }
}
