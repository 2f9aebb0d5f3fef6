//! What the reference plugins' nftables backend keeps for an attachment: in `inet cni_plugins_masquerade`, a rule for each
//! address, whose comment begins with the attachment's tag.

use cni_spec::{Attachment, NetworkName};
use ipnet::IpNet;
use kernel::KernelError;
use kernel::nftables::{Family, ObservedRule, TableName};

use super::Masquerade;
use crate::owner_tag;
use crate::reference_rules::{self, comment, kept, leads, names};

const TABLE: &str = "cni_plugins_masquerade";
const ENTRY: &str = "postrouting";
const CHAIN: &str = "masq_checks";

fn table() -> TableName {
    TableName::new(Family::Inet, TABLE)
}

/// What of it is missing.
pub(super) fn differences(masquerade: &Masquerade<'_>, pods: &[IpNet]) -> Result<Vec<String>, KernelError> {
    let tag = owner_tag::of_attachment(masquerade.network, masquerade.attachment);
    let rules = kept(&table())?;
    let masquerades = |rule: &ObservedRule, pod: &IpNet| {
        rule.chain == CHAIN
            && comment(rule).starts_with(&tag)
            && names(rule, pod.addr())
            && rule.expression_names().last().is_some_and(|last| last == "masq")
    };
    let mut differences = Vec::new();
    if !leads(&rules, ENTRY, CHAIN) {
        differences.push(format!("`{ENTRY}` does not lead to `{CHAIN}` (table `inet {TABLE}`)"));
    }
    for pod in pods.iter().filter(|pod| !rules.iter().any(|rule| masquerades(rule, pod))) {
        differences.push(format!("`{CHAIN}` has no rule of {} (table `inet {TABLE}`)", pod.addr()));
    }
    Ok(differences)
}

/// Removes it.
pub(super) fn remove(masquerade: &Masquerade<'_>) -> Result<(), KernelError> {
    let tag = owner_tag::of_attachment(masquerade.network, masquerade.attachment);
    remove_by(|comment| comment.starts_with(&tag))
}

/// Removes what belongs to none of the valid attachments of this network.
pub(super) fn collect(network: &NetworkName, valid: &[Attachment]) -> Result<(), KernelError> {
    let network_tag = owner_tag::of_network(network);
    let tags: Vec<String> =
        valid.iter().map(|attachment| owner_tag::of_attachment(network, attachment)).collect();
    remove_by(|comment| comment.starts_with(&network_tag) && !tags.iter().any(|tag| comment.starts_with(tag)))
}

fn remove_by(doomed: impl Fn(&str) -> bool) -> Result<(), KernelError> {
    reference_rules::remove(&table(), &[CHAIN], |rule| doomed(comment(rule)))
}
