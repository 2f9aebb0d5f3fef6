//! Which iptables a node has: the plain names lead to one of two flavours.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kernel::route::Family;

use super::{Xtables, XtablesError};

/// Runtimes start plugins with a bare PATH, or none.
const FOLDERS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What keeps the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// nftables, in tables that iptables-nft owns.
    Nft,
    /// The kernel's older tables.
    Legacy,
}

/// The program, by its plain name or by that of a flavour.
pub(super) fn find(version: Family, flavour: Option<Flavour>) -> Result<Xtables, XtablesError> {
    let family = match version {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    if flavour == Some(Flavour::Legacy)
        && let Some(program) = search(&format!("{family}-legacy-restore"))
    {
        return Ok(Xtables { version, flavour: Flavour::Legacy, program: Some(program) });
    }
    let name = format!("{family}-restore");
    let program = search(&name).ok_or_else(|| XtablesError::NoProgram(name.clone()))?;
    let found = flavour_of(&program)?;
    if flavour.is_some_and(|flavour| flavour != found) {
        return Err(XtablesError::NoProgram(format!("{family}-legacy-restore")));
    }
    Ok(Xtables { version, flavour: found, program: Some(program) })
}

fn search(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(std::env::split_paths(FOLDERS))
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// By the file that the name leads to, or where that says nothing, by the program's own word.
fn flavour_of(program: &Path) -> Result<Flavour, XtablesError> {
    let target = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    match target.file_name().and_then(OsStr::to_str) {
        Some(name) if name.contains("nft") => return Ok(Flavour::Nft),
        Some(name) if name.contains("legacy") || name == "xtables-multi" => return Ok(Flavour::Legacy),
        _ => {}
    }
    let said = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| XtablesError::NotRun { program: program.display().to_string(), cause })?;
    let is_nft = String::from_utf8_lossy(&said.stdout).contains("nf_tables");
    Ok(if is_nft { Flavour::Nft } else { Flavour::Legacy })
}
