//! One connection to the API server: resolved, encrypted, and given up on when the other side has gone silent.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::access::{Access, AccessError, Server, Tls};
use super::api::ApiError;
use super::{resolver, tls};

/// For TCP and TLS each, and each address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server whose machine is gone is noticed within this, also while we only listen.
const SILENCE: Duration = Duration::from_secs(30);

/// What a request is sent by.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Connects as `access` says.
pub(super) async fn connect(access: &Access) -> Result<Sender, ApiError> {
    let server = &access.server;
    let failed = |attempted: &str, source: io::Error| connect_error(server, attempted, source);
    let addresses = resolver::resolve(&server.host, server.port)
        .await
        .map_err(|error| failed("resolve the name of", error))?;
    let stream = connect_any(&addresses).await.map_err(|error| failed("connect to", error))?;
    keep_alive(&stream).map_err(|error| failed("watch the connection to", error))?;
    match &access.tls {
        None => handshake(TokioIo::new(stream)).await,
        Some(tls) => {
            let stream = encrypt(server, tls, stream).await?;
            handshake(TokioIo::new(stream)).await
        }
    }
    .map_err(|error| failed("speak HTTP with", io::Error::other(error)))
}

async fn encrypt(
    server: &Server,
    tls: &Tls,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ApiError> {
    let config = tls::client_config(tls)?;
    let name = ServerName::try_from(tls.server_name.clone()).map_err(|error| AccessError::Certificate {
        what: format!("server name `{}`", super::access::bounded(&tls.server_name)),
        reason: error.to_string(),
        remedy: "give a host name or an address in `server` or `tls-server-name`",
    })?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    match tokio::time::timeout(CONNECT_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(connect_error(server, "agree on encryption with", error)),
        Err(_) => Err(connect_error(server, "agree on encryption with", io::ErrorKind::TimedOut.into())),
    }
}

async fn handshake<T>(io: TokioIo<T>) -> Result<Sender, hyper::Error>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(io).await?;
    // It ends with the sender and the last body; its error is the request's or the body's too.
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

async fn connect_any(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// A watch may be silent for long: only the kernel's own probes tell that from a server that is gone.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENCE / 2)?;
    sockopt::set_tcp_keepintvl(stream, SILENCE / 6)?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    sockopt::set_tcp_user_timeout(stream, u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

/// What broke an exchange, down to its first cause, with the remedy where it is ours.
pub(super) fn cause(error: &hyper::Error) -> io::Error {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(inner) = next {
        text = format!("{text}: {inner}");
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            if tls_error(io).is_some() {
                text = format!("{text}; {}", remedy(io));
            }
            return io::Error::new(io.kind(), text);
        }
        next = inner.source();
    }
    io::Error::other(text)
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn connect_error(server: &Server, attempted: &str, source: io::Error) -> ApiError {
    let remedy = remedy(&source);
    ApiError::Connect { attempted: attempted.to_owned(), server: server.authority(), source, remedy }
}

/// What users got wrong when it ends so.
fn remedy(error: &io::Error) -> &'static str {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error as TlsError};
    match (tls_error(error), error.kind()) {
        (Some(TlsError::InvalidCertificate(bad)), _) => match bad {
            Bad::UnknownIssuer | Bad::BadSignature => {
                "the server's certificate is not signed by the certificate authority given: give the cluster's own"
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                "the server's certificate is for another name: use a name or address that it lists, or set tls-server-name"
            }
            Bad::Expired | Bad::ExpiredContext { .. } => {
                "the API server's certificate has expired: renew it (kubeadm: `kubeadm certs renew all`), or set this \
                 node's clock"
            }
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => "check this node's clock",
            _ => "give the cluster's own certificate authority",
        },
        (Some(TlsError::InvalidMessage(_)), _) => {
            "this port does not speak TLS: correct the port, or write http:// where it is one of this node's own"
        }
        (Some(TlsError::AlertReceived(Alert::CertificateExpired)), _) => {
            "our client certificate has expired: renew it"
        }
        (Some(TlsError::AlertReceived(_)), _) => {
            "the server refused our certificate: give one of this cluster"
        }
        (_, io::ErrorKind::ConnectionRefused) => "check the address and port, and that the API server runs",
        (_, io::ErrorKind::UnexpectedEof) => "the server hung up: check that this port speaks TLS",
        _ => "check the network towards it",
    }
}
