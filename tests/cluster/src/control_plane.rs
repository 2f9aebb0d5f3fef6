//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler, in the tier's own network namespace.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::api::Api;
use crate::audit::AuditLog;
use crate::error::Outcome;
use crate::lan::{CONTROL_PLANE, addresses};
use crate::pki::{API_PORT, Pki};
use crate::process::Daemon;
use crate::wait::{Seen, wait_for};

/// Pods' addresses of all nodes.
pub const CLUSTER_CIDRS: &str = "10.244.0.0/16,fd00:10:244::/56";
/// The cluster of thousands of nodes.
const LARGE_CLUSTER_CIDRS: &str = "10.192.0.0/10,fd00:10:244::/48";
/// Services' addresses.
const SERVICE_CIDRS: &str = "10.96.0.0/16,fd00:10:96::/112";
/// How long a daemon may take to be of use, on a machine that does other things too.
const START: Duration = Duration::from_secs(300);

/// What the controllers are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fleet {
    /// Nodes that run.
    Real,
    /// Thousands of Nodes that are objects only, and would be called dead.
    Objects,
}

/// Who gives Nodes their pod CIDRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodCidrs {
    /// kube-controller-manager.
    Given,
    /// None of Kubernetes' own.
    NotGiven,
}

/// The running daemons.
#[derive(Debug)]
pub struct ControlPlane {
    programs: PathBuf,
    pki: Pki,
    state: PathBuf,
    logs: PathBuf,
    fleet: Fleet,
    audit: Option<AuditLog>,
    apiserver: Option<Daemon>,
    controllers: Option<Daemon>,
    others: Vec<Daemon>,
    proxy: Option<Daemon>,
}

impl ControlPlane {
    /// Starts them and waits until each is of use; the API server logs as `audit` says.
    pub fn start(
        programs: &Path,
        pki: &Pki,
        state: &Path,
        logs: &Path,
        fleet: Fleet,
        audit: Option<AuditLog>,
    ) -> Outcome<Self> {
        let mut plane = Self {
            programs: programs.to_owned(),
            pki: pki.clone(),
            state: state.to_owned(),
            logs: logs.to_owned(),
            fleet,
            audit,
            apiserver: None,
            controllers: None,
            others: Vec::new(),
            proxy: None,
        };
        let etcd = plane.daemon(
            "etcd",
            &[
                format!("--data-dir={}", plane.state.join("etcd").display()),
                "--unsafe-no-fsync".to_owned(),
                "--log-level=warn".to_owned(),
                "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
                "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
            ],
        )?;
        plane.others.push(etcd);
        plane.start_api_server()?;

        plane.start_controllers(PodCidrs::Given)?;
        let mut arguments = plane.kubeconfigs("kube-scheduler");
        arguments.push("--leader-elect=false".to_owned());
        let scheduler = plane.daemon("kube-scheduler", &arguments)?;
        plane.others.push(scheduler);
        let api = plane.api();
        wait_for("the default service account", START, || {
            plane.check_alive()?;
            let there = api.find("/api/v1/namespaces/default/serviceaccounts/default")?.is_some();
            Ok(if there { Seen::Yes(()) } else { Seen::NotYet("no service account".to_owned()) })
        })?;
        Ok(plane)
    }

    /// The flags by which a component shows who it is.
    fn kubeconfigs(&self, name: &str) -> Vec<String> {
        let file = self.pki.file(&format!("{name}.kubeconfig")).display().to_string();
        ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
            .map(|flag| format!("--{flag}={file}"))
            .to_vec()
    }

