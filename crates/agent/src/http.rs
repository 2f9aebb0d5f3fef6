//! `/healthz`, `/readyz` and `/metrics`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::metrics::SharedHealth;

/// How long a client may take to ask.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long until a listening that failed is tried again: an address may come later.
const RETRY: Duration = Duration::from_secs(5);
/// Connections at once; more than any probe and scraper need.
const CONNECTIONS: usize = 32;

/// Serves for ever. What cannot be listened on is told, and never stops the agent: routes matter more.
pub(crate) async fn serve(listen: SocketAddr, health: SharedHealth) {
    let mut told = false;
    loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => accept(&listener, &health).await,
            Err(error) if !told => {
                tracing::warn!(%listen, %error, "cannot listen; health and metrics are tried again every 5 s");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn accept(listener: &TcpListener, health: &SharedHealth) {
    let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = std::sync::Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Out of descriptors, or an aborted connection: neither is for ever.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let health = SharedHealth::clone(health);
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &health);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // A client that hangs up is its own affair.
            let _ = connection.await;
            drop(slot);
        });
    }
}

fn answer(request: &Request<Incoming>, health: &SharedHealth) -> Response<Full<Bytes>> {
    let health = health.borrow();
    let told = |result: &Result<(), String>| match result {
        Ok(()) => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{reason}\n")),
    };
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => told(&health.alive()),
        (&Method::GET | &Method::HEAD, "/readyz") => told(health.ready()),
        (&Method::GET | &Method::HEAD, "/metrics") => {
            (StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", health.metrics())
        }
        (&Method::GET | &Method::HEAD, _) => {
            (StatusCode::NOT_FOUND, "text/plain", "there are /healthz, /readyz and /metrics\n".to_owned())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "use GET\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
