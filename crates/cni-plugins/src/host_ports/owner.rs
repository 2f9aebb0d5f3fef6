//! Whose an element of the table is that no record explains. Where that cannot be known, it is somebody's.

use std::net::IpAddr;
use std::path::Path;

use attachment::{Attachment, Claim, NetworkName, Record, Store};
use kernel::KernelError;
use kernel::netlink::{self, Socket};

use super::HostPortError;
use super::elements::{Placed, is_at, pod_of};
use super::publish::failure;
use crate::living::{LivingPod, living_pods};

/// Elements stand in the way of `record`'s. They belong to a pod that lives, and then they stay; or to one that is gone.
/// `link_is_gone` tells which for those with a record below `data_dir`; the kernel does for others.
pub(super) fn refuse_living(
    record: &Record,
    clashing: &[Placed],
    data_dir: &Path,
    link_is_gone: impl Fn(&NetworkName, &Attachment, Option<&Record>) -> bool,
) -> Result<(), HostPortError> {
    for network in attachment::networks(data_dir).unwrap_or_default() {
        let Ok(Some(store)) = Store::find(data_dir, &network) else { continue };
        for port in &record.host_ports {
            for claim in port.claims() {
                let Some(owner) = owner(&store, &claim, record) else { continue };
                let entry = store.lookup(&owner).ok().flatten();
                if !link_is_gone(&network, &owner, entry.as_ref().map(|entry| &entry.record)) {
                    let owner = format!("attachment {owner} of network `{network}`");
                    return Err(HostPortError::Taken { port: port.to_string(), owner });
                }
            }
        }
    }
    let strangers = Strangers::observe(data_dir).map_err(|cause| failure("judge who has", record, cause))?;
    for port in &record.host_ports {
        for clash in clashing.iter().filter(|clash| is_at(clash, port)) {
            let Some(pod) = pod_of(clash) else { continue };
            if record.addresses.iter().any(|held| held.address.addr() == pod) {
                continue;
            }
            if let Some(stranger) = strangers.at(pod) {
                let owner = format!(
                    "the pod {pod} behind link {}, of which {} has no record",
                    stranger.link.name,
                    data_dir.display()
                );
                return Err(HostPortError::Taken { port: port.to_string(), owner });
            }
        }
    }
    Ok(())
}

/// Whose claim it is, if somebody else's.
fn owner(store: &Store, claim: &Claim, record: &Record) -> Option<Attachment> {
    let owner = store.owner_of_claim(claim).ok().flatten()?;
    (*store.network() != record.network || owner != record.attachment).then_some(owner)
}

/// Pods that live and have no record where we look: those of another `dataDir`, or of one that was lost.
pub(super) struct Strangers<'a> {
    data_dir: &'a Path,
    living: Vec<LivingPod>,
}

impl<'a> Strangers<'a> {
    pub(super) fn observe(data_dir: &'a Path) -> Result<Self, KernelError> {
        let living = living_pods(&mut Socket::open(netlink::Protocol::Route)?)?;
        Ok(Self { data_dir, living })
    }

    /// The stranger that has this address.
    pub(super) fn at(&self, pod: IpAddr) -> Option<&LivingPod> {
        let living = self.living.iter().find(|living| living.addresses.iter().any(|held| held.addr() == pod));
        living.filter(|_| !self.has_record(pod))
    }

    /// A pod with a record has the host ports that the record names, and no others.
    fn has_record(&self, pod: IpAddr) -> bool {
        attachment::networks(self.data_dir).unwrap_or_default().iter().any(|network| {
            let store = Store::find(self.data_dir, network).ok().flatten();
            store.is_some_and(|store| matches!(store.owner_of_claim(&Claim::Address(pod)), Ok(Some(_))))
        })
    }
}
