//! `ipMasq` of the main plugins: what a pod sends to somewhere outside its own subnet leaves with the node's address.

pub(crate) mod chains;
mod reference;
mod table;

use cni_spec::{Attachment, CniError, NetworkName, RuleBackend};
use ipnet::IpNet;

use crate::chained::{all, by_either};
use crate::failure::kernel_refused;

/// The masquerading of one attachment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Masquerade<'a> {
    /// The network.
    pub(crate) network: &'a NetworkName,
    /// Whose it is.
    pub(crate) attachment: &'a Attachment,
}

impl Masquerade<'_> {
    /// Sets it up for these addresses, each with the length of its subnet's prefix; what is there already is well.
    /// Without a wish for a backend, ours is nftables.
    pub(crate) fn install(&self, backend: Option<RuleBackend>, pods: &[IpNet]) -> Result<(), CniError> {
        match backend {
            Some(RuleBackend::Iptables) => chains::install(self, pods),
            Some(RuleBackend::Nftables) | None => table::install(self, pods).map_err(kernel_refused),
        }
    }

    /// What of it is not as [`Masquerade::install`] left it, in words.
    pub(crate) fn differences(
        &self,
        backend: Option<RuleBackend>,
        pods: &[IpNet],
    ) -> Result<Vec<String>, CniError> {
        let of_nftables = || {
            by_either(table::differences(self, pods).map_err(kernel_refused)?, || {
                reference::differences(self, pods).map_err(kernel_refused)
            })
        };
        match backend {
            Some(RuleBackend::Iptables) => chains::differences(self, pods),
            Some(RuleBackend::Nftables) => of_nftables(),
            None => by_either(of_nftables()?, || chains::differences(self, pods)),
        }
    }

    /// Removes all of it, by whatever backend it was set up, and by the reference plugins as well: the configuration may
    /// have changed since, and the node's binaries too.
    pub(crate) fn remove(&self) -> Result<(), CniError> {
        all([
            table::remove(self).map_err(kernel_refused),
            chains::remove(self),
            reference::remove(self).map_err(kernel_refused),
        ])
    }
}

/// Removes what belongs to none of the valid attachments of this network.
pub(crate) fn collect(network: &NetworkName, valid: &[Attachment]) -> Result<(), CniError> {
    all([
        table::collect(network, valid).map_err(kernel_refused),
        chains::collect(network, valid),
        reference::collect(network, valid).map_err(kernel_refused),
    ])
}

/// Whether masquerading could be set up: the kernel takes tables, or the program is there.
pub(crate) fn status(backend: Option<RuleBackend>) -> Result<(), CniError> {
    match backend {
        Some(RuleBackend::Iptables) => crate::xtables::status(),
        Some(RuleBackend::Nftables) | None => crate::owned_table::status(),
    }
}
