//! A network configuration list, executed as libcni does: `loopback` first, one exec a plugin, each result handed on.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::{Attempting, BenchError};
use crate::exec::{Exec, Verb};
use crate::node::Pod;

/// The first of the host ports.
const FIRST_PORT: usize = 10_000;
const PORTS: usize = 50_000;

/// Plugins and their configurations.
#[derive(Clone, Debug)]
pub(crate) struct Conflist {
    bin_dir: PathBuf,
    version: String,
    name: String,
    plugins: Vec<Plugin>,
}

#[derive(Clone, Debug)]
struct Plugin {
    program: PathBuf,
    conf: Map<String, Value>,
    publishes_ports: bool,
}

impl Conflist {
    /// Reads a list whose plugins are in `bin_dir`.
    pub(crate) fn parse(text: &str, bin_dir: &Path) -> Result<Self, BenchError> {
        let what = || "read a network configuration list".to_owned();
        let list: Value = serde_json::from_str(text).attempting(what())?;
        let field = |name: &str| {
            let value = list[name].as_str().map(ToOwned::to_owned);
            value.ok_or_else(|| BenchError::new(what(), format!("`{name}` is missing")))
        };
        let listed = list["plugins"].as_array().cloned().unwrap_or_default();
        let plugins = listed.into_iter().filter_map(|plugin| {
            let Value::Object(mut conf) = plugin else { return None };
            let capabilities = conf.remove("capabilities").unwrap_or_default();
            Some(Plugin {
                program: bin_dir.join(conf.get("type")?.as_str()?),
                publishes_ports: capabilities["portMappings"] == true,
                conf,
            })
        });
        Ok(Self {
            bin_dir: bin_dir.to_owned(),
            version: field("cniVersion")?,
            name: field("name")?,
            plugins: plugins.collect(),
        })
    }

    /// The network's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// ADD of every plugin.
    pub(crate) fn add(&self, pod: &mut Pod) -> Result<(), BenchError> {
        self.loopback(Verb::Add, pod)?;
        pod.result = None;
        for plugin in &self.plugins {
            let stdin = self.stdin(plugin, pod)?;
            let answer = self.exec(&plugin.program, Verb::Add, "eth0", &stdin).run(pod)?;
            pod.result = Some(serde_json::from_slice(&answer).attempting("read a plugin's result")?);
        }
        Ok(())
    }

    /// DEL of every plugin, in reverse.
    pub(crate) fn del(&self, pod: &Pod) -> Result<(), BenchError> {
        for plugin in self.plugins.iter().rev() {
            let stdin = self.stdin(plugin, pod)?;
            self.exec(&plugin.program, Verb::Del, "eth0", &stdin).run(pod)?;
        }
        self.loopback(Verb::Del, pod)
    }

    /// The exec of the first plugin alone, for measuring its process.
    pub(crate) fn with_first<T>(
        &self,
        verb: Verb,
        pod: &Pod,
        work: impl FnOnce(&Exec<'_>) -> Result<T, BenchError>,
    ) -> Result<T, BenchError> {
        let Some(plugin) = self.plugins.first() else {
            return Err(BenchError::new("execute a network configuration list", "it is empty"));
        };
        let stdin = self.stdin(plugin, pod)?;
        work(&self.exec(&plugin.program, verb, "eth0", &stdin))
    }

    fn loopback(&self, verb: Verb, pod: &Pod) -> Result<(), BenchError> {
        let conf = json!({ "cniVersion": self.version, "name": "cni-loopback", "type": "loopback" });
        let program = self.bin_dir.join("loopback");
        self.exec(&program, verb, "lo", conf.to_string().as_bytes()).run(pod).map(|_| ())
    }

    fn exec<'a>(&'a self, program: &'a Path, verb: Verb, ifname: &'a str, stdin: &'a [u8]) -> Exec<'a> {
        let cni_path = &self.bin_dir;
        Exec { program, arguments: &[], verb, ifname, cni_path, more_environment: &[], stdin }
    }

    fn stdin(&self, plugin: &Plugin, pod: &Pod) -> Result<Vec<u8>, BenchError> {
        let mut conf = plugin.conf.clone();
        conf.insert("cniVersion".to_owned(), json!(self.version));
        conf.insert("name".to_owned(), json!(self.name));
        if plugin.publishes_ports {
            let port = FIRST_PORT + pod.index % PORTS;
            let mapping = json!({ "hostPort": port, "containerPort": 80, "protocol": "tcp" });
            conf.insert("runtimeConfig".to_owned(), json!({ "portMappings": [mapping] }));
        }
        if let Some(result) = &pod.result {
            conf.insert("prevResult".to_owned(), result.clone());
        }
        serde_json::to_vec(&conf).attempting("write a configuration")
    }
}
