//! Pods, Deployments and Services of the test, and what is asked of them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::Api;
use crate::error::{Outcome, TierError};
use crate::pod::PORT;
use crate::pod::ask::{Answer, Target};
use crate::pod::stream::Flows;
use crate::process::run;
use crate::wait::{Seen, wait_for};

/// The image of the test's pods.
pub const POD_IMAGE: &str = "hostgw.test/pod:1";
/// How long pods may take to start, on a machine that does other things too.
pub const PODS_START: Duration = Duration::from_secs(300);
const PODS: &str = "/api/v1/namespaces/default/pods";

/// kubectl with the administrator's rights.
#[derive(Clone, Debug)]
pub struct Kubectl {
    /// The program.
    pub program: PathBuf,
    /// The kubeconfig.
    pub kubeconfig: PathBuf,
}

impl Kubectl {
    /// Runs it and gives what it printed.
    pub fn run(&self, arguments: &[&str]) -> Outcome<String> {
        run(Command::new(&self.program).env("KUBECONFIG", &self.kubeconfig).args(arguments))
    }

    /// Has a pod ask targets, each once.
    pub fn ask(&self, pod: &str, targets: &[Target]) -> Outcome<Vec<Answer>> {
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let mut arguments = vec!["exec", pod, "--", "/pod", "ask"];
        arguments.extend(targets.iter().map(String::as_str));
        parse(&self.run(&arguments)?)
    }

