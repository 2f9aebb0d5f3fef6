//! The settings file.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use node_network::Settings;
use node_network::settings::SettingsError;

use crate::atomic_file::open_regular;

/// Far more than any settings need.
const MAX_BYTES: u64 = 1 << 20;

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to read settings {}: {source}; create the file, or leave --config out", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no YAML, or has a key or value that settings do not have.
    #[error("settings {}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// Values that cannot be used.
    #[error("settings {}: {}", path.display(), join(faults))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Each of them.
        faults: Vec<SettingsError>,
    },
}

fn join(faults: &[SettingsError]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Reads the settings at `given`, or at `default` if such a file exists, else takes the defaults.
pub fn read_settings(given: Option<&Path>, default: &Path) -> Result<Settings, ConfigError> {
    let path = given.unwrap_or(default);
    let mut text = String::new();
    match open_regular(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text)) {
        Ok(_) => parse_settings(path, &text),
        Err(error) if given.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(Settings::default()),
        Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
    }
}

/// Parses and checks settings; `path` only names them in errors.
pub fn parse_settings(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    let syntax = |message: String| ConfigError::Syntax { path: path.to_owned(), message };
    if text.len() as u64 > MAX_BYTES {
        return Err(syntax(format!("longer than {MAX_BYTES} bytes: this is no settings file")));
    }
    // An empty file is one in which everything was commented out.
    let settings: Option<Settings> =
        serde_saphyr::from_str(text).map_err(|error| syntax(error.to_string()))?;
    let settings = settings.unwrap_or_default();
    match settings.validate() {
        Ok(()) => Ok(settings),
        Err(faults) => Err(ConfigError::Invalid { path: path.to_owned(), faults }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        parse_settings(Path::new("config.yaml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_keys_of_the_documentation_are_read() {
        let settings = parse(
            "mode: bridge\nbridge: cni0\nmtu: 1400\nmasquerade:\n  neverMasquerade: [198.51.100.0/24]\n  \
             clusterCIDRs: [10.244.0.0/16]\nroutes:\n  metric: 90\n  onLinkPrefixes:\n  - prefix: 192.0.2.0/24\n\
             cni:\n  disableGC: true\nresyncInterval: 10s\n",
        )
        .unwrap();
        assert_eq!(settings.pod_bridge(), Some("cni0"));
        assert_eq!(settings.routes.metric, 90);
        assert!(settings.cni.disable_gc);
    }

    #[test]
    fn nothing_means_the_defaults() {
        assert_eq!(parse("").unwrap(), Settings::default());
        assert_eq!(parse("# nothing\n").unwrap(), Settings::default());
        assert_eq!(parse("{}").unwrap(), Settings::default());
    }

    #[test]
    fn a_fault_names_file_key_and_remedy() {
        let misspelt = parse("masquerad: {}").unwrap_err();
        assert!(misspelt.contains("config.yaml") && misspelt.contains("masquerad"), "{misspelt}");
        assert!(parse("mtu: 3").unwrap_err().contains("setting mtu is `3`"));
        assert!(parse("bridge: a/b").unwrap_err().contains("a/b"));
        assert!(parse("mode: vxlan").unwrap_err().contains("vxlan"));
    }

    #[test]
    fn a_file_that_was_asked_for_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("config.yaml");
        assert_eq!(read_settings(None, &absent).unwrap(), Settings::default());
        let error = read_settings(Some(&absent), &absent).unwrap_err().to_string();
        assert!(error.contains("config.yaml") && error.contains("--config"), "{error}");
    }
}
