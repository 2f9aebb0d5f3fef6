//! A node: namespaces and control groups of its own, in which containerd, kubelet and kube-proxy run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use kernel::netns::NetNs;
use rustix::process::Signal;

use crate::cgroups::Groups;
use crate::control_plane::CLUSTER_CIDRS;
use crate::error::{Outcome, TierError};
use crate::lan::{addresses, plug_in};
use crate::node_init::READY;
use crate::pki::Pki;
use crate::process::{Daemon, run};
use crate::wait::{Seen, wait_for};

/// The sandbox image of all pods.
pub const PAUSE_IMAGE: &str = "hostgw.test/pause:1";
/// How long a daemon may take to be of use, on a machine that does other things too.
const START: Duration = Duration::from_secs(180);
/// Where each node's containerd listens.
pub const RUNTIME_SOCKET: &str = "/run/containerd/containerd.sock";

/// How kube-proxy makes Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// Its newest way.
    Nftables,
    /// The way of most clusters.
    Iptables,
}

/// The places that all nodes share.
#[derive(Clone, Debug)]
pub struct Site {
    /// Programs.
    pub programs: PathBuf,
    /// Images that each node is given, as a registry would.
    pub images: PathBuf,
    /// Certificates.
    pub pki: Pki,
    /// State, on memory.
    pub state: PathBuf,
    /// Logs.
    pub logs: PathBuf,
    /// The tier's control group.
    pub group: String,
}

/// A daemon of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The container runtime.
    Containerd,
    /// The kubelet.
    Kubelet,
    /// kube-proxy.
    KubeProxy,
}

impl Part {
    fn program(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
        }
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Its name, in Kubernetes too.
    pub name: String,
    host: u8,
    site: Site,
    proxy_mode: ProxyMode,
    groups: Groups,
    boots: u32,
    daemons: BTreeMap<Part, Daemon>,
    /// Dropped last: with it ends everything else.
    init: Option<Daemon>,
}

impl Node {
    /// Boots a new node: host number `host` of the LAN.
    pub fn start(site: &Site, name: &str, host: u8, proxy_mode: ProxyMode) -> Outcome<Self> {
        site.pki.node(name)?;
        let groups = Groups::create(&site.group, name)?;
        let mut node = Self {
            name: name.to_owned(),
            host,
            site: site.clone(),
            proxy_mode,
            groups,
            boots: 0,
            daemons: BTreeMap::new(),
            init: None,
        };
        node.boot()?;
        Ok(node)
    }

