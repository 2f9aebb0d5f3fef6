//! Kubeconfigs: the ones that work, and each way in which users get them wrong, told with its remedy.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use agent::source::SourceAddress;
use agent::{Location, Options};
use support::api_server::{ApiServer, dual_object};
use support::tls_server::{self, Authority, Pair};
use support::{Node, routed, wait_until};

struct Cluster {
    node: Node,
    server: ApiServer,
    authority: Authority,
    tls: std::net::SocketAddr,
}

impl Cluster {
    fn new() -> Self {
        Self::with_certificate(|authority| authority.sign(&["127.0.0.1", "api.example"], false))
    }

    fn with_certificate(sign: impl FnOnce(&Authority) -> Pair) -> Self {
        let node = Node::new();
        let server = ApiServer::start();
        server.apply(dual_object(1));
        server.apply(dual_object(2));
        let authority = Authority::new("cluster");
        let tls = tls_server::start(server.address, &sign(&authority), Some(&authority));
        let cluster = Self { node, server, authority, tls };
        cluster.write("ca.crt", &cluster.authority.certificate);
        let client = cluster.authority.sign(&["node1"], false);
        cluster.write("client.crt", &client.certificate);
        cluster.write("client.key", &client.key);
        cluster
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.node.path(name), text).unwrap();
    }

    /// A kubeconfig as it should be, which `change` may spoil.
    fn options(&self, change: impl FnOnce(String) -> String) -> Options {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: main\n\
             contexts:\n- name: main\n  context: {{cluster: c, user: u}}\n\
             clusters:\n- name: c\n  cluster:\n    server: https://{}\n    certificate-authority: ca.crt\n\
             users:\n- name: u\n  user:\n    client-certificate: client.crt\n    client-key: client.key\n",
            self.tls
        );
        self.write("kubeconfig", &change(text));
        let location = Location::Kubeconfig { path: self.node.path("kubeconfig"), context: None };
        Options { source: SourceAddress::Kubernetes(location), ..self.node.options() }
    }

    fn error(&self, change: impl FnOnce(String) -> String) -> String {
        let error = agent::run_once(&self.options(change)).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        error.to_string()
    }
}

#[test]
fn files_beside_the_kubeconfig_data_within_it_and_tokens_work() {
    let cluster = Cluster::new();
    let works = |options: &Options| assert!(agent::run_once(options).unwrap().synced);
    works(&cluster.options(|text| text));
    let base64 = |text: &str| {
        use base64ct::Encoding;
        base64ct::Base64::encode_string(text.as_bytes())
    };
    works(&cluster.options(|text| {
        text.replace(
            "certificate-authority: ca.crt",
            &format!("certificate-authority-data: {}", base64(&cluster.authority.certificate)),
        )
    }));
    let plain = |user: &str| cluster.server.kubeconfig().replace("token: t", user);
    cluster.write("token", "secret\n");
    works(&cluster.options(|_| plain("tokenFile: token")));
    works(&cluster.options(|_| plain("token: secret")));
}

#[test]
fn a_certificate_that_was_renewed_is_used_without_a_restart() {
    let cluster = Cluster::new();
    let expired = cluster.authority.sign(&["node1"], true);
    let good = cluster.authority.sign(&["node1"], false);
    cluster.write("client.crt", &expired.certificate);
    cluster.write("client.key", &expired.key);
    let _agent = cluster.node.start_with(cluster.options(|text| text));
    let problem = || cluster.node.state().and_then(|state| state.source_problem).unwrap_or_default();
    wait_until("the expired certificate is told", || problem().contains("expired"));
    cluster.write("client.crt", &good.certificate);
    cluster.write("client.key", &good.key);
    wait_until("node2 is routed", || routed("10.244.2.0/24", "192.0.2.12"));
}

#[test]
fn a_token_that_was_rotated_is_used_without_a_restart_and_one_that_is_missing_is_told() {
    let cluster = Cluster::new();
    let with_token_file = cluster.server.kubeconfig().replace("token: t", "tokenFile: token");
    cluster.write("token", "first\n");
    cluster.server.require_token("first");
    let _agent = cluster.node.start_with(cluster.options(|_| with_token_file));
    cluster.node.wait_until_converged();
    let problem = || cluster.node.state().and_then(|state| state.source_problem).unwrap_or_default();
    // The server no longer takes it before the file is written anew, as it is where a token has run out.
    cluster.server.require_token("second");
    wait_until("the old token is told", || problem().contains("401") && problem().contains("give another"));
    std::fs::remove_file(cluster.node.path("token")).unwrap();
    wait_until("the missing file is told", || problem().contains("failed to read tokenFile"));
    assert!(routed("10.244.2.0/24", "192.0.2.12"));
    cluster.write("token", "second\n");
    cluster.server.apply(dual_object(3));
    wait_until("node3 is routed", || routed("10.244.3.0/24", "192.0.2.13"));
    wait_until("nothing is wrong", || problem().is_empty());
}

