//! The programs of each side: ours beside this one, the floors compiled here, the reference plugins as
//! `tests/reference/build` made them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Attempting, BenchError};

const FLOOR: &str = include_str!("../floor/floor.c");

/// Where each program is.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) agent: PathBuf,
    pub(crate) plugin: PathBuf,
    pub(crate) floor: PathBuf,
    /// None where the measurements' `floor.c` does not stand beside the checkout.
    pub(crate) given_floor: Option<PathBuf>,
    /// None where they were not built.
    pub(crate) reference: Option<PathBuf>,
}

impl Programs {
    /// Finds and compiles them. What is compiled lies in `bin_dir`, which is cargo's.
    pub(crate) fn prepare(
        bin_dir: &Path,
        given_floor: &Path,
        reference: Option<PathBuf>,
    ) -> Result<Self, BenchError> {
        let absolute = |path: &Path| std::path::absolute(path).attempting("find the current folder");
        let bin_dir = absolute(bin_dir)?;
        let program = |name: &str| {
            let path = bin_dir.join(name);
            match path.is_file() {
                true => Ok(path),
                false => Err(BenchError::new(
                    format!("find {}", path.display()),
                    "build it: cargo build --release",
                )),
            }
        };
        let source = bin_dir.join("floor.c");
        fs::write(&source, FLOOR).attempting(format!("write {}", source.display()))?;
        let floor = compile(&source, &bin_dir.join("hostgw-floor"))?;
        let given_floor = match given_floor.is_file() {
            true => Some(compile(&absolute(given_floor)?, &bin_dir.join("given-floor"))?),
            false => None,
        };
        let reference = reference.filter(|folder| folder.join("bridge").is_file());
        let reference = reference.map(|folder| absolute(&folder)).transpose()?;
        Ok(Self { agent: program("hostgw")?, plugin: program("hostgw-cni")?, floor, given_floor, reference })
    }
}

fn compile(source: &Path, program: &Path) -> Result<PathBuf, BenchError> {
    let attempted = || format!("compile {}", source.display());
    let done = Command::new("cc")
        .args(["-O2", "-w", "-static", "-o"])
        .arg(program)
        .arg(source)
        .output()
        .attempting("execute `cc` (install a C compiler)")?;
    match done.status.success() {
        true => Ok(program.to_owned()),
        false => Err(BenchError::new(attempted(), String::from_utf8_lossy(&done.stderr))),
    }
}
