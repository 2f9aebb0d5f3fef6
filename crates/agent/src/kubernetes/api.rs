//! Requests to the API server, and what its refusals mean.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::access::{Access, AccessError, Location, Server, bounded};
use super::connection::{Sender, cause, connect};

/// A request with a bounded answer takes no longer.
const DEADLINE: Duration = Duration::from_secs(60);
/// No answer that we ask for is longer: a page of nodes is a few megabytes.
const MAX_ANSWER: usize = 64 << 20;
/// One object of a watch; etcd takes 1.5 MB by default.
const MAX_LINE: usize = 16 << 20;

/// Why the API server could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Credentials or address are wrong before anything is sent.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// There is no connection.
    #[error("failed to {attempted} API server {server}: {source}; {remedy}")]
    Connect {
        /// What was attempted.
        attempted: String,
        /// Host and port.
        server: String,
        /// Why.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The connection broke, or nothing came in time.
    #[error("API server {server}: {attempted}: {source}")]
    Broken {
        /// The request.
        attempted: String,
        /// Host and port.
        server: String,
        /// Why.
        source: io::Error,
    },
    /// The API server refused.
    #[error("API server {server}: {attempted}: {code} {message}{}", remedy(*.code, .message))]
    Refused {
        /// The request.
        attempted: String,
        /// Host and port.
        server: String,
        /// HTTP status.
        code: u16,
        /// What it said, bounded.
        message: String,
    },
    /// The answer is no such object.
    #[error(
        "API server {server}: {attempted}: the answer cannot be read: {message}; is this a Kubernetes API server?"
    )]
    Answer {
        /// The request.
        attempted: String,
        /// Host and port.
        server: String,
        /// Where and why.
        message: String,
    },
}

fn remedy(code: u16, message: &str) -> &'static str {
    match code {
        400 if message.contains("HTTP request to an HTTPS server") => "; write https:// instead of http://",
        401 => "; the token or certificate is not (or no longer) valid in this cluster: give another",
        403 => "; grant it: apply the ClusterRole and its binding from deploy/hostgw.yaml",
        _ => "",
    }
}

impl ApiError {
    /// The status with which the server refused.
    pub(crate) const fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// A body that is sent, and its media type.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    pub(crate) media_type: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// Asks one API server, by one connection that is kept between requests.
#[derive(Debug)]
pub(crate) struct Api {
    location: Location,
    idle: Option<(Access, Sender)>,
}

impl Api {
    /// Nothing is read or connected before the first request.
    pub(crate) const fn new(location: Location) -> Self {
        Self { location, idle: None }
    }

    /// `GET`, and the object that answers.
    pub(crate) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ApiError> {
        self.request(Method::GET, path, None).await
    }

