//! Installing hostgw as its users do: the chart, by helm.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::api::Api;
use crate::error::{Outcome, TierError};
use crate::process::run;
use crate::wait::{Seen, wait_for};

/// Without the tag.
pub const IMAGE: &str = "hostgw.test/hostgw";
/// The namespace of the chart.
pub const NAMESPACE: &str = "kube-system";
/// How long a DaemonSet may take to be everywhere.
const ROLLOUT: Duration = Duration::from_secs(300);

/// helm, and what it installs.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The program.
    pub helm: PathBuf,
    /// The chart's folder.
    pub folder: PathBuf,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Where helm may write.
    pub home: PathBuf,
}

impl Chart {
    /// Installs it, or upgrades it, with this tag of the image.
    pub fn install(&self, tag: &str) -> Outcome {
        self.install_with(tag, &serde_json::json!({}))
    }

    /// The same with this configuration of the agents.
    pub fn install_with(&self, tag: &str, config: &Value) -> Outcome {
        self.install_values(tag, &serde_json::json!({"config": config}))
    }

    /// The same with these values.
    pub fn install_values(&self, tag: &str, values: &Value) -> Outcome {
        let mut arguments = vec![
            "upgrade".to_owned(),
            "--install".to_owned(),
            "hostgw".to_owned(),
            self.folder.display().to_string(),
            "--set".to_owned(),
            format!("image.repository={IMAGE},image.tag={tag},maxUnavailable=1"),
        ];
        for (key, value) in values.as_object().into_iter().flatten() {
            arguments.extend(["--set-json".to_owned(), format!("{key}={value}")]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.helm(&arguments).map(|_| ())
    }

    /// What `kubectl apply` would be given, with these values (`--set`, comma-separated).
    pub fn render(&self, values: &str) -> Outcome<String> {
        self.helm(&["template", "hostgw", &self.folder.display().to_string(), "--set", values])
    }

    fn helm(&self, arguments: &[&str]) -> Outcome<String> {
        run(Command::new(&self.helm)
            .args(arguments)
            .args(["--namespace", NAMESPACE])
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home))
    }
}

const DAEMON_SET: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/hostgw";

/// Waits until an agent of the newest template is ready on `nodes` nodes.
pub fn wait_until_rolled_out(api: Api, nodes: u64) -> Outcome {
    wait_for(&format!("ready agents on {nodes} nodes"), ROLLOUT, || {
        let set = api.get(DAEMON_SET)?;
        let status = &set["status"];
        let current = status["observedGeneration"] == set["metadata"]["generation"];
        let number = |key: &str| status[key].as_u64().unwrap_or_default();
        if current && number("updatedNumberScheduled") == nodes && number("numberReady") == nodes {
            return Ok(Seen::Yes(()));
        }
        Ok(Seen::NotYet(format!("{status}; {}", why_not_ready(api))))
    })
}

/// The agent's pod on a node.
pub fn agent_pod(api: Api, node: &str) -> Outcome<Value> {
    agents(api)?
        .into_iter()
        .find(|pod| pod["spec"]["nodeName"] == node && pod["metadata"]["deletionTimestamp"].is_null())
        .ok_or_else(|| TierError::Wrong(format!("no agent on {node}")))
}

/// All agents' pods.
pub fn agents(api: Api) -> Outcome<Vec<Value>> {
    api.list("/api/v1/namespaces/kube-system/pods?labelSelector=app.kubernetes.io%2Fname%3Dhostgw")
}

/// What the kubelet says of agents that are not ready.
fn why_not_ready(api: Api) -> String {
    let states: Vec<String> = agents(api)
        .unwrap_or_default()
        .iter()
        .flat_map(|pod| {
            ["initContainerStatuses", "containerStatuses"]
                .into_iter()
                .flat_map(|list| pod["status"][list].as_array().cloned().unwrap_or_default())
                .filter(|container| container["ready"] != true)
                .map(|container| format!("{}: {}", pod["spec"]["nodeName"], container["state"]))
                .collect::<Vec<_>>()
        })
        .collect();
    states.join("; ")
}
