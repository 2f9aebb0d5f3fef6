//! Certificates and kubeconfigs, by openssl: a CA, and a certificate for each who speaks to the API server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Outcome, TierError};
use crate::lan::{CONTROL_PLANE, addresses};
use crate::process::run;

/// Port of the API server.
pub const API_PORT: u16 = 6443;

/// The folder that holds them.
#[derive(Clone, Debug)]
pub struct Pki {
    folder: PathBuf,
}

impl Pki {
    /// Makes the CA, the service accounts' key, and all but the nodes' certificates.
    pub fn create(folder: &Path) -> Outcome<Self> {
        let pki = Self { folder: folder.to_owned() };
        fs::create_dir_all(folder).map_err(TierError::io(format!("create {}", folder.display())))?;
        pki.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
            "-days",
            "30",
            "-subj",
            "/CN=kubernetes-ca",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        ])?;
        pki.openssl(&["genrsa", "-out", "sa.key", "2048"])?;
        pki.openssl(&["rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub"])?;
        let own = addresses(CONTROL_PLANE).map(|ip| format!("IP:{ip}")).join(",");
        pki.certificate(
            "apiserver",
            "/CN=kube-apiserver",
            &format!(
                "{own},IP:127.0.0.1,IP:10.96.0.1,IP:fd00:10:96::1,DNS:kubernetes.default.svc,DNS:localhost"
            ),
        )?;
        pki.certificate(
            "apiserver-kubelet-client",
            "/O=system:masters/CN=kube-apiserver-kubelet-client",
            "",
        )?;
        for (name, subject) in [
            ("admin", "/O=system:masters/CN=admin"),
            ("kube-controller-manager", "/CN=system:kube-controller-manager"),
            ("kube-scheduler", "/CN=system:kube-scheduler"),
            ("kube-proxy", "/CN=system:kube-proxy"),
        ] {
            pki.client(name, subject)?;
        }
        Ok(pki)
    }

    /// A kubelet's certificate and kubeconfig.
    pub fn node(&self, name: &str) -> Outcome {
        self.client(name, &format!("/O=system:nodes/CN=system:node:{name}"))
    }

    /// The certificate and kubeconfig of somebody who may do everything.
    pub fn administrator(&self, name: &str) -> Outcome {
        self.client(name, &format!("/O=system:masters/CN={name}"))
    }

    /// Where a file of theirs is: `ca.crt`, `NAME.crt`, `NAME.key`, `NAME.kubeconfig`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn client(&self, name: &str, subject: &str) -> Outcome {
        self.certificate(name, subject, "")?;
        let file = |suffix: &str| self.file(&format!("{name}.{suffix}")).display().to_string();
        // The control plane's IPv4 address.
        let server = format!("https://{}:{API_PORT}", addresses(CONTROL_PLANE)[0]);
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "tier",
            "clusters": [{"name": "tier", "cluster": {"server": server, "certificate-authority": self.file("ca.crt")}}],
            "users": [{"name": name, "user": {"client-certificate": file("crt"), "client-key": file("key")}}],
            "contexts": [{"name": "tier", "context": {"cluster": "tier", "user": name}}],
        });
        let path = self.file(&format!("{name}.kubeconfig"));
        fs::write(&path, kubeconfig.to_string()).map_err(TierError::io(format!("write {}", path.display())))
    }

    fn certificate(&self, name: &str, subject: &str, alternative_names: &str) -> Outcome {
        let (key, request, extensions, certificate) =
            (format!("{name}.key"), format!("{name}.csr"), format!("{name}.ext"), format!("{name}.crt"));
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &request,
            "-subj",
            subject,
        ])?;
        let mut text =
            "keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth,serverAuth\n".to_owned();
        if !alternative_names.is_empty() {
            text += &format!("subjectAltName={alternative_names}\n");
        }
        fs::write(self.file(&extensions), text).map_err(TierError::io("write a certificate's extensions"))?;
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "30",
            "-extfile",
            &extensions,
            "-out",
            &certificate,
        ])
    }

    fn openssl(&self, arguments: &[&str]) -> Outcome {
        run(Command::new("openssl").args(arguments).current_dir(&self.folder)).map(|_| ())
    }
}
