//! Kubeconfig files, of which only what an agent can use is used, and the rest refused by name.

use std::path::Path;

use base64ct::{Base64, Encoding};
use hyper::Uri;
use serde::Deserialize;

use super::access::{Access, AccessError, Material, Server, Tls, bounded, read, token};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    current_context: Option<String>,
    #[serde(default)]
    contexts: Option<Vec<NamedContext>>,
    #[serde(default)]
    clusters: Option<Vec<NamedCluster>>,
    #[serde(default)]
    users: Option<Vec<NamedUser>>,
}

#[derive(Debug, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Deserialize)]
struct Context {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Debug, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    #[serde(default)]
    server: String,
    #[serde(default)]
    certificate_authority: Option<String>,
    #[serde(default)]
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: Option<bool>,
    #[serde(default)]
    tls_server_name: Option<String>,
    #[serde(default)]
    proxy_url: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: Option<User>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    #[serde(default)]
    token: Option<String>,
    #[serde(default, alias = "tokenFile")]
    token_file: Option<String>,
    #[serde(default)]
    client_certificate: Option<String>,
    #[serde(default)]
    client_certificate_data: Option<String>,
    #[serde(default)]
    client_key: Option<String>,
    #[serde(default)]
    client_key_data: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    exec: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    auth_provider: Option<serde::de::IgnoredAny>,
    #[serde(default, rename = "as")]
    impersonate: Option<String>,
}

