//! The plugin `firewall`: what a pod sends is forwarded, and so are the answers to it, whatever else the node's `FORWARD`
//! refuses; and pods of different bridges are kept apart where that is wanted.
//!
//! An accept in a chain of our own would not override somebody else's drop. So the rules stand where those who drop look:
//! in iptables' table `filter`, in the chains and words of the reference plugin, or in a zone of firewalld.

mod bus;
mod filter;
mod isolation;
mod owners;
mod zone;

use std::net::IpAddr;

use cni_spec::{
    AttachResult, Attachment, BaseConf, CallEnvironment, CniError, FirewallBackend, FirewallConf,
    IngressPolicy,
};
use kernel::route::Family;

use crate::answer::Answer;
use crate::call::Call;
use crate::chained::{Valid, all, pass_on, result_so_far, told};
use crate::failure::kernel_refused;
use crate::xtables::{Xtables, XtablesError};

pub(crate) fn serve(call: &Call<'_>, answer: &mut Answer) -> Result<(), CniError> {
    match call.environment {
        CallEnvironment::Add(of) => add(&of.attachment, &FirewallConf::parse(call.stdin)?, answer),
        CallEnvironment::Check(of) => check(&of.attachment, &FirewallConf::parse(call.stdin)?),
        CallEnvironment::Del(of) => del(&of.attachment, call),
        CallEnvironment::Gc => match Valid::read(call.stdin)? {
            Some(valid) => forget(call, &owners::collect(&valid).map_err(kernel_refused)?),
            None => Ok(()),
        },
        CallEnvironment::Status => status(&FirewallConf::parse(call.stdin)?),
        CallEnvironment::Version => Ok(()),
    }
}

fn add(attachment: &Attachment, conf: &FirewallConf, answer: &mut Answer) -> Result<(), CniError> {
    let result = result_so_far(&conf.base)?;
    let pods = addresses(&result);
    owners::note(&conf.base.name, attachment, &pods).map_err(kernel_refused)?;
    if keeps_zone(conf) {
        zone::add(&conf.firewalld_zone, &pods)?;
    } else {
        filter::accept(conf, &pods)?;
    }
    if conf.ingress_policy != IngressPolicy::Open {
        isolation::set_up(conf, &isolation::bridge_of(conf, &result)?, &pods)?;
    }
    pass_on(&result, &conf.base, answer)
}

fn check(attachment: &Attachment, conf: &FirewallConf) -> Result<(), CniError> {
    let result = conf.base.required_prev_result()?;
    let pods = addresses(&result);
    let mut differences = if keeps_zone(conf) {
        zone::differences(&conf.firewalld_zone, &pods)?
    } else {
        filter::differences(conf, &pods)?
    };
    if conf.ingress_policy != IngressPolicy::Open {
        differences.extend(isolation::differences(conf, &isolation::bridge_of(conf, &result)?, &pods)?);
    }
    told(&format!("the rules of attachment {attachment} are not as ADD left them"), &differences)
}

/// With or without the result of ADD, and whatever else the configuration says by now.
fn del(attachment: &Attachment, call: &Call<'_>) -> Result<(), CniError> {
    let told = told_addresses(call.base);
    forget(call, &owners::forget(&call.base.name, attachment, &told).map_err(kernel_refused)?)
}

/// Removes what there is of addresses that are nobody's any more, in the zone of the configuration and in the filter.
fn forget(call: &Call<'_>, pods: &[IpAddr]) -> Result<(), CniError> {
    let of_zone = match FirewallConf::parse(call.stdin) {
        Ok(conf) if !pods.is_empty() && keeps_zone(&conf) => zone::remove(&conf.firewalld_zone, pods),
        _ => Ok(()),
    };
    all([of_zone, filter::forget(pods)])
}

/// Removes the rules of addresses that nobody has any more, and which the reference made: ours say whose they are, and are
/// left to GC of this plugin.
pub(crate) fn forget_of_reference(pods: &[IpAddr]) -> Result<(), CniError> {
    filter::forget(&owners::unknown(pods).map_err(kernel_refused)?)
}

/// A result that cannot be read keeps nothing from being removed.
fn told_addresses(base: &BaseConf) -> Vec<IpAddr> {
    base.prev_result().ok().flatten().map(|result| addresses(&result)).unwrap_or_default()
}

fn addresses(result: &AttachResult) -> Vec<IpAddr> {
    result.ips.iter().map(|ip| ip.address.addr()).collect()
}

fn status(conf: &FirewallConf) -> Result<(), CniError> {
    match conf.backend {
        Some(FirewallBackend::Iptables) => crate::xtables::status(),
        Some(FirewallBackend::Firewalld) => zone::status(),
        Some(FirewallBackend::Nftables) | None => crate::owned_table::status(),
    }
}

/// firewalld, where it runs, refuses what it was not told of; so it is told, if nothing else is wanted.
fn keeps_zone(conf: &FirewallConf) -> bool {
    match conf.backend {
        Some(FirewallBackend::Firewalld) => true,
        Some(FirewallBackend::Iptables | FirewallBackend::Nftables) => false,
        None => zone::is_running(),
    }
}

/// Where the rules of one version of IP go.
fn place(conf: &FirewallConf, version: Family) -> Result<Xtables, XtablesError> {
    match conf.backend {
        Some(FirewallBackend::Iptables) => Xtables::named(version),
        _ => Xtables::deciding(version, filter::TABLE),
    }
}

fn versions(pods: &[IpAddr]) -> Vec<Family> {
    let has = |version: &Family| pods.iter().any(|pod| pod.is_ipv4() == (*version == Family::V4));
    crate::xtables::BOTH.into_iter().filter(has).collect()
}
