//! Where the API server is and how this program shows who it is: from a kubeconfig, or from what every pod is given.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::{certificates, kubeconfig};
use crate::atomic_file;

/// Where every pod finds its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// No certificate, key, token or kubeconfig is longer.
const MAX_BYTES: u64 = 1 << 20;

/// Which API server, and by whose word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// The cluster in which this runs as a pod: `KUBERNETES_SERVICE_HOST`, and the pod's service account.
    InCluster,
    /// What a kubeconfig says.
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// A context other than its `current-context`.
        context: Option<String>,
    },
}

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// This is no pod.
    #[error("{0} is not set, so this is no pod of a cluster: give --kubeconfig FILE")]
    NotInCluster(&'static str),
    /// A file cannot be read.
    #[error("failed to read {what} {}: {source}; {remedy}", path.display())]
    Read {
        /// What it should hold.
        what: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The kubeconfig is no YAML of the expected shape.
    #[error("kubeconfig {}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A value of the kubeconfig, or of the environment, that cannot be used.
    #[error("{place}: {field} is `{value}`: {remedy}")]
    Field {
        /// The kubeconfig, or `environment`.
        place: String,
        /// Path of the key.
        field: String,
        /// The value found, bounded.
        value: String,
        /// What to write instead.
        remedy: String,
    },
    /// A certificate or key that cannot be used.
    #[error("{what}: {reason}; {remedy}")]
    Certificate {
        /// Which, and where it is.
        what: String,
        /// Why.
        reason: String,
        /// What to give instead.
        remedy: &'static str,
    },
}

/// All that a connection needs, read anew for each.
pub(crate) struct Access {
    pub(crate) server: Server,
    /// `None` where the server speaks plain HTTP.
    pub(crate) tls: Option<Tls>,
    pub(crate) token: Option<String>,
}

/// Where the API server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What stands before `/api`, without the slash at the end: empty but behind some proxies.
    pub(crate) base_path: String,
}

/// What a TLS connection needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) authorities: Material,
    /// Certificate chain and key.
    pub(crate) client: Option<(Material, Material)>,
    /// The name that the server's certificate must have.
    pub(crate) server_name: String,
}

/// PEM text, and where it is from, for errors.
#[derive(PartialEq, Eq)]
pub(crate) struct Material {
    pub(crate) what: String,
    pub(crate) pem: Vec<u8>,
}

// Neither token nor key ever shows in a log.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("server", &self.server).field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("what", &self.what).finish_non_exhaustive()
    }
}

impl Location {
    /// Reads files and environment.
    pub(crate) fn access(&self) -> Result<Access, AccessError> {
        let access = match self {
            Self::InCluster => in_cluster(|name| std::env::var(name).ok(), Path::new(SERVICE_ACCOUNT)),
            Self::Kubeconfig { path, context } => {
                let bytes =
                    read("kubeconfig", path, "give the path of a kubeconfig that this user may read")?;
                kubeconfig::parse(path, &bytes, context.as_deref())
            }
        }?;
        if let Some(tls) = &access.tls {
            certificates::check(tls)?;
        }
        Ok(access)
    }
}

/// Reads one small file.
pub(super) fn read(what: &str, path: &Path, remedy: &'static str) -> Result<Vec<u8>, AccessError> {
    let failed = |source| AccessError::Read { what: what.to_owned(), path: path.to_owned(), source, remedy };
    match atomic_file::read(path, MAX_BYTES) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(failed(io::Error::from(io::ErrorKind::NotFound))),
        Err(error) => Err(failed(error.source)),
    }
}

/// A token as a header can carry it.
pub(super) fn token(what: &str, bytes: &[u8]) -> Result<String, AccessError> {
    let token = std::str::from_utf8(bytes).unwrap_or_default().trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(AccessError::Certificate {
            what: what.to_owned(),
            reason: "it holds no token".to_owned(),
            remedy: "a token is one word of ASCII letters, digits and signs",
        });
    }
    Ok(token.to_owned())
}

fn in_cluster(environment: impl Fn(&str) -> Option<String>, account: &Path) -> Result<Access, AccessError> {
    const REMEDY: &str = "run as a pod with automountServiceAccountToken, or give --kubeconfig FILE";
    let variable = |name: &'static str| {
        environment(name).filter(|value| !value.is_empty()).ok_or(AccessError::NotInCluster(name))
    };
    let host = variable("KUBERNETES_SERVICE_HOST")?;
    let port = variable("KUBERNETES_SERVICE_PORT")?;
    let Ok(port) = port.parse() else {
        return Err(AccessError::Field {
            place: "environment".to_owned(),
            field: "KUBERNETES_SERVICE_PORT".to_owned(),
            value: bounded(&port),
            remedy: "give a port number".to_owned(),
        });
    };
    let token_file = account.join("token");
    let authorities = account.join("ca.crt");
    let token =
        token(&token_file.display().to_string(), &read("the service account's token", &token_file, REMEDY)?)?;
    Ok(Access {
        server: Server { host: host.clone(), port, base_path: String::new() },
        tls: Some(Tls {
            authorities: Material {
                pem: read("the cluster's certificate authority", &authorities, REMEDY)?,
                what: format!("the cluster's certificate authority {}", authorities.display()),
            },
            client: None,
            server_name: host,
        }),
        token: Some(token),
    })
}

impl Server {
    /// As a Host header and an error name it.
    pub(crate) fn authority(&self) -> String {
        match self.host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{}", self.port),
            Err(_) => format!("{}:{}", self.host, self.port),
        }
    }

    /// On this very node, so that nobody else sees what is said in plain HTTP.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// Enough of a value to recognise it.
pub(super) fn bounded(value: &str) -> String {
    value.chars().take(80).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_told_by_its_environment_and_its_service_account() {
        let folder = tempfile::tempdir().unwrap();
        let set = |name: &str| match name {
            "KUBERNETES_SERVICE_HOST" => Some("fd00::1".to_owned()),
            "KUBERNETES_SERVICE_PORT" => Some("443".to_owned()),
            _ => None,
        };
        let error = in_cluster(set, folder.path()).unwrap_err().to_string();
        assert!(error.contains("token") && error.contains("--kubeconfig"), "{error}");
        std::fs::write(folder.path().join("token"), "abc.def\n").unwrap();
        std::fs::write(folder.path().join("ca.crt"), "pem").unwrap();
        let access = in_cluster(set, folder.path()).unwrap();
        assert_eq!(access.token.as_deref(), Some("abc.def"));
        assert_eq!(access.server.authority(), "[fd00::1]:443");
        std::fs::write(folder.path().join("token"), "two words").unwrap();
        assert!(in_cluster(set, folder.path()).unwrap_err().to_string().contains("no token"));
    }

    #[test]
    fn outside_of_a_cluster_the_error_says_so() {
        let error = in_cluster(|_| None, Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("KUBERNETES_SERVICE_HOST") && error.contains("--kubeconfig"), "{error}");
    }
}
