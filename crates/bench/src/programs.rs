//! The programs of each side: ours beside this one, the floors compiled here, the reference plugins as
//! `tests/reference/build` made them.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Attempting, BenchError};

/// What our plugin is called by here.
const NAMES: [&str; 7] = ["hostgw", "loopback", "bridge", "ptp", "host-local", "portmap", "firewall"];
const FLOOR: &str = include_str!("../floor/floor.c");

/// Where each program is.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) agent: PathBuf,
    /// The folder in which our plugin is installed under each of its names, on the disk that the floors and the
    /// reference plugins are on, too: how dear a page of a program is depends on its file system.
    pub(crate) plugins: PathBuf,
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
        let plugins = bin_dir.join("bench-plugins");
        link_all(&program("hostgw-cni")?, &plugins)?;
        Ok(Self { agent: program("hostgw")?, plugins, floor, given_floor, reference })
    }
}

/// Fills `folder` with our plugin under each of its names.
fn link_all(plugin: &Path, folder: &Path) -> Result<(), BenchError> {
    fs::create_dir_all(folder).attempting(format!("create {}", folder.display()))?;
    let [first, others @ ..] = NAMES;
    let installed = install(plugin, &folder.join(first))?;
    for name in others {
        let link = folder.join(name);
        clear(&link)?;
        fs::hard_link(&installed, &link).attempting(format!("link {}", link.display()))?;
    }
    Ok(())
}

/// Writes a program as an installer does, in one piece: the kernel then holds it in pages of many kilobytes, where a linker
/// leaves small ones, each of which costs when the program starts.
fn install(program: &Path, to: &Path) -> Result<PathBuf, BenchError> {
    let attempted = || format!("install {} as {}", program.display(), to.display());
    let bytes = fs::read(program).attempting(attempted())?;
    clear(to)?;
    fs::write(to, bytes).attempting(attempted())?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).attempting(attempted())?;
    Ok(to.to_owned())
}

fn clear(path: &Path) -> Result<(), BenchError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).attempting(format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn compile(source: &Path, program: &Path) -> Result<PathBuf, BenchError> {
    let attempted = || format!("compile {}", source.display());
    let linked = program.with_extension("linked");
    let done = Command::new("cc")
        .args(["-O2", "-w", "-static", "-o"])
        .arg(&linked)
        .arg(source)
        .output()
        .attempting("execute `cc` (install a C compiler)")?;
    match done.status.success() {
        true => install(&linked, program),
        false => Err(BenchError::new(attempted(), String::from_utf8_lossy(&done.stderr))),
    }
}
