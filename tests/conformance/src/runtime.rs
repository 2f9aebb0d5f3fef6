//! Executes the plugins of a network as container runtimes do (specification 1.1.0, section 3).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use cni_spec::Command as Verb;

use crate::case::Call;
use crate::error::SuiteError;
use crate::scene::{PATH, Scene};

/// Where plugins are: those of a side, then those that no side has.
#[derive(Clone, Debug)]
pub(crate) struct BinFolders {
    pub(crate) side: PathBuf,
    pub(crate) foreign: PathBuf,
}

impl BinFolders {
    fn find(&self, plugin: &str) -> Result<PathBuf, SuiteError> {
        let paths = [self.side.join(plugin), self.foreign.join(plugin)];
        let found = paths.into_iter().find(|path| path.exists());
        found.ok_or_else(|| SuiteError::Unknown { what: "the plugin", name: plugin.to_owned() })
    }
}

/// What a runtime remembers: the result of each interface.
#[derive(Debug, Default)]
pub(crate) struct Runtime {
    results: BTreeMap<(usize, &'static str, &'static str), Value>,
}

/// What a plugin, or a chain of them, came to.
#[derive(Debug)]
pub(crate) enum Answer {
    Result(Value),
    Silence,
    Refusal { plugin: String, error: Value },
}

impl Runtime {
    /// One verb over all plugins of the network: ADD hands the result on, DEL goes backwards.
    pub(crate) fn call(
        &mut self,
        call: &Call,
        network: &Value,
        bins: &BinFolders,
    ) -> Result<Answer, SuiteError> {
        let key = (call.network, call.pod, call.ifname);
        let mut so_far = match call.verb {
            Verb::Del | Verb::Check if call.prev_result => self.results.get(&key).cloned(),
            _ => None,
        };
        let none = Vec::new();
        let mut plugins: Vec<&Value> = network["plugins"].as_array().unwrap_or(&none).iter().collect();
        if call.verb == Verb::Del {
            plugins.reverse();
        }
        let mut last = Answer::Silence;
        for plugin in plugins {
            let conf = configuration(call, network, plugin, so_far.as_ref());
            let kind = plugin["type"].as_str().unwrap_or_default();
            last = execute(call, &conf, &bins.find(kind)?, bins)?;
            match &last {
                Answer::Refusal { .. } => return Ok(last),
                Answer::Result(result) if call.verb == Verb::Add => so_far = Some(result.clone()),
                Answer::Result(_) | Answer::Silence => {}
            }
        }
        match (call.verb, so_far) {
            (Verb::Add, Some(result)) => drop(self.results.insert(key, result)),
            (Verb::Del, _) => drop(self.results.remove(&key)),
            _ => {}
        }
        Ok(last)
    }
}

/// What is written to a plugin's standard input.
fn configuration(call: &Call, network: &Value, plugin: &Value, so_far: Option<&Value>) -> Value {
    let mut conf = plugin.clone();
    conf["cniVersion"] = network["cniVersion"].clone();
    conf["name"] = network["name"].clone();
    // 0.1.0 and 0.2.0 have no such key, and 0.3.x tells it to ADD alone.
    let version = network["cniVersion"].as_str().unwrap_or_default();
    let told = match call.verb {
        Verb::Add => version >= "0.3.0",
        _ => version >= "0.4.0",
    };
    if let Some(result) = so_far.filter(|_| told) {
        conf["prevResult"] = result.clone();
    }
    if let Some(wanted) = call.runtime.as_object() {
        for (key, value) in wanted {
            if plugin["capabilities"][key] == true {
                conf["runtimeConfig"][key] = value.clone();
            }
        }
    }
    if call.verb == Verb::Gc {
        let kept = |pod: &&str| json!({"containerID": format!("pod-{pod}"), "ifname": call.ifname});
        conf["cni.dev/valid-attachments"] = call.valid.iter().map(kept).collect();
    }
    conf
}

/// One execution. What it says on standard error is for people.
fn execute(call: &Call, conf: &Value, program: &Path, bins: &BinFolders) -> Result<Answer, SuiteError> {
    let attempted = || format!("execute {}", program.display());
    let lost = |source| SuiteError::Io { attempted: attempted(), source };
    let folders = [&bins.side, &bins.foreign].map(|folder| folder.display().to_string());
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH).env("CNI_COMMAND", call.verb.as_str());
    command.env("CNI_PATH", folders.join(":"));
    if !call.pod.is_empty() {
        command.env("CNI_CONTAINERID", format!("pod-{}", call.pod)).env("CNI_IFNAME", call.ifname);
        let netns = if call.netns { Scene::netns_path(call.pod) } else { PathBuf::new() };
        command.env("CNI_NETNS", netns);
        if !call.args.is_empty() {
            command.env("CNI_ARGS", call.args);
        }
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(lost)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that reads no further than it wants is its own affair.
        stdin.write_all(conf.to_string().as_bytes()).ok();
    }
    let ended = child.wait_with_output().map_err(lost)?;
    let stdout = String::from_utf8_lossy(&ended.stdout);
    let read = |text: &str| {
        let unreadable = |source| SuiteError::Unreadable { program: program.display().to_string(), source };
        serde_json::from_str::<Value>(text).map_err(unreadable)
    };
    if !ended.status.success() {
        let plugin = conf["type"].as_str().unwrap_or_default().to_owned();
        let error = read(&stdout).unwrap_or_else(
            |_| json!({"code": "none", "msg": String::from_utf8_lossy(&ended.stderr).into_owned()}),
        );
        return Ok(Answer::Refusal { plugin, error });
    }
    if stdout.trim().is_empty() { Ok(Answer::Silence) } else { read(&stdout).map(Answer::Result) }
}
