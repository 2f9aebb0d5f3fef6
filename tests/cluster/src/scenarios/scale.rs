//! A Deployment of fifty pods goes up, down and up again, and every address comes back.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::workload::{deploy, wait_scaled};

use super::leaks::nothing_left_over;

const PODS: u32 = 50;

pub(super) fn scaled_up_and_down(cluster: &mut Cluster) -> Outcome<String> {
    let api = cluster.api;
    let mut took = Vec::new();
    for _ in 0..2 {
        let began = Instant::now();
        deploy(api, "many", PODS)?;
        let pods = wait_scaled(api, "many", PODS as usize)?;
        took.push(began.elapsed().as_secs_f64());
        let addresses: BTreeSet<_> = pods.iter().flat_map(|pod| &pod.ips).collect();
        if addresses.len() != 2 * PODS as usize {
            return Err(TierError::Wrong(format!("{PODS} pods have only {} addresses", addresses.len())));
        }
        nothing_left_over(cluster)?;
        deploy(api, "many", 0)?;
        wait_scaled(api, "many", 0)?;
        nothing_left_over(cluster)?;
    }
    api.delete("/apis/apps/v1/namespaces/default/deployments/many")?;
    Ok(format!(
        "{PODS} pods up in {:.1} s and, after all were gone, in {:.1} s again; no address, link, route or record was left",
        took[0], took[1]
    ))
}