    /// Its addresses, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> [std::net::IpAddr; 2] {
        addresses(self.host)
    }

    /// Loses power and boots again: what was on disk stays, memory and network are new.
    pub fn reboot(&mut self) -> Outcome {
        self.power_off()?;
        self.boot()
    }

    /// Ends every process at once.
    pub fn power_off(&mut self) -> Outcome {
        // Without its first process, the kernel ends all others of the namespace.
        self.init.take().map_or(Ok(()), |mut init| init.end(Signal::KILL))?;
        self.daemons.clear();
        Ok(())
    }

    /// Ends a daemon and starts it again.
    pub fn restart(&mut self, part: Part) -> Outcome {
        self.stop(part)?;
        self.start_part(part)
    }

    /// Ends a daemon.
    pub fn stop(&mut self, part: Part) -> Outcome {
        self.daemons.remove(&part).map_or(Ok(()), |mut daemon| daemon.end(Signal::TERM))
    }

    /// A command that runs in the node's namespaces.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Outcome<Command> {
        let first = self.first_process()?.to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &first, "-m", "-p", "-n", "-u", "-i", "-C", "--", program]).args(arguments);
        self.set_environment(&mut command);
        Ok(command)
    }

    /// Runs a program in the node and gives what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Outcome<String> {
        run(&mut self.command(program, arguments)?)
    }

    /// The number of the node's first process, by which `nsenter` finds its namespaces.
    pub fn first_process(&self) -> Outcome<u32> {
        let off = || TierError::Wrong(format!("{} is switched off", self.name));
        Ok(self.init.as_ref().ok_or_else(off)?.pid())
    }

    /// An error if one of its daemons has ended.
    pub fn check_alive(&mut self) -> Outcome {
        self.daemons.values_mut().chain(&mut self.init).try_for_each(Daemon::check_alive)
    }

    fn folder(&self) -> PathBuf {
        self.site.state.join(&self.name)
    }

    fn boot(&mut self) -> Outcome {
        self.boots += 1;
        let folder = self.folder();
        fs::create_dir_all(&folder).map_err(TierError::io(format!("create {}", folder.display())))?;
        let log = self.site.logs.join(format!("{}-boot-{}.log", self.name, self.boots));
        let own = std::env::current_exe().map_err(TierError::io("find this program"))?;
        let mut command = self.in_groups();
        command
            .args(["unshare", "--mount", "--pid", "--net", "--cgroup", "--uts", "--ipc", "--fork"])
            .args(["--kill-child", "--mount-proc", "--propagation", "private", "--"])
            .arg(own)
            .args(["node-init", "--name", &self.name, "--disk"])
            .arg(folder.join("disk"))
            .args(["--boot-id", &format!("00000000-0000-4000-8000-{:06}{:06}", self.host, self.boots)]);
        let mut init = Daemon::start_inside(&format!("{}'s first process", self.name), &log, &mut command)?;
        wait_for(&format!("{} to have its mounts", self.name), START, || {
            init.check_alive()?;
            let said = fs::read_to_string(&log).unwrap_or_default();
            Ok(if said.lines().any(|line| line == READY) { Seen::Yes(()) } else { Seen::NotYet(said) })
        })?;
        let netns = PathBuf::from(format!("/proc/{}/ns/net", init.pid()));
        let netns = NetNs::open(&netns).map_err(|error| TierError::Wrong(error.to_string()))?;
        self.init = Some(init);
        plug_in(&self.name, &netns, self.host)?;
        self.write_settings()?;
        self.start_part(Part::Containerd)?;
        self.import_images()?;
        self.start_part(Part::KubeProxy)?;
        self.start_part(Part::Kubelet)
    }

    /// `sh` that joins the node's control groups before it becomes what follows.
    fn in_groups(&self) -> Command {
        let mut command = Command::new("sh");
        let entrances: Vec<String> =
            self.groups.entrances().iter().map(|file| file.display().to_string()).collect();
        let script =
            format!("for file in {}; do echo $$ > $file || exit; done; exec \"$@\"", entrances.join(" "));
        command.args(["-c", &script, "sh"]);
        command
    }

    fn set_environment(&self, command: &mut Command) {
        let (programs, debian) = (self.site.programs.display(), self.site.programs.join("debian"));
        let debian = debian.display();
        command.env("PATH", format!("{programs}:{debian}/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin"));
        // runc's only library that a machine may lack.
        let library = format!("{debian}/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        command.env("LD_LIBRARY_PATH", library);
    }

    /// Starts a daemon that does not run; containerd is awaited.
    pub fn start_part(&mut self, part: Part) -> Outcome {
        let setting = |name: &str| self.folder().join(name).display().to_string();
        let [v4, v6] = self.addresses();
        let arguments = match part {
            Part::Containerd => vec!["-c".to_owned(), setting("containerd.toml")],
            Part::Kubelet => vec![
                format!("--config={}", setting("kubelet.json")),
                format!(
                    "--kubeconfig={}",
                    self.site.pki.file(&format!("{}.kubeconfig", self.name)).display()
                ),
                format!("--hostname-override={}", self.name),
                format!("--node-ip={v4},{v6}"),
                "--v=2".to_owned(),
            ],
            Part::KubeProxy => vec![format!("--config={}", setting("kube-proxy.json")), "--v=2".to_owned()],
        };
        let program = part.program();
        let first = self.first_process()?.to_string();
        let mut command = self.in_groups();
        command
            .args(["nsenter", "-t", &first, "-m", "-p", "-n", "-u", "-i", "-C", "--"])
            .arg(self.site.programs.join(program))
            .args(arguments);
        self.set_environment(&mut command);
        let log = self.site.logs.join(format!("{}-{program}.log", self.name));
        let mut daemon = Daemon::start_inside(&format!("{program} of {}", self.name), &log, &mut command)?;
        if part == Part::Containerd {
            wait_for(&format!("containerd of {}", self.name), START, || {
                daemon.check_alive()?;
                self.run("ctr", &["-a", RUNTIME_SOCKET, "version"]).map(Seen::Yes)
            })?;
        }
        self.daemons.insert(part, daemon);
        Ok(())
    }

    /// Gives the runtime every image, as there is no registry.
    fn import_images(&self) -> Outcome {
        let images = &self.site.images;
        let failed = || TierError::io(format!("list {}", images.display()));
        for entry in fs::read_dir(images).map_err(failed())? {
            let file = entry.map_err(failed())?.path();
            if file.extension().is_some_and(|extension| extension == "tar") {
                let file = file.display().to_string();
                let import = ["-a", RUNTIME_SOCKET, "-n", "k8s.io", "images", "import", "--local", &file];
                self.run("ctr", &import)?;
            }
        }
        Ok(())
    }

    fn write_settings(&self) -> Outcome {
        let ca = self.site.pki.file("ca.crt");
        let containerd = format!(
            r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{RUNTIME_SOCKET}"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
  # Machines that lack CAP_SYS_RESOURCE cannot lower it.
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/opt/cni/bin"]
  conf_dir = "/etc/cni/net.d"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = false
"#
        );
        let kubelet = serde_json::json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": ca}},
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": false,
            "failSwapOn": false,
            "containerRuntimeEndpoint": format!("unix://{RUNTIME_SOCKET}"),
            "resolvConf": "/run/resolv.conf",
            "clusterDomain": "cluster.local",
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            // A node reports changes at once, and else rarely: as it is by default.
            "nodeStatusUpdateFrequency": "10s",
            "registerNode": true,
            "maxPods": 110,
        });
        let proxy = serde_json::json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": match self.proxy_mode { ProxyMode::Nftables => "nftables", ProxyMode::Iptables => "iptables" },
            "clientConnection": {"kubeconfig": self.site.pki.file("kube-proxy.kubeconfig")},
            "clusterCIDR": CLUSTER_CIDRS,
            "hostnameOverride": self.name,
            // These sysctls are the machine's.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        });
        let write = |name: &str, text: &str| {
            let file = self.folder().join(name);
            fs::write(&file, text).map_err(TierError::io(format!("write {}", file.display())))
        };
        write("containerd.toml", &containerd)?;
        write("kubelet.json", &kubelet.to_string())?;
        write("kube-proxy.json", &proxy.to_string())
    }
}
