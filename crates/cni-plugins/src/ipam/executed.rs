//! An IPAM plugin of somebody else's: executed with this call's own environment and configuration, as the specification
//! says of delegation.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::process::Stdio;

use cni_spec::{AttachResult, CniError, Command, ErrorCode, MAX_INPUT_LEN};
use rustix::fs::MemfdFlags;

use crate::call::Call;
use crate::failure::io_failed;

/// The program.
#[derive(Clone, Debug)]
pub(crate) struct Executed {
    path: PathBuf,
}

impl Executed {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Its file's name.
    pub(super) fn name(&self) -> Option<&OsStr> {
        self.path.file_name()
    }

    /// ADD, and what it answers.
    pub(super) fn add(&self, call: &Call<'_>) -> Result<AttachResult, CniError> {
        let answer = self.run(Command::Add, call)?;
        AttachResult::from_json(&answer, call.base.cni_version).map_err(|error| {
            CniError::new(
                error.code,
                format!("{} gave a result that cannot be used: {error}", self.path.display()),
            )
        })
    }

    /// A verb without an answer.
    pub(super) fn silently(&self, verb: Command, call: &Call<'_>) -> Result<(), CniError> {
        self.run(verb, call).map(|_| ())
    }

    fn run(&self, verb: Command, call: &Call<'_>) -> Result<Vec<u8>, CniError> {
        let failed = |attempted: &str, error: &std::io::Error| {
            io_failed(&format!("{attempted} the IPAM plugin {}", self.path.display()), error)
        };
        // A file in memory, so that neither waits for the other to read.
        let stdin = stdin(call.stdin).map_err(|error| failed("write the configuration for", &error))?;
        let mut child = std::process::Command::new(&self.path)
            .env("CNI_COMMAND", verb.as_str())
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed("execute", &error))?;
        let mut answer = Vec::new();
        let read = match child.stdout.take() {
            Some(stdout) => stdout.take(MAX_INPUT_LEN as u64 + 1).read_to_end(&mut answer),
            None => Ok(0),
        };
        if read.is_err() || answer.len() > MAX_INPUT_LEN {
            // It would wait for ever for somebody to read the rest.
            child.kill().ok();
        }
        let status = child.wait().map_err(|error| failed("wait for", &error))?;
        read.map_err(|error| failed("read the answer of", &error))?;
        if answer.len() > MAX_INPUT_LEN {
            let name = self.path.display();
            return Err(CniError::new(
                ErrorCode::Decode,
                format!("{name} answered with more than {MAX_INPUT_LEN} bytes"),
            ));
        }
        match status.success() {
            true => Ok(answer),
            false => Err(self.error(&answer, status)),
        }
    }

    /// Its own error, where it printed one; else how it ended.
    fn error(&self, answer: &[u8], status: std::process::ExitStatus) -> CniError {
        CniError::from_json(answer).unwrap_or_else(|| {
            CniError::new(
                ErrorCode::Internal,
                format!("the IPAM plugin {} failed without a word of why: {status}", self.path.display()),
            )
            .with_details(excerpt(answer))
        })
    }
}

fn excerpt(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer).chars().take(200).flat_map(char::escape_default).collect()
}

fn stdin(conf: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("cni", MemfdFlags::CLOEXEC)?);
    file.write_all(conf)?;
    file.rewind()?;
    Ok(file)
}
