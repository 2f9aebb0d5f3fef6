//! What writes a node's rules, where a configuration has a say in it (`backend`, `ipMasqBackend`).

use crate::error::CniError;
use crate::field::Field;

/// The programs' two ways of the same kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleBackend {
    /// The chains that iptables shows, whichever of its flavours the node has.
    Iptables,
    /// Tables of our own, over netlink.
    Nftables,
}

impl RuleBackend {
    /// Reads the field; an empty text is no wish.
    pub(crate) fn read(field: &Field<'_, '_>) -> Result<Option<Self>, CniError> {
        field.choice(&[("", None), ("iptables", Some(Self::Iptables)), ("nftables", Some(Self::Nftables))])
    }
}
