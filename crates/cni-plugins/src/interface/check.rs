//! CHECK: whether the link, its addresses, routes and rules are still what `prevResult` says. Every difference is told.

use std::net::IpAddr;
use std::path::PathBuf;

use cni_spec::{AttachResult, AttachmentCall, CniError, ErrorCode, Interface, InterfaceConf, Route};
use ipnet::IpNet;
use kernel::link::Link;

use super::ipam_of;
use crate::call::Call;
use crate::failure::kernel_refused;
use crate::inspection::{Place, Side, difference};
use crate::masquerade::Masquerade;
use crate::namespaces::Namespaces;
use crate::wiring::Step;

/// What CHECK found so far, for what a plugin adds.
pub(crate) struct Checked {
    pub(crate) expected: AttachResult,
    pub(crate) node: Side,
    /// The node's end, if it is there.
    pub(crate) host_link: Option<Link>,
    pub(crate) differences: Vec<String>,
}

/// Verifies what `bridge` and `ptp` have in common; [`Checked::verdict`] ends it. `is_up` says whether the pod's
/// interface is to be up.
pub(crate) fn check(
    call: &Call<'_>,
    pod: &AttachmentCall<PathBuf>,
    conf: &InterfaceConf,
    is_up: bool,
) -> Result<Checked, CniError> {
    let expected = conf.base.required_prev_result()?;
    if let Some(ipam) = ipam_of(call.stdin)? {
        ipam.check(call, pod)?;
    }
    let namespaces = Namespaces::open(&pod.netns, pod.netns_override)?;
    let node = Side::observe()?;
    let inside = namespaces.pod.run(Side::observe).map_err(kernel_refused)??;
    let ifname = pod.attachment.ifname().as_str();
    let mut differences = Vec::new();
    let own = expected.interfaces.iter().position(|it| it.name == ifname && it.sandbox.is_some());
    let interface = own.and_then(|index| expected.interfaces.get(index));
    let sandbox = interface.and_then(|interface| interface.sandbox.as_deref());
    if sandbox.is_some_and(|sandbox| sandbox != pod.netns.to_string_lossy()) {
        differences
            .push(format!("`prevResult` has interface `{ifname}` in another namespace than CNI_NETNS"));
    }
    let link = inside.link(ifname);
    let host_link = link.and_then(|link| link.peer).and_then(|peer| {
        node.links.iter().find(|link| link.index == peer && link.kind.as_deref() == Some("veth")).cloned()
    });
    match link {
        None => differences.push(format!("interface `{ifname}` is gone from the pod")),
        Some(link) if link.kind.as_deref() != Some("veth") => {
            differences.push(format!("interface `{ifname}` is no veth link"));
        }
        Some(link) => {
            let what = format!("interface `{ifname}`");
            differences.extend(interface.and_then(|interface| mac_difference(&what, interface, link)));
            let up = is_up.then_some(Step::Up);
            let ips = expected.ips.iter().filter(|ip| ip.interface.is_none() || ip.interface == own);
            let steps = up.into_iter().chain(ips.map(|ip| Step::Address(ip.address)));
            differences.extend(steps.filter_map(|step| difference(&step, link, &inside, Place::Pod)));
            differences.extend(expected.routes.iter().filter_map(|route| route_difference(route, &inside)));
            differences.extend(host_difference(&expected, host_link.as_ref(), &node));
        }
    }
    if conf.ip_masq {
        let masquerade = Masquerade { network: &call.base.name, attachment: &pod.attachment };
        let pods: Vec<IpNet> = expected.ips.iter().map(|ip| ip.address).collect();
        differences.extend(masquerade.differences(conf.ip_masq_backend, &pods)?);
    }
    Ok(Checked { expected, node, host_link, differences })
}

impl Checked {
    /// Fails where anything differs.
    pub(crate) fn verdict(self, call: &Call<'_>) -> Result<(), CniError> {
        if self.differences.is_empty() {
            return Ok(());
        }
        let of = call.environment.attachment().map(ToString::to_string).unwrap_or_default();
        Err(CniError::new(
            ErrorCode::CheckFailed,
            format!("attachment {of} is not as ADD left it: {}", self.differences.join("; ")),
        )
        .with_details("delete the pod, so that its controller makes a new one"))
    }
}

/// The Ethernet address that the result tells of a link.
pub(crate) fn mac_difference(what: &str, told: &Interface, link: &Link) -> Option<String> {
    let wanted = told.mac.as_ref()?.parse::<attachment::MacAddress>().ok()?;
    (link.mac != Some(wanted.octets())).then(|| format!("{what} has another Ethernet address than {wanted}"))
}

/// The node's end must be there, up, and one of the result's.
fn host_difference(expected: &AttachResult, host_link: Option<&Link>, node: &Side) -> Vec<String> {
    let Some(link) = host_link else { return vec!["the node's end of its link is gone".to_owned()] };
    let mut differences = Vec::new();
    match expected.interfaces.iter().find(|told| told.sandbox.is_none() && told.name == link.name) {
        Some(told) => differences.extend(mac_difference(&format!("link `{}`", link.name), told, link)),
        None => differences.push(format!("its link is `{}`, of which `prevResult` says nothing", link.name)),
    }
    differences.extend(difference(&Step::Up, link, node, Place::Node));
    differences
}

/// A route of the result must be in the pod; what the result leaves out is whatever it is.
fn route_difference(wanted: &Route, inside: &Side) -> Option<String> {
    let gateway = |found: &kernel::route::Route| found.hops.first().and_then(|hop| hop.gateway);
    let mut alike = inside.routes.iter().filter(|found| {
        found.destination.trunc() == wanted.dst.trunc() && found.table == wanted.effective_table()
    });
    let is_wanted =
        |found: &kernel::route::Route| wanted.gw.is_none_or(|gw: IpAddr| gateway(found) == Some(gw));
    match alike.clone().next() {
        None => Some(format!("route {} is gone from the pod", wanted.dst)),
        Some(_) if alike.any(is_wanted) => None,
        Some(found) => {
            let shown = |gw: Option<IpAddr>| gw.map_or_else(|| "none".to_owned(), |gw| gw.to_string());
            Some(format!(
                "route {} in the pod has gateway {}, not {}",
                wanted.dst,
                shown(gateway(found)),
                shown(wanted.gw)
            ))
        }
    }
}
