//! A stand-in for a container runtime: answers CRI's `ListPodSandbox` on a Unix socket with the sandboxes that a test
//! gives it.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;
use tokio::sync::oneshot;

/// How it answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Sandboxes by id.
    Sandboxes(Vec<String>),
    /// A status of gRPC that is not success.
    Status(u8),
    /// Half an answer.
    CutShort,
}

impl Answer {
    pub(crate) fn sandboxes(ids: &[&str]) -> Self {
        Self::Sandboxes(ids.iter().map(|&id| id.to_owned()).collect())
    }
}

#[derive(Debug)]
struct Shared {
    answer: Mutex<Answer>,
    asked: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) socket: PathBuf,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    pub(crate) fn start(socket: &Path, answer: Answer) -> Self {
        let shared = Arc::new(Shared { answer: Mutex::new(answer), asked: AtomicUsize::new(0) });
        let (stop, stopped) = oneshot::channel::<()>();
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async {
                tokio::select! {
                    _ = stopped => {}
                    () = serve(listener, serving) => {}
                }
            });
        });
        Self { socket: socket.to_owned(), shared, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn answers(&self, answer: Answer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()).ok());
        self.thread.take().map(JoinHandle::join);
        std::fs::remove_file(&self.socket).ok();
    }
}

#[derive(Clone, Copy, Debug)]
struct OnThisThread;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

async fn serve(listener: std::os::unix::net::UnixListener, shared: Arc<Shared>) {
    let listener = UnixListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
            let connection = hyper::server::conn::http2::Builder::new(OnThisThread);
            connection.serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, Infallible> {
    assert_eq!(request.uri().path(), "/runtime.v1.RuntimeService/ListPodSandbox");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let asked = request.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(asked, Bytes::from_static(&[0; 5]), "no filter");
    let answer = shared.answer.lock().unwrap().clone();
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let (mut message, status) = match &answer {
        Answer::Sandboxes(ids) => (framed(ids), 0),
        Answer::Status(status) => (Vec::new(), *status),
        Answer::CutShort => (framed(&["half".to_owned()]), 0),
    };
    if matches!(answer, Answer::CutShort) {
        message.pop();
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.to_string().parse().unwrap());
    let body = Full::new(Bytes::from(message)).with_trailers(async move { Some(Ok(trailers)) });
    Ok(Response::builder().header("content-type", "application/grpc").body(body.boxed_unsync()).unwrap())
}

/// `ListPodSandboxResponse { items: [PodSandbox { id, state: 1 }] }` as a message of gRPC.
fn framed(ids: &[String]) -> Vec<u8> {
    let mut items = Vec::new();
    for id in ids {
        let mut sandbox = vec![0x0a, u8::try_from(id.len()).unwrap()];
        sandbox.extend(id.as_bytes());
        sandbox.extend([0x18, 1]);
        items.extend([0x0a, u8::try_from(sandbox.len()).unwrap()]);
        items.extend(sandbox);
    }
    let mut message = vec![0];
    message.extend(u32::try_from(items.len()).unwrap().to_be_bytes());
    message.extend(items);
    message
}
