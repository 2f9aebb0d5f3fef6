//! What becomes of leases, in numbers for `/metrics`.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Shared by the keeper's thread, which counts, and the registry.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeaseTally {
    pub(super) held: Gauge<i64, AtomicI64>,
    pub(super) lost: Gauge<i64, AtomicI64>,
    pub(super) prolonged: Counter<u64, AtomicU64>,
    pub(super) refused: Counter<u64, AtomicU64>,
    pub(super) unanswered: Counter<u64, AtomicU64>,
    pub(super) given_back: Counter<u64, AtomicU64>,
}

impl LeaseTally {
    /// Lets the numbers be read.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("leases", "Addresses that DHCP servers lend to pods", self.held.clone());
        registry.register("leases_lost", "Of these, refused or over", self.lost.clone());
        registry.register("leases_prolonged", "Leases prolonged or lent anew", self.prolonged.clone());
        registry.register("leases_refused", "Refusals by DHCP servers", self.refused.clone());
        registry.register(
            "leases_unanswered",
            "Attempts at prolonging a lease that no server answered in a way of use",
            self.unanswered.clone(),
        );
        registry.register(
            "leases_given_back",
            "Leases of pods that were gone, given back",
            self.given_back.clone(),
        );
    }
}