    /// Starts kube-controller-manager, in the place of the one that runs.
    pub fn start_controllers(&mut self, pod_cidrs: PodCidrs) -> Outcome {
        self.controllers.take().map_or(Ok(()), |mut controllers| controllers.end(Signal::TERM))?;
        let mut arguments = self.kubeconfigs("kube-controller-manager");
        let (cidrs, controllers) = match self.fleet {
            Fleet::Real => (CLUSTER_CIDRS, "*"),
            Fleet::Objects => (LARGE_CLUSTER_CIDRS, "*,-node-lifecycle-controller"),
        };
        arguments.extend([
            format!("--allocate-node-cidrs={}", pod_cidrs == PodCidrs::Given),
            format!("--cluster-cidr={cidrs}"),
            format!("--controllers={controllers}"),
            "--kube-api-qps=1000".to_owned(),
            "--kube-api-burst=2000".to_owned(),
            format!("--service-cluster-ip-range={SERVICE_CIDRS}"),
            format!("--service-account-private-key-file={}", self.pki.file("sa.key").display()),
            format!("--root-ca-file={}", self.pki.file("ca.crt").display()),
            "--use-service-account-credentials".to_owned(),
            "--leader-elect=false".to_owned(),
            // Nodes are rebooted and daemons restarted here: a cluster of two has nowhere else to put its pods.
            "--node-monitor-grace-period=60s".to_owned(),
        ]);
        if pod_cidrs == PodCidrs::Given {
            arguments.extend(
                ["--node-cidr-mask-size-ipv4=24", "--node-cidr-mask-size-ipv6=64"].map(str::to_owned),
            );
        }
        self.controllers = Some(self.daemon("kube-controller-manager", &arguments)?);
        Ok(())
    }

    /// Starts the API server, or starts it again.
    pub fn start_api_server(&mut self) -> Outcome {
        let pki = |name: &str| self.pki.file(name).display().to_string();
        let mut arguments = vec![
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--secure-port={API_PORT}"),
            "--bind-address=::".to_owned(),
            format!("--advertise-address={}", addresses(CONTROL_PLANE)[0]),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--service-account-key-file={}", pki("sa.pub")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-cluster-ip-range={SERVICE_CIDRS}"),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            format!("--kubelet-client-certificate={}", pki("apiserver-kubelet-client.crt")),
            format!("--kubelet-client-key={}", pki("apiserver-kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            // Nothing here may be privileged: the chart's named capabilities must do.
            "--allow-privileged=false".to_owned(),
        ];
        arguments.extend(self.audit.iter().flat_map(AuditLog::flags));
        self.apiserver = Some(self.daemon("kube-apiserver", &arguments)?);
        if self.proxy.is_none() {
            // Speaks TLS for the harness, which then needs to speak plain HTTP only.
            self.proxy = Some(self.daemon(
                "kubectl",
                &[
                    format!("--kubeconfig={}", pki("admin.kubeconfig")),
                    "proxy".to_owned(),
                    format!("--port={}", Api::PROXY_PORT),
                    // Its default refuses to exec in pods.
                    "--reject-paths=^$".to_owned(),
                ],
            )?);
        }
        let api = self.api();
        wait_for("the API server", START, || {
            self.check_alive()?;
            api.get_text("/readyz").map(Seen::Yes)
        })
        .map(|_| ())
    }

    /// Ends the API server as a crash would: told to stop, it would wait for its clients for half a minute.
    pub fn stop_api_server(&mut self) -> Outcome {
        self.apiserver.take().map_or(Ok(()), |mut apiserver| apiserver.end(Signal::KILL))
    }

    /// How to speak to it.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new()
    }

    /// An error if one of them has ended.
    pub fn check_alive(&mut self) -> Outcome {
        self.others
            .iter_mut()
            .chain(&mut self.controllers)
            .chain(&mut self.apiserver)
            .chain(&mut self.proxy)
            .try_for_each(Daemon::check_alive)
    }

    fn daemon(&self, name: &str, arguments: &[String]) -> Outcome<Daemon> {
        let log = self.logs.join(format!("{name}.log"));
        Daemon::start(name, &log, Command::new(self.programs.join(name)).args(arguments))
    }
}
