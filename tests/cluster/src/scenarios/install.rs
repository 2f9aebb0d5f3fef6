//! Nodes become ready because of hostgw, and of nothing else.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::install::wait_until_rolled_out;
use crate::wait::{Seen, wait_for};

const LIMIT: Duration = Duration::from_secs(180);
/// Values that bring what the defaults leave out.
const VALUES: [&str; 4] = [
    "podCIDR.clusterCIDRs={10.244.0.0/16,fd00:10:244::/48},apiServer.host=api.example,apiServer.port=6443",
    "distribution=k3s,config.nodeAddress.interfaces={wg0},seLinuxOptions.type=spc_t,image.digest=sha256:00,listen.address=0.0.0.0",
    "distribution=k0s,config.mode=l2-routed,config.lan.subnets={10.10.0.0/16},config.lan.dhcp.clientId=pod",
    "config.runtime.socket=/run/containerd/containerd.sock,cni.dropIn={all},cni.binDir=/usr/lib/cni",
];

/// The condition `Ready` of a node.
pub(super) fn ready_condition(node: &Value) -> Value {
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == "Ready").unwrap_or_default()
}

pub(super) fn nodes_become_ready_because_of_us(cluster: &mut Cluster) -> Outcome<String> {
    let api = cluster.api;
    for node in &cluster.nodes {
        wait_for(&format!("{} to wait for its network", node.name), LIMIT, || {
            let found = api.get(&format!("/api/v1/nodes/{}", node.name))?;
            let ready = ready_condition(&found);
            let waits = ready["status"] == "False"
                && ready["message"].as_str().is_some_and(|message| message.contains("NetworkPluginNotReady"));
            let both = found["spec"]["podCIDRs"].as_array().is_some_and(|cidrs| cidrs.len() == 2);
            let seen = || format!("{ready}; podCIDRs {}", found["spec"]["podCIDRs"]);
            Ok(if waits && both { Seen::Yes(()) } else { Seen::NotYet(seen()) })
        })?;
    }
    let began = Instant::now();
    cluster.chart.install("1")?;
    wait_until_rolled_out(api, cluster.nodes.len() as u64)?;
    for node in &cluster.nodes {
        wait_ready(cluster, &node.name)?;
    }
    Ok(format!(
        "{} nodes waited for a network; all ready {:.1} s after `helm install`",
        cluster.nodes.len(),
        began.elapsed().as_secs_f64()
    ))
}

/// Waits until the kubelet calls the node ready.
pub(super) fn wait_ready(cluster: &Cluster, node: &str) -> Outcome {
    let api = cluster.api;
    wait_for(&format!("{node} to be ready"), LIMIT, || {
        let ready = ready_condition(&api.get(&format!("/api/v1/nodes/{node}"))?);
        Ok(if ready["status"] == "True" { Seen::Yes(()) } else { Seen::NotYet(ready.to_string()) })
    })
}

pub(super) fn plain_manifest_is_the_chart(cluster: &mut Cluster) -> Outcome<String> {
    let rendered = cluster.chart.render("")?;
    let file = cluster.chart.folder.with_file_name("hostgw.yaml");
    let plain = fs::read_to_string(&file).map_err(TierError::io(format!("read {}", file.display())))?;
    let plain: Vec<&str> = plain.lines().filter(|line| !line.starts_with("# ")).collect();
    let chart: Vec<&str> = rendered.lines().filter(|line| !line.starts_with("# ")).collect();
    if plain != chart {
        return Err(TierError::Wrong(
            "deploy/hostgw.yaml is not what the chart renders: deploy/render > deploy/hostgw.yaml".to_owned(),
        ));
    }
    let mut taken = vec![file];
    for (number, values) in VALUES.iter().enumerate() {
        let file = cluster.site.state.join(format!("rendered-{number}.yaml"));
        fs::write(&file, cluster.chart.render(values)?)
            .map_err(TierError::io(format!("write {}", file.display())))?;
        taken.push(file);
    }
    for file in &taken {
        // The API server knows every field, and refuses what it does not know.
        let file = file.display().to_string();
        cluster.kubectl.run(&["apply", "--dry-run=server", "--validate=strict", "-f", &file])?;
    }
    Ok(format!(
        "deploy/hostgw.yaml is what the chart renders; the API server takes it, and what {} other sets of values give, strictly",
        VALUES.len()
    ))
}
