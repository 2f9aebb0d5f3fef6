//! The plugin `bandwidth`: limits what a pod receives and sends, behind whatever plugin made its pair of links. By the same
//! buckets as type `hostgw`, on links named as the reference plugin names them.

use std::path::Path;

use cni_spec::{
    AttachResult, Attachment, BandwidthConf, CallEnvironment, CniError, ErrorCode, Interface, NetworkName,
};
use kernel::link::{self, Link};
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::netns::NetNs;
use link_name::LinkName;

use crate::answer::Answer;
use crate::bandwidth::{shape, shape_differences};
use crate::call::Call;
use crate::chained::{Valid, pass_on, result_so_far, told};
use crate::failure::kernel_refused;
use crate::owner_tag;
use crate::wiring::delete_link;

/// How the reference plugin names links, and how many bytes a name has.
const PREFIX: &str = "bwp";
const NAME_LEN: usize = 15;

pub(crate) fn serve(call: &Call<'_>, answer: &mut Answer) -> Result<(), CniError> {
    match call.environment {
        CallEnvironment::Add(of) => {
            add(&of.attachment, &of.netns, &BandwidthConf::parse(call.stdin)?, answer)
        }
        CallEnvironment::Check(of) => check(&of.attachment, &of.netns, &BandwidthConf::parse(call.stdin)?),
        CallEnvironment::Del(of) => unshape(&call.base.name, &of.attachment),
        CallEnvironment::Gc => match Valid::read(call.stdin)? {
            Some(valid) => collect(&valid),
            None => Ok(()),
        },
        CallEnvironment::Status | CallEnvironment::Version => Ok(()),
    }
}

/// The link through which what the pod sends is led.
fn shaping_link(network: &NetworkName, attachment: &Attachment) -> Result<LinkName, CniError> {
    let hash = owner_tag::hashed(&format!("{network}{}", attachment.container_id()), NAME_LEN - PREFIX.len());
    LinkName::new(format!("{PREFIX}{hash}"))
        .map_err(|error| CniError::new(ErrorCode::Internal, format!("no name for the shaping link: {error}")))
}

fn add(
    attachment: &Attachment,
    netns: &Path,
    conf: &BandwidthConf,
    answer: &mut Answer,
) -> Result<(), CniError> {
    let mut result = result_so_far(&conf.base)?;
    if conf.shapes_subnets {
        answer.warn(
            "`shapedSubnets` and `unshapedSubnets` are not looked at: all of the pod's traffic is limited",
        );
    }
    if conf.limits.ingress.is_none() && conf.limits.egress.is_none() {
        return pass_on(&result, &conf.base, answer);
    }
    let mut host = Socket::open(Protocol::Route).map_err(kernel_refused)?;
    let pair = pair(&mut host, &result, attachment.ifname(), netns)?;
    let name = shaping_link(&conf.base.name, attachment)?;
    // One that is there is of an ADD that was broken off.
    remove(&name)?;
    match shape(&conf.limits, pair.index, pair.mtu, Some(&name), &mut host) {
        Ok(None) => {}
        Ok(Some(link)) => {
            let mut batch = Batch::new();
            link::set_alias(&mut batch, link.index, &owner_tag::of_attachment(&conf.base.name, attachment));
            host.execute_all(&mut batch).map_err(kernel_refused)?;
            result.interfaces.push(Interface {
                name: link.name,
                mac: link.mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":")),
                ..Interface::default()
            });
        }
        Err(error) => {
            remove(&name).ok();
            return Err(error);
        }
    }
    pass_on(&result, &conf.base, answer)
}

fn check(attachment: &Attachment, netns: &Path, conf: &BandwidthConf) -> Result<(), CniError> {
    let result = conf.base.required_prev_result()?;
    if conf.limits.ingress.is_none() && conf.limits.egress.is_none() {
        return Ok(());
    }
    let mut host = Socket::open(Protocol::Route).map_err(kernel_refused)?;
    let pair = pair(&mut host, &result, attachment.ifname(), netns)?;
    let name = shaping_link(&conf.base.name, attachment)?;
    let shaping = conf.limits.egress.map(|_| &name);
    let links = link::dump(&mut host).map_err(kernel_refused)?;
    let differences = shape_differences(&conf.limits, pair.index, pair.mtu, shaping, &links, &mut host);
    told(
        &format!("the limits of attachment {attachment} are not as ADD left them"),
        &differences.map_err(kernel_refused)?,
    )
}

