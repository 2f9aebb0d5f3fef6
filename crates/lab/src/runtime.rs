//! What a container runtime does for a pod: makes its network namespace, runs the plugins as libcni does, and runs them
//! again when the pod goes. All of it happens in the pod's node.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use ipnet::IpNet;
use kernel::netns::NetNs;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::UnshareFlags;
use serde_json::{Map, Value, json};
use syscall_tracer::{End, Forked};

use crate::LabError;
use crate::conflist::Conflist;
use crate::namespaces::unshare;
use crate::topology::{ECHO_PORT, POD_LINK};

/// Where the plugins are, as kubelets are set up.
const CNI_PATH: &str = "/opt/cni/bin";

/// A pod whose plugins have run.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    /// `node1/pod1`.
    pub(crate) name: String,
    /// As the runtime calls it.
    pub(crate) container_id: String,
    netns_path: PathBuf,
    /// Its network namespace.
    pub(crate) netns: Arc<NetNs>,
    /// Its addresses, as the plugin gave them.
    pub(crate) ips: Vec<IpAddr>,
    /// Its host port, UDP and TCP, if it has one.
    pub(crate) host_port: Option<u16>,
    /// Time of all plugins' ADD, in microseconds.
    pub(crate) add_us: u64,
    result: Value,
}

/// Makes a pod's namespace and runs ADD.
pub(crate) fn add(list: &Conflist, name: &str, host_port: Option<u16>) -> Result<Pod, LabError> {
    let mut pod = sandbox(name, host_port)?;
    attach(list, &mut pod)?;
    Ok(pod)
}

/// Makes a pod's namespace.
pub(crate) fn sandbox(name: &str, host_port: Option<u16>) -> Result<Pod, LabError> {
    // Runtimes' ids are 64 hexadecimal digits.
    let container_id: String = name.bytes().cycle().take(32).map(|byte| format!("{byte:02x}")).collect();
    let netns_path = PathBuf::from(format!("/run/netns/cni-{}", name.replace('/', "-")));
    let netns = create_namespace(&netns_path)?;
    Ok(Pod {
        name: name.to_owned(),
        container_id,
        netns_path,
        netns: Arc::new(netns),
        ips: Vec::new(),
        host_port,
        add_us: 0,
        result: Value::Null,
    })
}

/// Runs ADD.
pub(crate) fn attach(list: &Conflist, pod: &mut Pod) -> Result<(), LabError> {
    let start = Instant::now();
    run(&Conflist::loopback(), pod, "ADD", "lo")?;
    pod.result = run(list, pod, "ADD", POD_LINK)?.unwrap_or(Value::Null);
    pod.add_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    pod.ips = addresses(&pod.result);
    if pod.ips.is_empty() {
        return Err(LabError::Plugin {
            verb: "ADD",
            plugin: list.types().join(", "),
            pod: pod.name.clone(),
            status: "a result without an address".to_owned(),
            output: pod.result.to_string(),
        });
    }
    Ok(())
}

/// How an ADD ended that was to be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It was killed, and had answered before or not.
    Killed { answered: bool },
    /// By itself, after so many boundaries.
    Ended { boundaries: usize },
}

/// Runs ADD and kills its first plugin at the given boundary of a system call ([`syscall_tracer::Tracee::kill_at`]).
pub(crate) fn attach_and_kill(list: &Conflist, pod: &Pod, boundary: usize) -> Result<Cut, LabError> {
    let Some(plugin) = list.types().into_iter().next() else { return Ok(Cut::Ended { boundaries: 0 }) };
    let failed = || LabError::io(format!("kill {plugin} for {}", pod.name));
    let mut command = command(&plugin, pod, "ADD", POD_LINK);
    let (mut child, tracee) = syscall_tracer::start(&mut command, Forked::RunsFree).map_err(failed())?;
    feed(&mut child, &list.input(0, &capabilities(pod), None));
    let end = tracee.kill_at(boundary).map_err(failed())?;
    let mut answer = Vec::new();
    if let Some(out) = &mut child.stdout {
        out.read_to_end(&mut answer).map_err(failed())?;
    }
    Ok(match end {
        End::Killed => Cut::Killed { answered: !answer.is_empty() },
        End::Done { boundaries, .. } => Cut::Ended { boundaries },
    })
}

/// Runs DEL and lets the pod's namespace go.
pub(crate) fn delete(list: &Conflist, pod: &Pod) -> Result<(), LabError> {
    run(list, pod, "DEL", POD_LINK)?;
    run(&Conflist::loopback(), pod, "DEL", "lo")?;
    abandon(pod)
}

