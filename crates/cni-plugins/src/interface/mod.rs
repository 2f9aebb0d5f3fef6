//! What the drop-in plugins `bridge` and `ptp` share: the names of a pod's link, and every verb but what ADD makes of the
//! node's end. They keep no records, as the reference does not: the kernel and the IPAM plugin are the state.

mod check;
mod detach;
mod forwarding;
mod gc;
mod name;
mod reference_pods;

use cni_spec::{
    AttachResult, AttachmentCall, CniError, Dns, ErrorCode, Interface, InterfaceConf, StatusConf, ipam_type,
};
use kernel::link;
use kernel::netlink::{Protocol, Socket};

use crate::answer::Answer;
use crate::call::Call;
use crate::failure::{io_failed, kernel_refused};
use crate::ipam::Ipam;
use crate::masquerade;
use crate::namespaces::Namespaces;
use crate::wiring::{LinkPlan, WiringError};

pub(crate) use check::{Checked, check, mac_difference};
pub(crate) use detach::{Belongings, del, detach};
pub(crate) use forwarding::enable_forwarding;
pub(crate) use gc::gc;
pub(crate) use name::{alias, host_link_name, number};
pub(crate) use reference_pods::Place;

/// Where the configuration and the kernel say nothing, Ethernet's.
pub(crate) const DEFAULT_MTU: u32 = 1500;

/// Refuses a pod that has such an interface, before anything is asked of the IPAM plugin: whatever failed later would be
/// undone, and with it what that interface has.
pub(crate) fn refuse_present<N>(namespaces: &Namespaces, pod: &AttachmentCall<N>) -> Result<(), CniError> {
    let ifname = pod.attachment.ifname();
    let found = namespaces
        .pod
        .run_from(&namespaces.node, || link::by_name(&mut Socket::open(Protocol::Route)?, ifname.as_str()));
    match found.and_then(|found| found).map_err(kernel_refused)? {
        None => Ok(()),
        Some(_) => {
            let present = WiringError::InterfaceExists(ifname.to_string());
            Err(CniError::new(ErrorCode::InterfaceExists, present.to_string()))
        }
    }
}

/// The IPAM plugin of a configuration, if it names one.
pub(crate) fn ipam_of(stdin: &[u8]) -> Result<Option<Ipam>, CniError> {
    ipam_type(stdin)?.map(|name| Ipam::named(&name)).transpose()
}

/// Writes the answer, in which `dns` of the configuration goes before that of the IPAM plugin.
pub(crate) fn give(
    answer: &mut Answer,
    conf: &InterfaceConf,
    mut result: AttachResult,
) -> Result<(), CniError> {
    if conf.dns != Dns::default() {
        result.dns = conf.dns.clone();
    }
    let json = result.to_json(conf.base.cni_version)?;
    answer.give(&json).map_err(|error| io_failed("write the result to standard output", &error))
}

/// The two ends of a link, as results tell them.
pub(crate) fn ends(plan: &LinkPlan, sandbox: &std::path::Path) -> [Interface; 2] {
    let interface = |name: &link_name::LinkName, mac, sandbox| Interface {
        name: name.to_string(),
        mac: attachment::MacAddress::new(mac).ok().map(String::from),
        sandbox,
        ..Interface::default()
    };
    let sandbox = Some(sandbox.to_string_lossy().into_owned());
    [interface(&plan.host_link, plan.host_mac, None), interface(&plan.pod_link, plan.pod_mac, sandbox)]
}

/// STATUS: as the IPAM plugin's; where `strictStatus` is set, also whether masquerading could be set up.
pub(crate) fn status(call: &Call<'_>) -> Result<(), CniError> {
    if StatusConf::parse(call.stdin)?.strict {
        let conf = InterfaceConf::parse(call.stdin)?;
        if conf.ip_masq {
            masquerade::status(conf.ip_masq_backend)
                .map_err(|error| CniError { code: ErrorCode::NotAvailable, ..error })?;
        }
    }
    ipam_of(call.stdin)?.map_or(Ok(()), |ipam| ipam.status(call))
}