/// The node's end of the pod's pair, which must be one that the result names.
fn pair(host: &mut Socket, result: &AttachResult, ifname: &LinkName, netns: &Path) -> Result<Link, CniError> {
    let refuse = |reason: String| {
        CniError::new(
            ErrorCode::InvalidNetworkConfig,
            format!("`{ifname}` in {} {reason}: chain `bandwidth` behind `bridge` or `ptp`", netns.display()),
        )
    };
    let pod = NetNs::open(netns).map_err(|error| {
        CniError::new(
            ErrorCode::InvalidNetworkNamespace,
            format!("`CNI_NETNS`: {error}; let the runtime make the pod anew"),
        )
    })?;
    let inside = pod
        .run(|| link::by_name(&mut Socket::open(Protocol::Route)?, ifname.as_str()))
        .and_then(|found| found)
        .map_err(kernel_refused)?;
    let peer = inside.and_then(|link| link.peer);
    let peer = peer.ok_or_else(|| refuse("has no peer on the node".to_owned()))?;
    let found = link::by_index(host, peer).map_err(kernel_refused)?;
    let is_named = |link: &Link| {
        result.interfaces.iter().any(|interface| interface.sandbox.is_none() && interface.name == link.name)
    };
    found.filter(is_named).ok_or_else(|| refuse("has a peer that `prevResult` does not name".to_owned()))
}

/// Removes the link through which the container's packets are led, whoever made it.
pub(crate) fn unshape(network: &NetworkName, attachment: &Attachment) -> Result<(), CniError> {
    remove(&shaping_link(network, attachment)?)
}

/// Removes the link, and what leads to it; one that is gone is well.
fn remove(name: &LinkName) -> Result<(), CniError> {
    let mut host = Socket::open(Protocol::Route).map_err(kernel_refused)?;
    let Some(found) = link::by_name(&mut host, name.as_str()).map_err(kernel_refused)? else { return Ok(()) };
    for led in leading_to(&mut host, found.index)? {
        let mut batch = Batch::new();
        kernel::traffic_control::delete_ingress(&mut batch, led);
        match host.execute_all(&mut batch) {
            Err(error) if !error.is_absent() && error.errno != rustix::io::Errno::INVAL => {
                return Err(kernel_refused(error));
            }
            _ => {}
        }
    }
    delete_link(&mut host, found.index, None).map_err(kernel_refused)
}

/// The links of which what comes in is led through this one.
fn leading_to(host: &mut Socket, index: u32) -> Result<Vec<u32>, CniError> {
    let mut leading = Vec::new();
    for veth in link::dump_kind(host, "veth").map_err(kernel_refused)? {
        let redirects = kernel::traffic_control::ingress_redirects(host, veth.index);
        if redirects.is_ok_and(|redirects| redirects.contains(&index)) {
            leading.push(veth.index);
        }
    }
    Ok(leading)
}

/// The links say whose they are; those of the reference plugin do not: GC of the main plugin knows of them
/// ([`unshape`]).
fn collect(valid: &Valid) -> Result<(), CniError> {
    let mut host = Socket::open(Protocol::Route).map_err(kernel_refused)?;
    let is_doomed = |link: &Link| {
        link.name.starts_with(PREFIX)
            && link
                .alias
                .as_ref()
                .is_some_and(|alias| alias.starts_with(&valid.network_tag) && !valid.tags.contains(alias))
    };
    for link in link::dump_kind(&mut host, "ifb").map_err(kernel_refused)?.into_iter().filter(is_doomed) {
        if let Ok(name) = LinkName::new(link.name) {
            remove(&name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_named_as_the_reference_plugin_names_them() {
        let network = NetworkName::new("cni-plugin-bandwidth-test").unwrap();
        let attachment = Attachment::new("dummy".parse().unwrap(), LinkName::new("eth0").unwrap());
        let name = shaping_link(&network, &attachment).unwrap();
        let hash = owner_tag::hashed("cni-plugin-bandwidth-testdummy", 12);
        assert_eq!(name.as_str(), format!("bwp{hash}"));
    }
}
