//! Folders of plugins as a node has them: ours by their several names, and those that stand in neither set.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use cni_plugins::DROP_IN_NAMES;

use crate::Options;
use crate::error::{SuiteError, failed};
use crate::trial::Sides;

/// A plugin that hands the result on, and one that refuses, as anybody may write them.
const PASSES: &str = "#!/bin/sh
[ \"$CNI_COMMAND\" = ADD ] || exit 0
input=$(cat) && printf '%s' \"${input#*\\\"prevResult\\\":}\" | awk '{
  depth = 0
  for (i = 1; i <= length($0); i++) {
    c = substr($0, i, 1); printf \"%s\", c
    if (c == \"{\") depth++
    if (c == \"}\" && --depth == 0) exit
  }
}'
";
const REFUSES: &str = "#!/bin/sh
[ \"$CNI_COMMAND\" = ADD ] || exit 0
echo '{\"cniVersion\": \"1.0.0\", \"code\": 142, \"msg\": \"no\"}'
exit 1
";

/// Every folder that a run takes plugins from. They lie beside the program, so that a run finds them by one path.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) ours: PathBuf,
    pub(crate) reference: PathBuf,
    pub(crate) debian: Option<PathBuf>,
    pub(crate) foreign: PathBuf,
    work: PathBuf,
}

impl Programs {
    /// Makes the folders.
    pub(crate) fn prepare(options: &Options) -> Result<Self, SuiteError> {
        let whole = |path: &Path| path.canonicalize().map_err(failed("find", path));
        let plugin = whole(&options.plugin)?;
        let reference = whole(&options.reference)?;
        let work = plugin.parent().unwrap_or(Path::new("/")).join("conformance");
        let (ours, foreign) = (work.join("ours"), work.join("foreign"));
        for folder in [&ours, &foreign] {
            if folder.exists() {
                std::fs::remove_dir_all(folder).map_err(failed("empty", folder))?;
            }
            std::fs::create_dir_all(folder).map_err(failed("make", folder))?;
        }
        for name in DROP_IN_NAMES {
            link(&plugin, &ours.join(name))?;
        }
        // By a name that is none of ours, an IPAM plugin is somebody else's.
        link(&reference.join("host-local"), &foreign.join("foreign-ipam"))?;
        for name in ["dummy", "sbr", "vrf", "macvlan"] {
            link(&reference.join(name), &foreign.join(name))?;
        }
        script(&foreign.join("passes"), PASSES)?;
        script(&foreign.join("refuses"), REFUSES)?;
        let debian = options.debian.as_deref().map(whole).transpose()?;
        Ok(Self { ours, reference, debian, foreign, work })
    }

    /// A folder of ours in which the plugin of this name does something more, by a shell's line after each ADD.
    pub(crate) fn with_fault(&self, name: &str, plugin: &str, line: &str) -> Result<PathBuf, SuiteError> {
        let folder = self.work.join(format!("fault-{name}"));
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(failed("empty", &folder))?;
        }
        std::fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
        for other in DROP_IN_NAMES.iter().filter(|other| **other != plugin) {
            symlink(self.ours.join(other), folder.join(other)).map_err(failed("link into", &folder))?;
        }
        let real = self.ours.join(plugin);
        let text = format!(
            "#!/bin/sh\nanswer=$({}); code=$?\npod() {{ nsenter --net=\"$CNI_NETNS\" \"$@\"; }}\n{line}\n\
             printf '%s' \"$answer\"\nexit $code\n",
            real.display()
        );
        script(&folder.join(plugin), &text)?;
        Ok(folder)
    }

    pub(crate) fn sides(&self, adds: &Path, rest: &Path) -> Sides {
        Sides { adds: adds.to_owned(), rest: rest.to_owned(), foreign: self.foreign.clone() }
    }
}

fn link(program: &Path, name: &Path) -> Result<(), SuiteError> {
    symlink(program, name).map_err(failed("make", name))
}

fn script(path: &Path, text: &str) -> Result<(), SuiteError> {
    std::fs::write(path, text).map_err(failed("write", path))?;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, mode).map_err(failed("make executable", path))
}