    /// Any request with an object for an answer.
    pub(crate) async fn request<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        payload: Option<Payload>,
    ) -> Result<T, ApiError> {
        let attempted = attempted(&method, path);
        let access = self.location.access()?;
        let server = access.server.clone();
        let broken =
            |source| ApiError::Broken { attempted: attempted.clone(), server: server.authority(), source };
        let exchange = async {
            let mut sender = self.sender(&access).await?;
            let request = build(&access, method, path, payload).map_err(io::Error::other).map_err(broken)?;
            let response = sender.send_request(request).await.map_err(|error| broken(cause(&error)))?;
            let (status, body) = (response.status(), collect(response, MAX_ANSWER).await.map_err(broken)?);
            // Kept only once the answer was read to its end.
            self.idle = Some((access, sender));
            Ok::<_, ApiError>((status, body))
        };
        let (status, body) =
            tokio::time::timeout(DEADLINE, exchange).await.map_err(|_| broken(too_late()))??;
        if !status.is_success() {
            return Err(refused(&server, &attempted, status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| ApiError::Answer {
            attempted,
            server: server.authority(),
            message: error.to_string(),
        })
    }

    /// `GET` of what has no end: a watch, by a connection of its own.
    pub(crate) async fn stream(&self, path: &str) -> Result<Lines, ApiError> {
        let attempted = attempted(&Method::GET, path);
        let access = self.location.access()?;
        let server = access.server.clone();
        let broken =
            |source| ApiError::Broken { attempted: attempted.clone(), server: server.authority(), source };
        let begin = async {
            let mut sender = connect(&access).await?;
            let request =
                build(&access, Method::GET, path, None).map_err(io::Error::other).map_err(broken)?;
            let response = sender.send_request(request).await.map_err(|error| broken(cause(&error)))?;
            if response.status() == StatusCode::OK {
                let lines = Lines {
                    body: response.into_body(),
                    _sender: sender,
                    buffer: Vec::new(),
                    line: 0,
                    searched: 0,
                };
                return Ok(Ok(lines));
            }
            let status = response.status();
            Ok::<_, ApiError>(Err((status, collect(response, MAX_ANSWER).await.map_err(broken)?)))
        };
        let begun = tokio::time::timeout(DEADLINE, begin).await.map_err(|_| broken(too_late()))??;
        begun.map_err(|(status, body)| refused(&server, &attempted, status, &body))
    }

    /// The kept connection, if it still is one to the same server by the same credentials; else another.
    async fn sender(&mut self, access: &Access) -> Result<Sender, ApiError> {
        if let Some((of, mut sender)) = self.idle.take()
            && of.server == access.server
            && of.tls == access.tls
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        connect(access).await
    }
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", DEADLINE.as_secs()))
}

fn attempted(method: &Method, path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    format!("{method} {}", bounded(path))
}

fn build(
    access: &Access,
    method: Method,
    path: &str,
    payload: Option<Payload>,
) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{}{path}", access.server.base_path))
        .header(HOST, access.server.authority())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("hostgw/", env!("CARGO_PKG_VERSION")));
    if let Some(token) = &access.token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    match payload {
        Some(Payload { media_type, bytes }) => {
            request.header(CONTENT_TYPE, media_type).body(Full::new(Bytes::from(bytes)))
        }
        None => request.body(Full::default()),
    }
}

async fn collect(response: Response<Incoming>, limit: usize) -> io::Result<Vec<u8>> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|error| cause(&error))?.into_data() {
            if bytes.len() + data.len() > limit {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("longer than {limit} bytes"),
                ));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

/// `Status` of the API, of which only this is read.
#[derive(Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    message: String,
}

fn refused(server: &Server, attempted: &str, status: StatusCode, body: &[u8]) -> ApiError {
    let message = match serde_json::from_slice::<Status>(body) {
        Ok(status) if !status.message.is_empty() => status.message,
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    ApiError::Refused {
        attempted: attempted.to_owned(),
        server: server.authority(),
        code: status.as_u16(),
        message: message.trim().chars().take(400).filter(|c| !c.is_control()).collect(),
    }
}

/// The lines of an endless answer.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    /// Dropped with the body: the connection ends with it.
    _sender: Sender,
    buffer: Vec<u8>,
    /// The buffer's first so many bytes are the line that was given last.
    line: usize,
    /// So many bytes behind that hold no end of a line.
    searched: usize,
}

impl Lines {
    /// The next line without its end; `None` at the end of the answer, also where it ends within a line.
    pub(crate) async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.buffer.drain(..self.line);
        self.line = 0;
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let end = self.searched + at;
                self.line = end + 1;
                self.searched = 0;
                return Ok(Some(&self.buffer[..end]));
            }
            self.searched = self.buffer.len();
            if self.buffer.is_empty() {
                // A first list may have made it large.
                self.buffer.shrink_to(64 << 10);
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Ok(data) = frame.map_err(|error| cause(&error))?.into_data() {
                if self.buffer.len() + data.len() > MAX_LINE {
                    return Err(io::Error::new(
                        io::ErrorKind::FileTooLarge,
                        format!("an event is longer than {MAX_LINE} bytes"),
                    ));
                }
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}
