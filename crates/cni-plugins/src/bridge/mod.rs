//! The plugin `bridge`, as a drop-in for the reference's: each pod on a port of a bridge of the node.

mod add;
mod check;
mod gateway;
mod make;
pub(crate) mod spoof_check;
mod vlan;

use cni_spec::{BridgeConf, CallEnvironment, CniError};

use crate::answer::Answer;
use crate::call::Call;
use crate::interface::{self, Place};

/// Serves one call of the plugin.
pub(crate) fn serve(call: &Call<'_>, answer: &mut Answer) -> Result<(), CniError> {
    // Where the configuration cannot be read, there may be a check to remove.
    let spoof_check = || BridgeConf::parse(call.stdin).map_or(true, |conf| conf.mac_spoof_check);
    let place = || BridgeConf::parse(call.stdin).ok().map(|conf| Place::Bridge(conf.bridge));
    match call.environment {
        CallEnvironment::Add(pod) => add::add(call, pod, &BridgeConf::parse(call.stdin)?, answer),
        CallEnvironment::Check(pod) => check::check(call, pod, &BridgeConf::parse(call.stdin)?),
        CallEnvironment::Del(pod) => interface::del(call, pod, spoof_check()),
        CallEnvironment::Gc => interface::gc(call, place().as_ref(), spoof_check(), answer),
        CallEnvironment::Status => interface::status(call),
        CallEnvironment::Version => Ok(()),
    }
}