#[test]
fn each_wrong_kubeconfig_is_told_with_its_remedy() {
    let cluster = Cluster::new();
    let leaf = cluster.authority.sign(&["127.0.0.1"], false);
    let expired = cluster.authority.sign(&["node1"], true);
    let other = Authority::new("another");
    cluster.write("leaf.crt", &leaf.certificate);
    cluster.write("other-ca.crt", &other.certificate);
    cluster.write("other.key", &leaf.key);
    cluster.write("expired.crt", &expired.certificate);
    cluster.write("expired.key", &expired.key);
    cluster.write("empty", "");
    let authority = |file: &str| {
        let to = format!("certificate-authority: {file}");
        move |text: String| text.replace("certificate-authority: ca.crt", &to)
    };
    let user = |user: &str| {
        let to = user.to_owned();
        move |text: String| text.replace("client-certificate: client.crt\n    client-key: client.key", &to)
    };
    let server = |server: String| {
        let from = format!("https://{}", cluster.tls);
        move |text: String| text.replace(&from, &server)
    };
    let errors = [
        ("leaf.crt", cluster.error(authority("leaf.crt")), "no certificate authority's"),
        ("key as CA", cluster.error(authority("client.key")), "a private key and no certificate"),
        ("empty CA", cluster.error(authority("empty")), "no certificate in PEM"),
        (
            "another CA",
            cluster.error(authority("other-ca.crt")),
            "not signed by the certificate authority given",
        ),
        ("missing CA", cluster.error(authority("nowhere.crt")), "nowhere.crt"),
        (
            "no CA",
            cluster.error(|text| text.replace("certificate-authority: ca.crt", "x: y")),
            "certificate-authority is ``",
        ),
        (
            "bad base64",
            cluster.error(|text| {
                text.replace("certificate-authority: ca.crt", "certificate-authority-data: '%%'")
            }),
            "base64",
        ),
        (
            "expired",
            cluster.error(user("client-certificate: expired.crt\n    client-key: expired.key")),
            "expired at 2000",
        ),
        (
            "other key",
            cluster.error(user("client-certificate: client.crt\n    client-key: other.key")),
            "does not belong to",
        ),
        ("no key", cluster.error(user("client-certificate: client.crt")), "client-key"),
        ("no certificate", cluster.error(user("client-key: client.key")), "client-certificate"),
        ("nobody", cluster.error(user("x: y")), "refused our certificate"),
        (
            "exec",
            cluster.error(user("exec: {command: aws, args: [eks]}")),
            "exec is `(set)`: this is not supported",
        ),
        ("auth-provider", cluster.error(user("auth-provider: {name: gcp}")), "ServiceAccount's token"),
        ("password", cluster.error(user("username: admin\n    password: x")), "not supported"),
        ("missing token", cluster.error(user("tokenFile: nowhere")), "nowhere"),
        (
            "wrong context",
            cluster.error(|text| text.replace("current-context: main", "current-context: prod")),
            "there are: `main`",
        ),
        (
            "no context",
            cluster.error(|text| text.replace("current-context: main\n", "")),
            "name one of the contexts: `main`",
        ),
        (
            "no cluster",
            cluster.error(|text| text.replace("cluster: c,", "cluster: d,")),
            "add a cluster of this name",
        ),
        ("no user", cluster.error(|text| text.replace("user: u}", "user: v}")), "add a user of this name"),
        ("http", cluster.error(server(format!("http://{}", cluster.tls))), "GET /api/v1/nodes"),
        ("http elsewhere", cluster.error(server("http://192.0.2.1:6443".to_owned())), "use https"),
        (
            "https to http",
            cluster.error(server(format!("https://{}", cluster.server.address))),
            "check that this port speaks TLS",
        ),
        (
            "another name",
            cluster.error(server(format!("https://localhost:{}", cluster.tls.port()))),
            "another name",
        ),
        ("no scheme", cluster.error(server("10.0.0.1:6443".to_owned())), "https://HOST:PORT"),
        ("nobody there", cluster.error(server("https://127.0.0.1:1".to_owned())), "refused"),
        (
            "insecure",
            cluster.error(|text| {
                text.replace("certificate-authority: ca.crt", "insecure-skip-tls-verify: true")
            }),
            "pose as",
        ),
        (
            "proxy",
            cluster.error(|text| {
                text.replace("certificate-authority:", "proxy-url: http://p:1\n    certificate-authority:")
            }),
            "proxies",
        ),
        ("no kubeconfig", cluster.error(|_| "kind: Pod\n".to_owned()), "kind is `Pod`"),
        ("no YAML", cluster.error(|_| "{".to_owned()), "is this a kubeconfig?"),
    ];
    for (what, error, expected) in errors {
        assert!(error.contains(expected), "{what}: `{expected}` is not in: {error}");
    }
    std::fs::remove_file(cluster.node.path("kubeconfig")).unwrap();
    let location = Location::Kubeconfig { path: cluster.node.path("kubeconfig"), context: None };
    let options = Options { source: SourceAddress::Kubernetes(location), ..cluster.node.options() };
    let error = agent::run_once(&options).unwrap_err().to_string();
    assert!(error.contains("failed to read kubeconfig") && error.contains("give the path"), "{error}");
}

#[test]
fn a_server_certificate_that_has_expired_is_told_as_such() {
    let cluster = Cluster::with_certificate(|authority| authority.sign(&["127.0.0.1"], true));
    let error = cluster.error(|text| text);
    assert!(error.contains("API server's certificate has expired"), "{error}");
}