/// What the file at `path` says of the context, or of its current one. Relative paths in it are relative to its folder.
pub(super) fn parse(path: &Path, bytes: &[u8], context: Option<&str>) -> Result<Access, AccessError> {
    let syntax = |message: String| AccessError::Syntax { path: path.to_owned(), message };
    let text =
        std::str::from_utf8(bytes).map_err(|_| syntax("not UTF-8: is this a kubeconfig?".to_owned()))?;
    let file: File =
        serde_saphyr::from_str(text).map_err(|error| syntax(format!("{error}; is this a kubeconfig?")))?;
    let reader = Reader { path };
    if let Some(kind) = file.kind.as_deref().filter(|kind| *kind != "Config") {
        return Err(reader.field("kind", kind, "give a kubeconfig, whose kind is Config"));
    }
    let contexts = file.contexts.unwrap_or_default();
    let names = || listed(contexts.iter().map(|context| context.name.as_str()));
    let wanted = context.or(file.current_context.as_deref()).filter(|name| !name.is_empty());
    let Some(wanted) = wanted else {
        return Err(reader.field("current-context", "", &format!("name one of the contexts: {}", names())));
    };
    let Some(context) = contexts.iter().find(|context| context.name == wanted) else {
        let remedy = format!("there is no such context; there are: {}", names());
        return Err(reader.field("current-context", wanted, &remedy));
    };
    let clusters = file.clusters.unwrap_or_default();
    let Some(cluster) = clusters.into_iter().find(|cluster| cluster.name == context.context.cluster) else {
        let field = format!("contexts[{wanted}].context.cluster");
        return Err(reader.field(
            &field,
            &context.context.cluster,
            "add a cluster of this name to `clusters`",
        ));
    };
    let users = file.users.unwrap_or_default();
    let Some(user) = users.into_iter().find(|user| user.name == context.context.user) else {
        let field = format!("contexts[{wanted}].context.user");
        return Err(reader.field(&field, &context.context.user, "add a user of this name to `users`"));
    };
    let credentials = reader.credentials(&user.name, user.user.unwrap_or_default())?;
    reader.access(&cluster.name, cluster.cluster, credentials)
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.take(10).map(|name| format!("`{}`", bounded(name))).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[derive(Debug, Default)]
struct Credentials {
    token: Option<String>,
    client: Option<(Material, Material)>,
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    path: &'a Path,
}

impl Reader<'_> {
    fn field(self, field: &str, value: &str, remedy: &str) -> AccessError {
        AccessError::Field {
            place: format!("kubeconfig {}", self.path.display()),
            field: field.to_owned(),
            value: bounded(value),
            remedy: remedy.to_owned(),
        }
    }

    fn access(self, name: &str, cluster: Cluster, credentials: Credentials) -> Result<Access, AccessError> {
        let key = |key: &str| format!("clusters[{name}].cluster.{key}");
        if let Some(proxy) = cluster.proxy_url.filter(|proxy| !proxy.is_empty()) {
            return Err(self.field(
                &key("proxy-url"),
                &proxy,
                "proxies are not supported: name the API server itself",
            ));
        }
        let (scheme, server) = self.server(&key("server"), &cluster.server)?;
        let Credentials { token, client } = credentials;
        if scheme == "http" {
            if !server.is_loopback() {
                let remedy = "use https: plain HTTP is spoken only to this node itself (127.0.0.1), or anybody on the way \
                    could act as this node";
                return Err(self.field(&key("server"), &cluster.server, remedy));
            }
            return Ok(Access { server, tls: None, token });
        }
        if cluster.insecure_skip_tls_verify == Some(true) {
            let remedy = "this is not supported, because anybody could pose as the API server and move every route: give \
                certificate-authority";
            return Err(self.field(&key("insecure-skip-tls-verify"), "true", remedy));
        }
        let authority = (cluster.certificate_authority, cluster.certificate_authority_data);
        let authorities = self.material(&key("certificate-authority"), authority)?.ok_or_else(|| {
            let remedy =
                "name the file of the cluster's certificate authority (kubeadm: /etc/kubernetes/pki/ca.crt)";
            self.field(&key("certificate-authority"), "", remedy)
        })?;
        let server_name = cluster.tls_server_name.unwrap_or_else(|| server.host.clone());
        Ok(Access { server, tls: Some(Tls { authorities, client, server_name }), token })
    }

    fn server(self, key: &str, text: &str) -> Result<(String, Server), AccessError> {
        let wrong = |remedy: &str| self.field(key, text, remedy);
        const SHAPE: &str = "write the API server as https://HOST:PORT";
        let uri: Uri = text.parse().map_err(|_| wrong(SHAPE))?;
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(wrong(SHAPE)) };
        let default_port = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return Err(wrong(SHAPE)),
        };
        if uri.query().is_some() || host.is_empty() || text.contains('@') {
            return Err(wrong(SHAPE));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let base_path = uri.path().trim_end_matches('/').to_owned();
        let port = uri.port_u16().unwrap_or(default_port);
        Ok((scheme.to_owned(), Server { host, port, base_path }))
    }

    fn credentials(self, name: &str, user: User) -> Result<Credentials, AccessError> {
        let key = |key: &str| format!("users[{name}].user.{key}");
        let unsupported = [
            ("exec", user.exec.is_some()),
            ("auth-provider", user.auth_provider.is_some()),
            ("username", user.username.as_ref().is_some_and(|name| !name.is_empty())),
            ("as", user.impersonate.as_ref().is_some_and(|name| !name.is_empty())),
        ];
        if let Some((field, _)) = unsupported.iter().find(|(_, present)| *present) {
            let remedy = "this is not supported, for the agent runs no other program and is nobody but itself: use a token, \
                a tokenFile, or client-certificate and client-key (a ServiceAccount's token is the least)";
            return Err(self.field(&key(field), "(set)", remedy));
        }
        let certificate = (user.client_certificate, user.client_certificate_data);
        let certificate = self.material(&key("client-certificate"), certificate)?;
        let private_key = self.material(&key("client-key"), (user.client_key, user.client_key_data))?;
        let client = match (certificate, private_key) {
            (Some(certificate), Some(private_key)) => Some((certificate, private_key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(self.field(&key("client-key"), "", "give the certificate's private key"));
            }
            (None, Some(_)) => {
                return Err(self.field(&key("client-certificate"), "", "give the key's certificate"));
            }
        };
        // As kubectl does: the file wins.
        let token = match (user.token_file.filter(|path| !path.is_empty()), user.token) {
            (Some(path), _) => {
                let path = self.beside(&path);
                let bytes = read("tokenFile", &path, "write the token there, or give another user")?;
                Some(token(&path.display().to_string(), &bytes)?)
            }
            (None, Some(text)) if !text.is_empty() => Some(token(&key("token"), text.as_bytes())?),
            (None, _) => None,
        };
        Ok(Credentials { token, client })
    }

    /// A file or its base64; the latter wins, as with kubectl.
    fn material(
        self,
        key: &str,
        (file, data): (Option<String>, Option<String>),
    ) -> Result<Option<Material>, AccessError> {
        if let Some(data) = data.filter(|data| !data.is_empty()) {
            let compact: String = data.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let pem = Base64::decode_vec(&compact).map_err(|_| {
                self.field(&format!("{key}-data"), "(set)", "give PEM encoded in base64 (`base64 -w0 FILE`)")
            })?;
            return Ok(Some(Material {
                what: format!("{key}-data of kubeconfig {}", self.path.display()),
                pem,
            }));
        }
        let Some(file) = file.filter(|file| !file.is_empty()) else { return Ok(None) };
        let path = self.beside(&file);
        let pem = read(key, &path, "correct the path; a relative one begins at the kubeconfig's folder")?;
        Ok(Some(Material { what: format!("{key} {}", path.display()), pem }))
    }

    fn beside(self, file: &str) -> std::path::PathBuf {
        self.path.parent().unwrap_or(Path::new("/")).join(file)
    }
}
