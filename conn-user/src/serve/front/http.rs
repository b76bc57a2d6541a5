//! From a request of HTTP to its answer.

use std::rc::Rc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot};

use crate::serve::endpoint::Endpoint;
use crate::serve::frame::{BODY_END, FRAMES, KEPT, Piece, STREAM_HEADER, UNTIL};
use crate::serve::front::answer::{Pieces, Whole};
use crate::serve::front::body::Answer;
use crate::serve::front::fanout;
use crate::serve::front::shared::{Client, Same, Shared};
use crate::serve::media::{self, OLDER_METRICS, OPEN_METRICS, PROTOBUF_METRICS};
use crate::serve::peer::Rights;
use crate::serve::problem::Problem;
use crate::serve::query::Query;

/// The header with the epoch.
const EPOCH: &str = "conntrace-epoch";

/// Answers a request.
pub(super) async fn answer(
    shared: &Rc<Shared>,
    client: &Rc<Client>,
    request: Request<Incoming>,
) -> Response<Answer> {
    let is_framed = request.headers().get(ACCEPT).is_some_and(|accept| accept == FRAMES);
    let done = match query(client, &request) {
        Ok((rights, query)) if query.is_shared() => {
            together(shared, client, (query, rights), is_framed).await
        }
        Ok((rights, query)) if query.is_shareable() && !is_framed => {
            let parts = fanout::join(shared, client, (query.clone(), rights)).await;
            parts.map(|parts| success(&query, false, Answer::Parts(parts)))
        }
        Ok((_, query)) => alone(shared, client, query, is_framed, request).await,
        Err(problem) => Err(problem),
    };
    let mut response = done.unwrap_or_else(|problem| refusal(&problem));
    if let Ok(epoch) = HeaderValue::from_str(&shared.setup.borrow().epoch) {
        response.headers_mut().insert(EPOCH, epoch);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Reads a request.
fn query(client: &Client, request: &Request<Incoming>) -> Result<(Rights, Query), Problem> {
    if request.method() != Method::GET {
        return Err(Problem::new(405, "the interface is read-only", "use GET"));
    }
    let found = Endpoint::of(request.uri().path()).filter(|found| client.may_ask(*found));
    let Some(endpoint) = found else { return Err(client.no_such_path()) };
    let rights = client.rights.ok_or_else(Problem::may_not_ask)?;
    let mut query = Query::read(endpoint, request.uri().query().unwrap_or_default())?;
    if endpoint == Endpoint::Metrics {
        let accept = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        query.choose_metrics(media::chosen(&accept.collect::<Vec<_>>().join(",")));
    }
    Ok((rights, query))
}

/// A refusal.
fn refusal(problem: &Problem) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(problem.body().into()));
    *response.status_mut() =
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if problem.status == 405 {
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
    }
    if problem.status == 503 {
        headers.insert(hyper::header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// A refusal without the request, as text.
pub(super) fn text_of(problem: &Problem) -> String {
    let (body, status) = (problem.body(), StatusCode::from_u16(problem.status));
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: \
         close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn success(query: &Query, is_framed: bool, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    let format = query.args.iter().rev().find_map(|arg| arg.strip_prefix("--output="));
    let content = match (is_framed, format) {
        (true, _) => FRAMES,
        (false, Some("json")) if query.is_shared() => "application/json",
        (false, Some("json" | "json-otel" | "json-ecs")) => "application/x-ndjson",
        (false, Some("xml")) => "application/xml",
        (false, Some("prometheus")) => OLDER_METRICS,
        (false, Some("openmetrics")) => OPEN_METRICS,
        (false, Some("protobuf")) => PROTOBUF_METRICS,
        (false, Some("csv")) => "text/csv; charset=utf-8",
        (false, None) if query.endpoint == Endpoint::Health => "application/json",
        _ => "text/plain; charset=utf-8",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content));
    response
}

/// The answer of an endpoint whose equal requests have one. What has begun before a request came is no answer to it, so a
/// request joins those that wait for the next one.
async fn together(
    shared: &Rc<Shared>,
    client: &Rc<Client>,
    same: Same,
    is_framed: bool,
) -> Result<Response<Answer>, Problem> {
    let (sender, receiver) = oneshot::channel();
    let is_first = {
        let mut under_way = shared.under_way.borrow_mut();
        let is_first = !under_way.contains_key(&same);
        under_way.entry(same.clone()).or_default().push((Rc::clone(client), sender));
        is_first
    };
    let query = same.0.clone();
    if is_first {
        tokio::task::spawn_local(rounds(Rc::clone(shared), same));
    }
    let gone = || Problem::new(500, "the daemon ends", "ask again");
    let answer = receiver.await.map_err(|_| gone())?;
    let whole = answer.as_ref().as_ref().map_err(Clone::clone)?;
    if is_framed {
        return Ok(success(&query, true, Answer::Whole(frames(whole))));
    }
    match whole.failure() {
        Some(problem) => Err(problem),
        None => Ok(success(&query, false, Answer::Whole(whole.out.clone()))),
    }
}

/// Asks the back for those that wait, as long as some do.
async fn rounds(shared: Rc<Shared>, same: Same) {
    loop {
        let is_of_address = shared
            .under_way
            .borrow()
            .get(&same)
            .is_some_and(|waiting| waiting.iter().any(|(client, _)| client.socket.is_tcp()));
        if is_of_address {
            shared.pace().await;
        }
        let waiting = match shared.under_way.borrow_mut().get_mut(&same) {
            Some(waiting) => std::mem::take(waiting),
            None => return,
        };
        let Some((client, _)) = waiting.iter().find(|(_, one)| !one.is_closed()) else {
            shared.under_way.borrow_mut().remove(&same);
            return;
        };
        let asked = shared.ask(same.0.clone(), client);
        let answer = match Pieces::begin(asked).await {
            Ok(pieces) => pieces.whole().await,
            Err(problem) => Err(problem),
        };
        let answer = Rc::new(answer);
        for (_, one) in waiting {
            // A client may have left.
            let _ = one.send(Rc::clone(&answer));
        }
    }
}

/// A whole answer as frames.
fn frames(whole: &Whole) -> Bytes {
    let text = |text: &[u8], piece: fn(Bytes) -> Piece| {
        let parts = text.chunks(1 << 16).map(Bytes::copy_from_slice);
        parts.map(move |part| piece(part).frame()).collect::<Vec<_>>()
    };
    let mut all = vec![Piece::Ready.frame()];
    all.extend(text(&whole.out, Piece::Out));
    all.extend(text(&whole.err, Piece::Err));
    all.push(Piece::Exit(whole.code).frame());
    all.concat().into()
}

/// The answer of a command that belongs to this request.
async fn alone(
    shared: &Rc<Shared>,
    client: &Rc<Client>,
    query: Query,
    is_framed: bool,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Problem> {
    let mut pieces = Pieces::begin(shared.ask(query.clone(), client)).await?;
    let is_kept = pieces.is_kept;
    if request.headers().get(UNTIL).is_some_and(|until| until == BODY_END) {
        let finish = pieces.finish();
        let mut body = request.into_body();
        tokio::task::spawn_local(async move {
            while let Some(frame) = body.frame().await {
                // The content means nothing. A client that has gone ends its body with an error, and leaves by itself.
                if frame.is_err() {
                    return;
                }
            }
            finish();
        });
    }
    // The head of the answer says that the command traces, or that the first lines are there.
    let (mut before, mut first) = (Whole::default(), None);
    while !is_framed && first.is_none() {
        match pieces.next().await {
            Some(Piece::Ready) | None => break,
            Some(Piece::Out(bytes)) => first = Some(bytes),
            Some(Piece::Err(bytes)) => before.err.extend_from_slice(&bytes),
            Some(Piece::Exit(code)) => {
                before.code = code;
                return match before.failure() {
                    Some(problem) => Err(problem),
                    None => Ok(success(&query, false, Answer::Whole(Bytes::new()))),
                };
            }
        }
    }
    let (sender, parts) = mpsc::channel(1);
    tokio::task::spawn_local(async move {
        if let Some(first) = first
            && sender.send(first).await.is_err()
        {
            return;
        }
        loop {
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                // Its command ends with it.
                () = sender.closed() => return,
            };
            let part = match piece {
                None => return,
                Some(piece) if is_framed => piece.frame(),
                Some(Piece::Out(bytes)) => bytes,
                Some(_) => continue,
            };
            if sender.send(part).await.is_err() {
                return;
            }
        }
    });
    let mut response = success(&query, is_framed, Answer::Parts(parts));
    if is_kept {
        response.headers_mut().insert(STREAM_HEADER, HeaderValue::from_static(KEPT));
    }
    Ok(response)
}
