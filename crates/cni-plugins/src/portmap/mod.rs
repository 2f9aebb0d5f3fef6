//! The plugin `portmap`: ports of the node that lead to a pod, behind whatever plugin made the pod's interface.

mod chains;
mod near;
mod reference;
mod table;

use cni_spec::{AttachResult, Attachment, CallEnvironment, CniError, NetworkName, PortmapConf, RuleBackend};

use crate::answer::Answer;
use crate::call::Call;
use crate::chained::{Valid, all, by_either, first_addresses, pass_on, result_so_far, told};
use crate::failure::kernel_refused;
use near::Near;

pub(crate) use reference::close_at;

/// Whose ports, and which.
struct Ports<'a> {
    conf: &'a PortmapConf,
    attachment: &'a Attachment,
    /// The pod's addresses and how the node stands to them.
    pods: Vec<Near>,
}

pub(crate) fn serve(call: &Call<'_>, answer: &mut Answer) -> Result<(), CniError> {
    match call.environment {
        CallEnvironment::Add(of) => add(&of.attachment, &PortmapConf::parse(call.stdin)?, answer),
        CallEnvironment::Check(of) => check(&of.attachment, &PortmapConf::parse(call.stdin)?),
        CallEnvironment::Del(of) => remove(&call.base.name, &of.attachment),
        CallEnvironment::Gc => match Valid::read(call.stdin)? {
            Some(valid) => collect(&valid),
            None => Ok(()),
        },
        CallEnvironment::Status => status(&PortmapConf::parse(call.stdin)?),
        CallEnvironment::Version => Ok(()),
    }
}

fn add(attachment: &Attachment, conf: &PortmapConf, answer: &mut Answer) -> Result<(), CniError> {
    let result = result_so_far(&conf.base)?;
    if !conf.port_mappings.is_empty() {
        let ports = Ports::new(conf, attachment, &result)?;
        let opened = match conf.backend {
            Some(RuleBackend::Iptables) => chains::open(&ports),
            Some(RuleBackend::Nftables) | None => table::open(&ports),
        };
        if let Err(error) = opened {
            // Nothing half-made stays behind; what fails here, the runtime's DEL tries again.
            remove(&conf.base.name, attachment).ok();
            return Err(error);
        }
    }
    pass_on(&result, &conf.base, answer)
}

fn check(attachment: &Attachment, conf: &PortmapConf) -> Result<(), CniError> {
    let result = conf.base.required_prev_result()?;
    if conf.port_mappings.is_empty() {
        return Ok(());
    }
    let ports = Ports::new(conf, attachment, &result)?;
    let of_nftables =
        || by_either(table::differences(&ports)?, || reference::differences(&ports).map_err(kernel_refused));
    let differences = match conf.backend {
        Some(RuleBackend::Iptables) => chains::differences(&ports)?,
        Some(RuleBackend::Nftables) => of_nftables()?,
        None => by_either(of_nftables()?, || chains::differences(&ports))?,
    };
    told(&format!("the host ports of attachment {attachment} are not as ADD left them"), &differences)
}

/// By whatever backend they were opened, and by the reference plugin too: configuration and binaries change, and the pod
/// stays.
fn remove(network: &NetworkName, attachment: &Attachment) -> Result<(), CniError> {
    all([
        table::close(network, attachment).map_err(kernel_refused),
        chains::close(network, attachment.container_id()),
        reference::close(attachment.container_id()).map_err(kernel_refused),
    ])
}

fn collect(valid: &Valid) -> Result<(), CniError> {
    all([table::collect(valid).map_err(kernel_refused), chains::collect(&valid.network, &valid.attachments)])
}

fn status(conf: &PortmapConf) -> Result<(), CniError> {
    match conf.backend {
        Some(RuleBackend::Iptables) => crate::xtables::status(),
        Some(RuleBackend::Nftables) | None => crate::owned_table::status(),
    }
}

impl<'a> Ports<'a> {
    fn new(
        conf: &'a PortmapConf,
        attachment: &'a Attachment,
        result: &AttachResult,
    ) -> Result<Self, CniError> {
        let pods = first_addresses(result, attachment.ifname());
        let pods = near::all(&pods, result).map_err(kernel_refused)?;
        Ok(Self { conf, attachment, pods })
    }
}
