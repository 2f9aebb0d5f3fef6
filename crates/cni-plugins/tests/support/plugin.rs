//! Calls of the real program, as a container runtime makes them: the file's name, `CNI_*` variables, standard input.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use super::node::Pod;

/// Where one of the two programs is: in `$HOSTGW_BIN_DIR`, or else where cargo has built the plugin.
pub(crate) fn program(name: &str) -> PathBuf {
    let built = || {
        // At run time, because the shell that wraps rustc keeps no variable with a hyphen in its name.
        let plugin = std::env::var_os("CARGO_BIN_EXE_hostgw-cni").expect("run these tests by cargo");
        Path::new(&plugin).parent().unwrap().to_owned()
    };
    let path = std::env::var_os("HOSTGW_BIN_DIR").map_or_else(built, PathBuf::from).join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    path
}

/// One call that can be run, several times if need be.
#[derive(Clone)]
pub(crate) struct Call {
    program: &'static str,
    environment: Vec<(&'static str, OsString)>,
    stdin: Vec<u8>,
}

impl Call {
    /// A verb of the plugin `hostgw`, without an attachment yet.
    pub(crate) fn new(verb: &str, conf: &Value) -> Self {
        Self { program: "hostgw", environment: Vec::new(), stdin: conf.to_string().into_bytes() }
            .with("CNI_COMMAND", verb)
            .with("CNI_PATH", "/opt/cni/bin")
    }

    /// A verb about `pod`'s interface `eth0`.
    pub(crate) fn about(verb: &str, pod: &Pod, conf: &Value) -> Self {
        Self::new(verb, conf)
            .with("CNI_CONTAINERID", &pod.id)
            .with("CNI_NETNS", pod.netns())
            .with("CNI_IFNAME", "eth0")
    }

    /// GC that keeps `eth0` of each of these containers.
    pub(crate) fn gc(conf: &Value, valid: &[&str]) -> Self {
        let kept = |id: &&str| json!({"containerID": id, "ifname": "eth0"});
        let mut conf = conf.clone();
        conf["cni.dev/valid-attachments"] = valid.iter().map(kept).collect::<Vec<_>>().into();
        Self::new("GC", &conf)
    }

    /// The same call by another file name.
    pub(crate) fn by_name(self, program: &'static str) -> Self {
        Self { program, ..self }
    }

    /// The same call with a variable set.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self = self.without(name);
        self.environment.push((name, value.into()));
        self
    }

    /// The same call with a variable unset.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(other, _)| *other != name);
        self
    }

    /// The same call with these bytes on standard input.
    pub(crate) fn reading(self, stdin: impl Into<Vec<u8>>) -> Self {
        Self { stdin: stdin.into(), ..self }
    }

    /// The command, in the calling thread's namespaces.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(program("hostgw-cni"));
        command
            .arg0(self.program)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Gives a started child its standard input. A plugin that stops reading early is its own affair.
    pub(crate) fn feed(&self, child: &mut Child) {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&self.stdin).ok();
        }
    }

    /// Starts it, without waiting for its end.
    pub(crate) fn start(&self) -> Running {
        let mut child = self.command().spawn().unwrap();
        self.feed(&mut child);
        Running(child)
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Outcome {
        self.start().finish()
    }
}

/// A call under way.
pub(crate) struct Running(Child);

impl Running {
    /// Waits for its end.
    pub(crate) fn finish(self) -> Outcome {
        Outcome::of(self.0.wait_with_output().unwrap())
    }
}

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    ok: bool,
    stdout: String,
    warnings: Vec<String>,
}

impl Outcome {
    pub(crate) fn of(output: Output) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        let warning = |line: &str| {
            let warning = line.strip_prefix("hostgw: warn ");
            warning.unwrap_or_else(|| panic!("the runtime would log this as noise: {line}")).to_owned()
        };
        let warnings = stderr.lines().map(warning).collect();
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 1)), "{:?}", output.status);
        Self { ok: code == Some(0), stdout: String::from_utf8(output.stdout).unwrap(), warnings }
    }

    /// What was told on standard error, each line without what all begin with.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.ok
    }

    /// Standard output of a call that must have succeeded.
    pub(crate) fn answer(&self) -> &str {
        assert!(self.ok, "failed: {}", self.stdout);
        &self.stdout
    }

    /// The answer as JSON.
    pub(crate) fn result(&self) -> Value {
        serde_json::from_str(self.answer()).unwrap()
    }

    /// The version that the answer is in, be it a result or an error.
    pub(crate) fn version(&self) -> String {
        let answer: Value = serde_json::from_str(&self.stdout).unwrap();
        answer["cniVersion"].as_str().unwrap().to_owned()
    }

    /// Asserts success without an answer, as every verb but ADD and VERSION has it.
    pub(crate) fn silent(&self) {
        assert_eq!(self.answer(), "");
        assert_eq!(self.warnings, [""; 0]);
    }

    /// Code and message of a call that must have failed, with exactly one error object for the runtime.
    pub(crate) fn error(&self) -> (u64, String) {
        assert!(!self.ok, "succeeded: {}", self.stdout);
        let error: Value = serde_json::from_str(&self.stdout).unwrap();
        assert!(error["cniVersion"].is_string(), "{error}");
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        let details = text("details");
        let separator = if details.is_empty() { "" } else { "; " };
        (error["code"].as_u64().unwrap(), format!("{}{separator}{details}", text("msg")))
    }
}
