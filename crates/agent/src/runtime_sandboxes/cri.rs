//! One call of the Container Runtime Interface: `runtime.v1.RuntimeService/ListPodSandbox`
//! (k8s.io/cri-api/pkg/apis/runtime/v1), by gRPC (HTTP/2) over a Unix socket.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::protobuf::{Fields, ProtobufError, Value};

const METHOD: &str = "http://localhost/runtime.v1.RuntimeService/ListPodSandbox";
/// The runtime is on this machine, and has the list in memory.
const PATIENCE: Duration = Duration::from_secs(10);
/// A sandbox takes a few kilobytes, with all its labels and annotations.
const ANSWER_MAX: usize = 32 << 20;
/// Flag and length of a gRPC message.
const PREFIX: usize = 5;

/// Why the runtime's sandboxes are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CriError {
    /// Nobody answers there.
    #[error("failed to connect: {0}; check runtime.socket, and that the runtime runs")]
    Connect(io::Error),
    /// The exchange broke off.
    #[error("failed to ask for its sandboxes: {0}")]
    Exchange(Box<dyn std::error::Error + Send + Sync>),
    /// The runtime refused.
    #[error("it answered gRPC status {status}: {message}{}", if status == "12" { "; it takes a runtime with CRI v1, such as containerd 1.6 or CRI-O 1.23" } else { "" })]
    Refused {
        /// The number of the status; 0 is success, 12 is unimplemented.
        status: String,
        /// What it says.
        message: String,
    },
    /// The answer is no `ListPodSandboxResponse`.
    #[error("its answer cannot be read: {0}")]
    Answer(#[from] ProtobufError),
    /// The answer is no message of gRPC.
    #[error("its answer is no whole message of gRPC: is runtime.socket that of the runtime?")]
    Framing,
    /// Nothing came.
    #[error("it did not answer within {} s", PATIENCE.as_secs())]
    Silent,
}

/// The ids of all pod sandboxes, whatever their state.
pub(super) async fn list_pod_sandboxes(socket: &Path) -> Result<BTreeSet<String>, CriError> {
    match tokio::time::timeout(PATIENCE, exchange(socket)).await {
        Ok(message) => sandbox_ids(&message?),
        Err(_) => Err(CriError::Silent),
    }
}

/// A task of the thread's own: an answer is not worth a thread.
#[derive(Clone, Copy, Debug)]
struct OnThisThread;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// The bytes of the answering message.
async fn exchange(socket: &Path) -> Result<Bytes, CriError> {
    let broken = |error: hyper::Error| CriError::Exchange(error.into());
    let stream = UnixStream::connect(socket).await.map_err(CriError::Connect)?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(OnThisThread, TokioIo::new(stream)).await.map_err(broken)?;
    // It ends with the sender and the last body; its error is the request's or the body's too.
    let connection = tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    // Without a filter the message has no fields.
    let request = Request::builder()
        .method(Method::POST)
        .uri(METHOD)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::new(Bytes::from_static(&[0; PREFIX])))
        .map_err(|error| CriError::Exchange(error.into()))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    // A refusal may come without a body.
    refusal(response.headers())?;
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(CriError::Exchange)?;
    match body.trailers() {
        Some(trailers) => refusal(trailers)?,
        // Without them nobody knows whether that was all.
        None => return Err(CriError::Framing),
    }
    drop(sender);
    connection.abort();
    message(&body.to_bytes())
}

fn refusal(headers: &HeaderMap) -> Result<(), CriError> {
    let text = |name: &str| {
        let value = headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).chars().take(200).collect::<String>())
    };
    match text("grpc-status") {
        Some(status) if status != "0" => {
            Err(CriError::Refused { status, message: text("grpc-message").unwrap_or_default() })
        }
        _ => Ok(()),
    }
}

/// The one message of an answer: a flag (compressed, which was not asked for), its length, and it.
fn message(body: &Bytes) -> Result<Bytes, CriError> {
    let prefix: &[u8; PREFIX] = body.first_chunk().ok_or(CriError::Framing)?;
    let [flag, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if flag != 0 || body.len() - PREFIX != length {
        return Err(CriError::Framing);
    }
    Ok(body.slice(PREFIX..))
}

/// `ListPodSandboxResponse.items` (1), of each `PodSandbox.id` (1).
fn sandbox_ids(message: &[u8]) -> Result<BTreeSet<String>, CriError> {
    let mut ids = BTreeSet::new();
    for field in Fields::of(message) {
        let (1, Value::Bytes(sandbox)) = field? else { continue };
        for field in Fields::of(sandbox) {
            if let (1, Value::Bytes(id)) = field? {
                ids.insert(String::from_utf8_lossy(id).into_owned());
            }
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_read_among_fields_that_are_none_of_ours() {
        // items { id: "a1", metadata { name: "p" }, state: 1, created_at: 300, labels {} } items { id: "b2" }
        let message = b"\x0a\x0e\x0a\x02a1\x12\x03\x0a\x01p\x18\x01\x20\xac\x02\x0a\x04\x0a\x02b2";
        assert_eq!(sandbox_ids(message).unwrap(), ["a1", "b2"].map(str::to_owned).into());
        assert!(sandbox_ids(b"").unwrap().is_empty());
        assert!(sandbox_ids(&message[..message.len() - 1]).is_err(), "cut short");
    }

    #[test]
    fn only_one_whole_plain_message_is_taken() {
        assert_eq!(message(&Bytes::from_static(b"\0\0\0\0\x01x")).unwrap(), "x");
        for bad in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x02x", b"\0\0\0\0\x01xy", b"\x01\0\0\0\x01x"] {
            assert!(message(&Bytes::from_static(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_it_takes() {
        let headers = |status: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", status.parse().unwrap());
            headers.insert("grpc-message", "unknown service".parse().unwrap());
            headers
        };
        assert!(refusal(&headers("0")).is_ok() && refusal(&HeaderMap::new()).is_ok());
        let error = refusal(&headers("12")).unwrap_err().to_string();
        assert!(error.contains("unknown service") && error.contains("containerd 1.6"), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = sandbox_ids(&bytes);
            let _ = message(&Bytes::from(bytes));
        }
    }
}
