//! Our nftables table as the kernel holds it.

use std::collections::BTreeMap;

use ipnet::IpNet;

/// The table `inet hostgw`, reduced to what tells whether it is the desired one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedNftTable {
    /// Each chain's name and what it is, in the words of [`crate::desired::BaseChain`]'s `Display`.
    pub chains: BTreeMap<String, String>,
    /// (chain, comment) of each rule in order; a comment ends in the digest of its rule's text. A rule without a
    /// comment has an empty one.
    pub rules: Vec<(String, String)>,
    /// Each set's elements, as prefixes in order.
    pub sets: BTreeMap<String, Vec<IpNet>>,
}
