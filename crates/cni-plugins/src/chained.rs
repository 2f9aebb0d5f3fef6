//! What plugins share that come behind others in a chain: the result so far, and the pod's addresses in it.

use std::collections::BTreeMap;

use cni_spec::{AttachResult, Attachment, BaseConf, CniError, ErrorCode, GcRequest, IpConfig, NetworkName};
use link_name::LinkName;

use crate::answer::Answer;
use crate::failure::io_failed;
use crate::owner_tag;

/// The result of the plugins before, without which there is nothing to work on.
pub(crate) fn result_so_far(base: &BaseConf) -> Result<AttachResult, CniError> {
    base.prev_result()?.ok_or_else(|| {
        CniError::new(
            ErrorCode::InvalidNetworkConfig,
            format!(
                "`prevResult` is missing: `{}` must stand behind the plugin that makes the interface, in the `plugins` \
                 of a configuration list",
                base.plugin_type
            ),
        )
    })
}

/// Answers ADD.
pub(crate) fn pass_on(result: &AttachResult, base: &BaseConf, answer: &mut Answer) -> Result<(), CniError> {
    let json = result.to_json(base.cni_version)?;
    answer.give(&json).map_err(|error| io_failed("write the result to standard output", &error))
}

/// The first address of each family that the pod's interface of this name has; one that names no interface is the
/// pod's.
pub(crate) fn first_addresses<'r>(result: &'r AttachResult, ifname: &LinkName) -> Vec<&'r IpConfig> {
    let is_pods = |ip: &&IpConfig| match ip.interface.and_then(|index| result.interfaces.get(index)) {
        Some(interface) => interface.name == ifname.as_str() && interface.sandbox.is_some(),
        None => true,
    };
    let mut first: BTreeMap<bool, &IpConfig> = BTreeMap::new();
    for ip in result.ips.iter().filter(is_pods) {
        first.entry(ip.address.addr().is_ipv6()).or_insert(ip);
    }
    first.into_values().collect()
}

/// What GC is about, as the comments of a drop-in's elements say it.
pub(crate) struct Valid {
    pub(crate) network: NetworkName,
    pub(crate) attachments: Vec<Attachment>,
    /// What the comments of the network's elements begin with.
    pub(crate) network_tag: String,
    /// What those of each valid attachment do.
    pub(crate) tags: Vec<String>,
}

impl Valid {
    /// Reads GC's standard input; nothing where GC is switched off.
    pub(crate) fn read(stdin: &[u8]) -> Result<Option<Self>, CniError> {
        let request = GcRequest::parse(stdin)?;
        if request.disabled {
            return Ok(None);
        }
        let network = request.store.base.name;
        let tags = request.valid.iter().map(|valid| owner_tag::of_attachment(&network, valid)).collect();
        Ok(Some(Self {
            network_tag: owner_tag::of_network(&network),
            tags,
            attachments: request.valid,
            network,
        }))
    }
}

/// CHECK's answer.
pub(crate) fn told(what: &str, differences: &[String]) -> Result<(), CniError> {
    match differences {
        [] => Ok(()),
        found => Err(CniError::new(
            ErrorCode::CheckFailed,
            format!("{what}: {}; delete the pod, so that it is made anew", found.join("; ")),
        )),
    }
}

/// Everything was tried; all that failed is told.
pub(crate) fn all(tried: impl IntoIterator<Item = Result<(), CniError>>) -> Result<(), CniError> {
    let mut failed = tried.into_iter().filter_map(Result::err);
    let Some(first) = failed.next() else { return Ok(()) };
    let rest: Vec<String> = failed.map(|error| error.to_string()).collect();
    if rest.is_empty() {
        return Err(first);
    }
    Err(CniError::new(first.code, format!("{first}; {}", rest.join("; "))))
}

/// What differs where the rules may be anothers': what ours lack, unless those are whole by which the reference plugin made
/// the pod before the node was switched.
pub(crate) fn by_either(
    ours: Vec<String>,
    of_reference: impl FnOnce() -> Result<Vec<String>, CniError>,
) -> Result<Vec<String>, CniError> {
    if ours.is_empty() || of_reference().is_ok_and(|differences| differences.is_empty()) {
        return Ok(Vec::new());
    }
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni_spec::SpecVersion;

    #[test]
    fn addresses_of_the_node_and_of_other_interfaces_are_not_the_pods() {
        let json = br#"{"cniVersion":"1.0.0","interfaces":[{"name":"cni0"},{"name":"eth0","sandbox":"/n"},
            {"name":"net1","sandbox":"/n"}],"ips":[{"address":"10.0.0.1/24","interface":0},
            {"address":"10.0.1.2/24","interface":2},{"address":"10.0.0.2/24","interface":1},
            {"address":"10.0.0.3/24","interface":1},{"address":"fd00::2/64"}]}"#;
        let result = AttachResult::from_json(json, SpecVersion::V1_0_0).unwrap();
        let eth0 = LinkName::new("eth0").unwrap();
        let found: Vec<String> =
            first_addresses(&result, &eth0).iter().map(|ip| ip.address.to_string()).collect();
        assert_eq!(found, ["10.0.0.2/24", "fd00::2/64"]);
    }
}