/// Lets the pod's namespace go without a word to any plugin.
pub(crate) fn abandon(pod: &Pod) -> Result<(), LabError> {
    let path = &pod.netns_path;
    unmount(path, UnmountFlags::DETACH).map_err(LabError::call(format!("unmount {}", path.display())))?;
    fs::remove_file(path).map_err(LabError::io(format!("remove {}", path.display())))
}

/// A network namespace that a mount keeps alive, as runtimes make it. A thread of its own enters it, so that the
/// caller stays where it is.
fn create_namespace(path: &Path) -> Result<NetNs, LabError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(LabError::io(format!("create {}", folder.display())))?;
    File::create(path).map_err(LabError::io(format!("create {}", path.display())))?;
    let make = || {
        unshare(UnshareFlags::NEWNET).map_err(LabError::io("make a network namespace"))?;
        mount_bind("/proc/thread-self/ns/net", path)
            .map_err(LabError::call(format!("mount {}", path.display())))
    };
    thread::scope(|scope| scope.spawn(make).join()).map_err(|_| LabError::Inner {
        message: format!("the thread that makes {} ended early", path.display()),
        exit: 1,
    })??;
    NetNs::open(path).map_err(LabError::kernel(path.display().to_string()))
}

/// Runs every plugin of a list; for ADD each is given the result of the one before, for DEL they go backwards and are
/// given the result of ADD.
fn run(list: &Conflist, pod: &Pod, verb: &'static str, link: &str) -> Result<Option<Value>, LabError> {
    let capabilities = capabilities(pod);
    let mut plugins: Vec<_> = list.types().into_iter().enumerate().collect();
    if verb == "DEL" {
        plugins.reverse();
    }
    let mut prev = (!pod.result.is_null() && link != "lo").then(|| pod.result.clone());
    for (index, plugin) in plugins {
        let input = list.input(index, &capabilities, prev.as_ref());
        let result = execute(&plugin, pod, verb, link, &input)?;
        if verb == "ADD" {
            prev = result;
        }
    }
    Ok(prev)
}

/// What starts a plugin.
fn command(plugin: &str, pod: &Pod, verb: &'static str, link: &str) -> Command {
    let mut command = Command::new(Path::new(CNI_PATH).join(plugin));
    command
        .env_clear()
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", &pod.container_id)
        .env("CNI_NETNS", &pod.netns_path)
        .env("CNI_IFNAME", link)
        .env("CNI_PATH", CNI_PATH)
        .env(
            "CNI_ARGS",
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME={}", pod.name.replace('/', "-")),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Tells a plugin what it reads.
fn feed(child: &mut Child, input: &Value) {
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that ends without reading says why by itself.
        let _ = stdin.write_all(input.to_string().as_bytes());
    }
}

fn execute(
    plugin: &str,
    pod: &Pod,
    verb: &'static str,
    link: &str,
    input: &Value,
) -> Result<Option<Value>, LabError> {
    let failed = || LabError::io(format!("run {plugin} for {}", pod.name));
    let mut child = command(plugin, pod, verb, link).spawn().map_err(failed())?;
    feed(&mut child, input);
    let output = child.wait_with_output().map_err(failed())?;
    let refused = |status: String| LabError::Plugin {
        verb,
        plugin: plugin.to_owned(),
        pod: pod.name.clone(),
        status,
        output: [&output.stdout[..], &output.stderr[..]]
            .map(String::from_utf8_lossy)
            .join(" ")
            .trim()
            .to_owned(),
    };
    if !output.status.success() {
        return Err(refused(output.status.to_string()));
    }
    if verb != "ADD" {
        return Ok(None);
    }
    serde_json::from_slice(&output.stdout)
        .map(Some)
        .map_err(|error| refused(format!("a result that is no JSON ({error})")))
}

/// The capability arguments that a pod with host ports has.
fn capabilities(pod: &Pod) -> Map<String, Value> {
    let Some(port) = pod.host_port else { return Map::new() };
    let mapping = |protocol| json!({"hostPort": port, "containerPort": ECHO_PORT, "protocol": protocol});
    Map::from_iter([("portMappings".to_owned(), json!([mapping("tcp"), mapping("udp")]))])
}

/// The addresses in a result of specification version 0.3.0 or later.
fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter_map(|ip| ip["address"].as_str()?.parse::<IpNet>().ok()).map(|net| net.addr()).collect()
}
