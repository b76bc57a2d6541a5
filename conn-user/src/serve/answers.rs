//! Answers of the daemon, as a program of this crate reads them that is a client like any other.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::serve::problem::Problem;

/// How long the daemon may take to begin an answer, and between two parts of one that ends.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks the daemon, and reads the answer, which is one JSON value.
///
/// # Errors
/// The daemon does not answer, or refuses.
pub(crate) async fn json<T: DeserializeOwned>(socket: &Path, target: &str) -> io::Result<T> {
    let body = whole(begin(socket, target).await?).await?;
    serde_json::from_slice(&body).map_err(io::Error::other)
}

/// Sends a request, and waits for the head of the answer.
///
/// # Errors
/// The daemon does not answer, or refuses.
pub(crate) async fn begin(socket: &Path, target: &str) -> io::Result<Incoming> {
    let asked = async {
        let stream = UnixStream::connect(socket).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        let request = Request::get(target)
            .header(HOST, "conntrace")
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(response.into_body());
        }
        let body = whole(response.into_body()).await?;
        let problem = Problem::read(status, &body).map_or_else(|| format!("status {status}"), |it| it.text());
        Err(io::Error::other(problem))
    };
    timeout(PATIENCE, asked).await.map_err(|_| silent())?
}

/// The rest of an answer.
///
/// # Errors
/// It is cut, or does not go on.
pub(crate) async fn whole(body: Incoming) -> io::Result<Bytes> {
    let collected = timeout(PATIENCE, body.collect()).await.map_err(|_| silent())?;
    Ok(collected.map_err(io::Error::other)?.to_bytes())
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the daemon does not answer")
}
