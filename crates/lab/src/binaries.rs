//! The programs under test: taken from `--bin-dir` once, hashed, and kept as they were for the lab's life.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::LabError;
use crate::report::{Binaries, Binary};

/// The agent's file in `--bin-dir`.
const AGENT: &str = "hostgw";
/// The plugin's.
const PLUGIN: &str = "hostgw-cni";
/// Where the lab keeps them.
const FOLDER: &str = "/lab/bin";

/// Both programs, open, so that they can be read once the machine's folders are out of sight.
#[derive(Debug)]
pub(crate) struct Opened {
    agent: (Binary, File),
    plugin: (Binary, File),
}

/// Opens both.
pub(crate) fn open(bin_dir: &Path) -> Result<Opened, LabError> {
    let open = |name: &str| {
        let path = bin_dir.join(name);
        match File::open(&path) {
            Ok(file) => Ok((Binary { path, sha256: String::new() }, file)),
            Err(source) => Err(LabError::NoProgram { path, source }),
        }
    };
    Ok(Opened { agent: open(AGENT)?, plugin: open(PLUGIN)? })
}

impl Opened {
    /// Copies both into the lab; what is hashed is what is executed.
    pub(crate) fn copy(self) -> Result<Binaries, LabError> {
        fs::create_dir_all(FOLDER).map_err(LabError::io(format!("create {FOLDER}")))?;
        Ok(Binaries { agent: copy(self.agent, AGENT)?, plugin: copy(self.plugin, PLUGIN)? })
    }
}

fn copy((mut binary, mut from): (Binary, File), name: &str) -> Result<Binary, LabError> {
    let to = Path::new(FOLDER).join(name);
    let failed = || LabError::io(format!("copy {} to {}", binary.path.display(), to.display()));
    let mut file = File::create(&to).map_err(failed())?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = from.read(&mut buffer).map_err(failed())?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        file.write_all(&buffer[..read]).map_err(failed())?;
    }
    fs::set_permissions(&to, Permissions::from_mode(0o755)).map_err(failed())?;
    binary.sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(binary)
}

/// Puts both where a node has them, as an installation does: hard links.
pub(crate) fn install(root: &Path) -> Result<(), LabError> {
    let link = |from: &str, to: &str| {
        let (from, to) = (Path::new(FOLDER).join(from), root.join(to));
        fs::hard_link(&from, &to).map_err(LabError::io(format!(
            "link {} to {}",
            to.display(),
            from.display()
        )))
    };
    link(AGENT, "opt/hostgw/hostgw")?;
    link(PLUGIN, "opt/cni/bin/hostgw")?;
    link(PLUGIN, "opt/cni/bin/loopback")
}
