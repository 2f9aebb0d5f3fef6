//! What of a folder of plugins is ours: the contents of our programs, and the names that they were given.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{PluginFilesError, refused};
use crate::atomic_file;

/// A manifest names a dozen files.
const MANIFEST_MAX: u64 = 1 << 16;
const SCHEMA_VERSION: u32 = 1;

/// The SHA-256 of a program, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Digest(String);

impl Digest {
    pub(super) fn of(program: &[u8]) -> Self {
        Self(Sha256::digest(program).iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The file `manifest.json`. While an install is under way it says more than is there; never less.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Manifest {
    schema_version: u32,
    /// Contents that are ours.
    pub(super) programs: BTreeSet<Digest>,
    /// Names that were given to them.
    pub(super) names: BTreeSet<String>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self { schema_version: SCHEMA_VERSION, programs: BTreeSet::new(), names: BTreeSet::new() }
    }
}

impl Manifest {
    /// Reads the manifest of the plugins in `folder`; nothing is ours where there is none, and an empty file is what a
    /// crash of the machine leaves.
    pub(super) fn read(folder: &Path, path: &Path) -> Result<Self, PluginFilesError> {
        let bytes = atomic_file::read(path, MANIFEST_MAX)?.unwrap_or_default();
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let bad = |why: String| {
            let path = path.display();
            refused(
                folder,
                format!("{path} {why}; put it right, or remove it to leave all files to their owners"),
            )
        };
        let manifest: Self = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        if manifest.schema_version != SCHEMA_VERSION {
            return Err(bad(format!(
                "is of version {}, of which this hostgw knows nothing",
                manifest.schema_version
            )));
        }
        let is_name = |name: &String| !name.is_empty() && !name.starts_with('.') && !name.contains('/');
        match manifest.names.iter().find(|name| !is_name(name)) {
            Some(name) => Err(bad(format!("names `{name}`, which is no plugin's"))),
            None => Ok(manifest),
        }
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), PluginFilesError> {
        // Strings and a number: this cannot fail, and is not to be a panic if it ever could.
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| atomic_file::FileError::new("write", path, error.into()))?;
        Ok(atomic_file::replace(path, &bytes, 0o644)?)
    }
}
