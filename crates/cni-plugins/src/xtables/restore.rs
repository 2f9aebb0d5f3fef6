//! Rules added by `iptables-restore --noflush`: a table's changes take effect together or not at all.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use super::{Xtables, XtablesError};

/// For how many seconds the lock of the legacy flavour is waited for: the kubelet's and kube-proxy's own changes take
/// less.
const PATIENCE: &str = "10";
/// What a program says of its refusal is cut here, in bytes.
const SAID_MAX: usize = 600;

/// What one table shall get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Script {
    table: &'static str,
    lines: Vec<String>,
}

impl Script {
    /// Nothing yet.
    pub(crate) fn new(table: &'static str) -> Self {
        Self { table, lines: Vec::new() }
    }

    /// A chain, made where it is missing, and emptied.
    pub(crate) fn empty_chain(&mut self, chain: &str) -> &mut Self {
        // Declarations come before rules.
        self.lines.insert(0, format!(":{chain} - [0:0]"));
        self
    }

    /// A chain that is not there.
    pub(crate) fn new_chain(&mut self, chain: &str) -> &mut Self {
        self.line(format!("-N {chain}"))
    }

    /// A rule at the end of a chain.
    pub(crate) fn append(&mut self, chain: &str, rule: &str) -> &mut Self {
        self.line(format!("-A {chain} {rule}"))
    }

    /// A rule in front of a chain.
    pub(crate) fn insert(&mut self, chain: &str, rule: &str) -> &mut Self {
        self.line(format!("-I {chain} {rule}"))
    }

    /// Any other line.
    pub(crate) fn line(&mut self, line: String) -> &mut Self {
        self.lines.push(line);
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// What `iptables-restore` reads.
    pub(crate) fn text(&self) -> String {
        format!("*{}\n{}\nCOMMIT\n", self.table, self.lines.join("\n"))
    }
}

/// Runs one program for each version of IP that has something to change, side by side; all that fail are told.
pub(crate) fn restore(scripts: &[(&Xtables, Script)]) -> Result<(), XtablesError> {
    let started: Vec<Result<(String, Child), XtablesError>> = scripts
        .iter()
        .filter(|(_, script)| !script.is_empty())
        .map(|(xtables, script)| start(xtables, script))
        .collect();
    let mut first = Ok(());
    for started in started {
        let ended = started.and_then(|(program, child)| end(program, child));
        first = first.and(ended);
    }
    first
}

fn start(xtables: &Xtables, script: &Script) -> Result<(String, Child), XtablesError> {
    let Some(program) = &xtables.program else {
        return Err(XtablesError::NoProgram("iptables-restore".to_owned()));
    };
    let named = program.display().to_string();
    let not_run = |cause| XtablesError::NotRun { program: program.display().to_string(), cause };
    let mut child = Command::new(program)
        .args(["--noflush", "--wait", PATIENCE])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(not_run)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends early says why.
        stdin.write_all(script.text().as_bytes()).ok();
    }
    Ok((named, child))
}

fn end(program: String, child: Child) -> Result<(), XtablesError> {
    let output = match child.wait_with_output() {
        Ok(output) => output,
        Err(cause) => return Err(XtablesError::NotRun { program, cause }),
    };
    if output.status.success() {
        return Ok(());
    }
    let mut said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    let mut cut = said.len().min(SAID_MAX);
    while !said.is_char_boundary(cut) {
        cut -= 1;
    }
    said.truncate(cut);
    Err(XtablesError::Refused { program, said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_declares_its_chains_first() {
        let mut script = Script::new("nat");
        script.new_chain("A").append("A", "-j B").empty_chain("B").insert("POSTROUTING", "-j A");
        assert_eq!(script.text(), "*nat\n:B - [0:0]\n-N A\n-A A -j B\n-I POSTROUTING -j A\nCOMMIT\n");
    }
}
