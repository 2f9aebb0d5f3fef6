//! The plugin `tuning`: sysctls of the pod's network, and settings of its interface, which DEL sets back.

mod allowlist;
mod backup;
mod settings;
mod sysctls;

use std::path::Path;

use cni_spec::{Attachment, CallEnvironment, CniError, ErrorCode, TuningConf};
use kernel::KernelError;
use kernel::link::{self, Link};
use kernel::netlink::{Protocol, Socket};
use kernel::netns::NetNs;
use kernel::sysctl::Sysctls;
use link_name::LinkName;

use crate::answer::Answer;
use crate::call::Call;
use crate::chained::{Valid, pass_on, result_so_far, told};
use crate::failure::kernel_refused;
use backup::Backup;
use settings::Settings;

pub(crate) fn serve(call: &Call<'_>, answer: &mut Answer) -> Result<(), CniError> {
    match call.environment {
        CallEnvironment::Add(of) => {
            add(&of.attachment, &of.netns, &TuningConf::parse(call.stdin, &of.args)?, answer)
        }
        CallEnvironment::Check(of) => {
            check(&of.attachment, &of.netns, &TuningConf::parse(call.stdin, &of.args)?)
        }
        CallEnvironment::Del(of) => {
            // What it asks for may be wrong, and what was made before must go all the same.
            del(&of.attachment, of.netns.as_deref(), &TuningConf::parse_data_dir(call.stdin)?)
        }
        CallEnvironment::Gc => match Valid::read(call.stdin)? {
            Some(valid) => {
                let data_dir = TuningConf::parse_data_dir(call.stdin)?;
                backup::collect(&data_dir, &valid.network, &valid.attachments)
            }
            None => Ok(()),
        },
        CallEnvironment::Status | CallEnvironment::Version => Ok(()),
    }
}

fn add(
    attachment: &Attachment,
    netns: &Path,
    conf: &TuningConf,
    answer: &mut Answer,
) -> Result<(), CniError> {
    let mut result = result_so_far(&conf.base)?;
    let keys = sysctls::paths(&conf.sysctls, attachment.ifname())?;
    allowlist::check(conf.sysctls.keys())?;
    let pod = open(netns)?;
    inside(&pod, || {
        let before = sysctls::set(&keys)?;
        let tuned = tune(attachment, conf);
        if tuned.is_err() {
            // Nothing half-made stays behind.
            sysctls::set_back(&before);
        }
        tuned
    })?;
    if let Some(mac) = conf.mac {
        for interface in result.interfaces.iter_mut().filter(|held| held.name == attachment.ifname().as_str())
        {
            interface.mac = Some(mac.to_string());
        }
    }
    pass_on(&result, &conf.base, answer)
}

fn tune(attachment: &Attachment, conf: &TuningConf) -> Result<(), CniError> {
    if !conf.changes_link() {
        return Ok(());
    }
    let mut socket = Socket::open(Protocol::Route).map_err(kernel_refused)?;
    let link = find(&mut socket, attachment.ifname())?;
    let backup = Backup::of(&link, conf);
    backup.write(&conf.data_dir, attachment)?;
    let changed = Settings::wanted(conf).apply(link.index, &mut socket);
    if changed.is_err() {
        backup.settings().apply(link.index, &mut socket).ok();
        backup::remove(&conf.data_dir, attachment).ok();
    }
    changed.map_err(kernel_refused)
}

fn check(attachment: &Attachment, netns: &Path, conf: &TuningConf) -> Result<(), CniError> {
    conf.base.required_prev_result()?;
    let keys = sysctls::paths(&conf.sysctls, attachment.ifname())?;
    let differences = inside(&open(netns)?, || {
        let mut differences = sysctls::differences(&keys)?;
        let mut socket = Socket::open(Protocol::Route).map_err(kernel_refused)?;
        let link = find(&mut socket, attachment.ifname())?;
        differences.extend(Settings::wanted(conf).differences(&link));
        Ok(differences)
    })?;
    told(&format!("the settings of attachment {attachment} are not as ADD left them"), &differences)
}

/// A namespace or link that is gone has nothing to set back, and the node's own links are no pod's.
fn del(attachment: &Attachment, netns: Option<&Path>, data_dir: &Path) -> Result<(), CniError> {
    if let Some(backup) = Backup::read(data_dir, attachment)
        && let Some(pod) = netns.and_then(|netns| open(netns).ok())
    {
        inside(&pod, || {
            let mut socket = Socket::open(Protocol::Route).map_err(kernel_refused)?;
            match link::by_name(&mut socket, attachment.ifname().as_str()).map_err(kernel_refused)? {
                Some(link) => backup.settings().apply(link.index, &mut socket).map_err(kernel_refused),
                None => Ok(()),
            }
        })?;
    }
    backup::remove(data_dir, attachment)
}

fn open(netns: &Path) -> Result<NetNs, CniError> {
    let refused = |reason: String| CniError::new(ErrorCode::InvalidNetworkNamespace, reason);
    let pod = NetNs::open(netns)
        .map_err(|error| refused(format!("`CNI_NETNS`: {error}; let the runtime make the pod anew")))?;
    let own = NetNs::current().and_then(|own| own.id()).map_err(kernel_refused)?;
    if pod.id().map_err(kernel_refused)? == own {
        return Err(refused(format!(
            "`CNI_NETNS` {} is the node's own network namespace: give the pod's",
            netns.display()
        )));
    }
    Ok(pod)
}

fn inside<T>(pod: &NetNs, work: impl FnOnce() -> Result<T, CniError>) -> Result<T, CniError> {
    pod.run(work).map_err(kernel_refused)?
}

fn find(socket: &mut Socket, ifname: &LinkName) -> Result<Link, CniError> {
    let found = link::by_name(socket, ifname.as_str()).map_err(kernel_refused)?;
    found.ok_or_else(|| {
        kernel_refused(KernelError::new(format!("find `{ifname}` in the pod"), rustix::io::Errno::NODEV))
    })
}

/// Where the pod's settings are, seen from inside.
fn pod_sysctls() -> Sysctls {
    Sysctls::default()
}