    /// What became of a pod's stream until now.
    pub fn counts(&self, pod: &str) -> Outcome<Flows> {
        parse(&self.run(&["exec", pod, "--", "/pod", "counts"])?)
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Outcome<T> {
    serde_json::from_str(text)
        .map_err(|error| TierError::Wrong(format!("the pod did not answer JSON: {error}: {text}")))
}

/// A container of the test's pods.
fn container(arguments: &[String]) -> Value {
    let arguments = [&["serve".to_owned()], arguments].concat();
    json!({
        "name": "pod", "image": POD_IMAGE, "imagePullPolicy": "Never",
        "args": arguments,
        "env": [{"name": "HOSTNAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    })
}

/// A pod on a node.
#[derive(Clone, Debug, Default)]
pub struct PodSpec {
    /// Its name, and the value of its label `app`.
    pub name: String,
    /// The node.
    pub node: String,
    /// A port of the node that leads to it, over TCP and UDP.
    pub host_port: Option<u16>,
    /// Servers to which it keeps a stream of packets going.
    pub stream_to: Vec<SocketAddr>,
}

impl PodSpec {
    /// A server.
    #[must_use]
    pub fn server(name: &str, node: &str) -> Self {
        Self { name: name.to_owned(), node: node.to_owned(), ..Self::default() }
    }

    /// Makes the pod; it is not awaited.
    pub fn create(&self, api: Api) -> Outcome {
        let arguments: Vec<String> =
            self.stream_to.iter().flat_map(|server| ["--stream-to".to_owned(), server.to_string()]).collect();
        let mut container = container(&arguments);
        if let Some(port) = self.host_port {
            container["ports"] = json!(["TCP", "UDP"].map(|protocol| json!({
                "name": protocol.to_lowercase(), "containerPort": PORT, "hostPort": port, "protocol": protocol
            })));
        }
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.name, "labels": {"app": self.name}},
            "spec": {
                "nodeName": self.node, "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                // Nodes go away here: what was put on one waits for it.
                "tolerations": [{"operator": "Exists"}],
                "containers": [container],
            },
        });
        api.create(PODS, &pod).map(|_| ())
    }
}

/// A pod that runs.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
}

impl Running {
    /// Its server, over both protocols and families.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        self.ips.iter().flat_map(|ip| Target::both(*ip, PORT)).collect()
    }

    fn read(pod: &Value) -> Option<Self> {
        let ready = pod["status"]["conditions"]
            .as_array()?
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        let ips: Vec<IpAddr> = pod["status"]["podIPs"]
            .as_array()?
            .iter()
            .filter_map(|ip| ip["ip"].as_str()?.parse().ok())
            .collect();
        (ready && ips.len() == 2 && pod["metadata"]["deletionTimestamp"].is_null()).then(|| Self {
            name: pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            node: pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned(),
            ips,
        })
    }
}

/// Waits until these pods run.
pub fn wait_running(api: Api, names: &[&str]) -> Outcome<Vec<Running>> {
    names
        .iter()
        .map(|name| {
            wait_for(&format!("pod {name} with an address of each family"), PODS_START, || {
                let pod = api.get(&format!("{PODS}/{name}"))?;
                let seen = || Seen::NotYet(format!("{}", pod["status"]));
                Ok(Running::read(&pod).map_or_else(seen, Seen::Yes))
            })
        })
        .collect()
}

/// Pods of an app that run.
pub fn running(api: Api, app: &str) -> Outcome<Vec<Running>> {
    Ok(pods(api, app)?.iter().filter_map(Running::read).collect())
}

/// All pods of an app.
pub fn pods(api: Api, app: &str) -> Outcome<Vec<Value>> {
    api.list(&format!("{PODS}?labelSelector=app%3D{app}"))
}

/// Deletes pods and waits until they are gone.
pub fn delete_pods(api: Api, names: &[&str]) -> Outcome {
    for name in names {
        api.delete(&format!("{PODS}/{name}"))?;
    }
    for name in names {
        wait_for(&format!("the end of pod {name}"), PODS_START, || {
            let found = api.find(&format!("{PODS}/{name}"))?;
            Ok(found.map_or(Seen::Yes(()), |pod| Seen::NotYet(format!("{}", pod["status"]["phase"]))))
        })?;
    }
    Ok(())
}

/// A Service of both families for the pods of an app; gives its addresses and its node port.
pub fn create_service(api: Api, app: &str, local: bool) -> Outcome<(Vec<IpAddr>, u16)> {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": app},
        "spec": {
            "type": "NodePort", "selector": {"app": app}, "ipFamilyPolicy": "RequireDualStack",
            "ports": [{"name": "tcp", "port": PORT, "protocol": "TCP"}, {"name": "udp", "port": PORT, "protocol": "UDP"}],
        },
    });
    if local {
        service["spec"]["externalTrafficPolicy"] = json!("Local");
    }
    // Over UDP the same node port as over TCP, so that one number names both.
    let made = api.create("/api/v1/namespaces/default/services", &service)?;
    let node_port = made["spec"]["ports"][0]["nodePort"].as_u64().and_then(|port| u16::try_from(port).ok());
    let node_port = node_port.ok_or_else(|| TierError::Wrong("a Service without a node port".to_owned()))?;
    let path = format!("/api/v1/namespaces/default/services/{app}");
    let mut ports = made["spec"]["ports"].clone();
    ports[1]["nodePort"] = json!(node_port);
    api.merge(&path, &json!({"spec": {"ports": ports}}))?;
    let ips = made["spec"]["clusterIPs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip.as_str()?.parse().ok())
        .collect();
    Ok((ips, node_port))
}

/// Deletes a Service.
pub fn delete_service(api: Api, app: &str) -> Outcome {
    api.delete(&format!("/api/v1/namespaces/default/services/{app}"))
}

/// Makes a Deployment of `replicas` pods, or scales it.
pub fn deploy(api: Api, app: &str, replicas: u32) -> Outcome {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": app}},
            "template": {
                "metadata": {"labels": {"app": app}},
                "spec": {
                    "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
                    "enableServiceLinks": false, "containers": [container(&[])],
                },
            },
        },
    });
    api.apply(&format!("/apis/apps/v1/namespaces/default/deployments/{app}"), &deployment).map(|_| ())
}

/// Waits until exactly so many pods of an app are there and run.
pub fn wait_scaled(api: Api, app: &str, replicas: usize) -> Outcome<Vec<Running>> {
    wait_for(&format!("{replicas} running pods of {app}"), PODS_START, || {
        let (all, run) = (pods(api, app)?.len(), running(api, app)?);
        if all == replicas && run.len() == replicas {
            return Ok(Seen::Yes(run));
        }
        Ok(Seen::NotYet(format!("{all} pods, {} of them run", run.len())))
    })
}
