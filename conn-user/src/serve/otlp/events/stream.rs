//! The daemon's stream of events, opened again each time it ends.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::serve::answers;
use crate::serve::otlp::delivery::jittered;

/// How long the stream is away at least; twice as long after each failure.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest such wait. A stream that lasted for so long begins with the shortest.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// What becomes of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// It cannot be opened.
    Lacking,
    /// What happens from now on is in it.
    Opened,
    /// Whole lines.
    Lines(Bytes),
    /// It has ended. A line that was cut is left out.
    Ended(String),
}

/// Reads the stream for ever. `query`: the parameters that choose events.
pub(crate) async fn run(socket: &Path, query: &str, pieces: mpsc::Sender<Piece>) {
    let target = format!("/v1/events?output=json-otel&{query}");
    let (mut pause, mut complaint) = (PAUSE, None);
    loop {
        match answers::begin(socket, &target).await {
            Ok(body) => {
                let begun = Instant::now();
                complaint = None;
                let Some(why) = read(body, &pieces).await else { return };
                if pieces.send(Piece::Ended(why)).await.is_err() {
                    return;
                }
                if begun.elapsed() > MAX_PAUSE {
                    pause = PAUSE;
                }
            }
            Err(error) => {
                let text = error.to_string();
                if complaint.as_ref() != Some(&text) {
                    log::warn!("no stream of events to export: {text}");
                }
                complaint = Some(text);
                if pieces.send(Piece::Lacking).await.is_err() {
                    return;
                }
            }
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Passes one stream on. Returns why it has ended; none if nobody takes its lines.
async fn read(mut body: Incoming, pieces: &mpsc::Sender<Piece>) -> Option<String> {
    pieces.send(Piece::Opened).await.ok()?;
    let mut rest = BytesMut::new();
    loop {
        let frame = match body.frame().await {
            None => return Some("the daemon ended it".into()),
            Some(Err(error)) => return Some(io::Error::other(error).to_string()),
            Some(Ok(frame)) => frame,
        };
        let Some(bytes) = frame.data_ref() else { continue };
        rest.extend_from_slice(bytes);
        let whole = rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        if whole > 0 {
            pieces.send(Piece::Lines(rest.split_to(whole).freeze())).await.ok()?;
        }
    }
}
