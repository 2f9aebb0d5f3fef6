//! What the reference plugin's nftables backend keeps for a container: rules in `ip` and `ip6 cni_hostport`, with the
//! container's id as their comment.

use cni_spec::NetworkName;
use kernel::KernelError;
use kernel::nftables::{Comment, Family, TableName};

use crate::owned_table::remove_rules;

const TABLE: &str = "cni_hostport";
const CHAINS: [&str; 3] = ["hostports", "hostip_hostports", "masquerading"];

/// Removes them. The reference does not tell networks apart here.
pub(super) fn close(_network: &NetworkName, container: &str) -> Result<(), KernelError> {
    let wanted = Comment::from(container);
    for family in [Family::Ip, Family::Ip6] {
        remove_rules(&TableName::new(family, TABLE), &CHAINS, |comment| comment == wanted.as_str())?;
    }
    Ok(())
}
