//! Executing a program as a container runtime executes a plugin: one process, its configuration on standard input, its
//! answer on standard output.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::error::{Attempting, BenchError};
use crate::node::Pod;

/// One exec.
#[derive(Debug)]
pub(crate) struct Exec<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: &'a [String],
    pub(crate) verb: Verb,
    pub(crate) ifname: &'a str,
    pub(crate) cni_path: &'a Path,
    pub(crate) more_environment: &'a [(String, String)],
    pub(crate) stdin: &'a [u8],
}

/// What a plugin is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
}

impl Verb {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
        }
    }
}

impl Exec<'_> {
    /// Starts the program for `pod`; it waits for its standard input.
    pub(crate) fn spawn(&self, pod: &Pod) -> Result<Child, BenchError> {
        let mut command = Command::new(self.program);
        command
            .args(self.arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", self.verb.name())
            .env("CNI_CONTAINERID", &pod.id)
            .env("CNI_NETNS", &pod.path)
            .env("CNI_IFNAME", self.ifname)
            .env("CNI_PATH", self.cni_path)
            .env("CNI_ARGS", "IgnoreUnknown=1")
            .envs(self.more_environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().attempting(format!("execute {}", self.program.display()))
    }

    /// Hands the program its configuration.
    pub(crate) fn feed(&self, child: &mut Child) -> Result<(), BenchError> {
        match child.stdin.take() {
            // A program that ended without reading says why by its exit code.
            Some(mut stdin) => match stdin.write_all(self.stdin) {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    Err(error).attempting("write a configuration")
                }
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Executes the program, and gives what it answered.
    pub(crate) fn run(&self, pod: &Pod) -> Result<Vec<u8>, BenchError> {
        let mut child = self.spawn(pod)?;
        self.feed(&mut child)?;
        let done = child.wait_with_output().attempting(format!("wait for {}", self.program.display()))?;
        if done.status.success() {
            return Ok(done.stdout);
        }
        let said = [done.stdout, done.stderr].concat();
        Err(BenchError::new(
            format!("{} {} with {}", self.verb.name(), pod.id, self.program.display()),
            format!("{}: {}", done.status, String::from_utf8_lossy(&said).trim()),
        ))
    }
}
