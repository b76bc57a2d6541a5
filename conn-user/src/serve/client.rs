//! The commands of conntrace as clients of the daemon.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _};
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST, TRANSFER_ENCODING};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::{Duration, sleep};

use crate::cli::Cli;
use crate::error::Error;
use crate::output::stdout::{self, Written};
use crate::output::{stderr, terminal};
use crate::render::style::Color;
use crate::serve::endpoint::Endpoint;
use crate::serve::frame::{BODY_END, FRAMES, Piece, Reader, UNTIL};
use crate::serve::problem::Problem;
use crate::serve::query::{FILTER, TERMINAL, TZ};
use crate::stream::ready::Ready;
use crate::stream::shutdown::Shutdown;

/// How often a client asks again when the daemon has no room for it, and how long it waits before.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);
/// Options that the client itself follows.
const OWN: [&str; 3] = ["verbose", "local", "daemon"];

/// Runs a command in the daemon. `args` begins with the name of the program, then that of the command.
///
/// # Errors
/// The daemon cannot be asked, or refuses.
pub fn run(socket: &Path, args: &[std::ffi::OsString]) -> Result<u8, Error> {
    let matches =
        Cli::command().try_get_matches_from(args).map_err(|error| Error::Internal(error.to_string()))?;
    let Some((command, options)) = matches.subcommand() else {
        return Err(Error::Internal("a command line has no command".into()));
    };
    let endpoint = Endpoint::for_command(command)
        .ok_or_else(|| Error::Internal(format!("the daemon has no {command}")))?;
    let query = query(command, options);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { context: "starting the event loop".into(), source })?
        .block_on(ask(socket, endpoint, &query))
}

/// The typed options as the query of a request.
fn query(command: &str, options: &ArgMatches) -> String {
    let mut cli = Cli::command();
    cli.build();
    let mut query = form_urlencoded::Serializer::new(String::new());
    let mut has_output = false;
    for arg in cli.find_subcommand(command).into_iter().flat_map(clap::Command::get_arguments) {
        let id = arg.get_id().as_str();
        let is_typed = options.try_contains_id(id).is_ok_and(|known| known)
            && options.value_source(id) == Some(ValueSource::CommandLine);
        if !is_typed || arg.get_long().is_some_and(|long| OWN.contains(&long)) {
            continue;
        }
        let values = options.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy());
        match arg.get_long() {
            None => _ = query.append_pair(FILTER, &values.collect::<Vec<_>>().join(" ")),
            Some(long) if !arg.get_action().takes_values() => _ = query.append_key_only(long),
            Some(long) => {
                has_output |= long == "output";
                let is_netns = long == "netns";
                values.for_each(|value| {
                    let value = if is_netns { own_netns(&value) } else { value.into_owned() };
                    // The daemon splits lists as the command line does. A value with a comma was split here.
                    query.append_pair(long, if value == default_missing(long) { "" } else { &value });
                });
            }
        }
    }
    if !has_output {
        // The command's own default, not that of the interface.
        query.append_pair("output", "");
    }
    let own = terminal::probe(Color::Auto);
    if let Some(width) = own.width.filter(|_| own.is_terminal) {
        let words = [(own.utf8, ",utf8"), (own.color, ",color")];
        let words: String = words.iter().filter(|(is_on, _)| *is_on).map(|(_, word)| *word).collect();
        query.append_pair(TERMINAL, &format!("{width}{words}"));
    }
    if let Ok(tz) = std::env::var("TZ")
        && !tz.starts_with(['/', ':'])
    {
        query.append_pair(TZ, &tz);
    }
    query.finish()
}

/// The value that an option without a value has.
fn default_missing(long: &str) -> &'static str {
    match long {
        "forwarded" => "only",
        "src-nat" | "dst-nat" | "any-nat" => "any",
        _ => "\0",
    }
}

/// A list of namespaces with the number of this process's own one in place of `.`.
fn own_netns(list: &str) -> String {
    let own = std::fs::metadata("/proc/self/ns/net").map(|found| std::os::unix::fs::MetadataExt::ino(&found));
    let number = |part: &str| match (part.trim(), &own) {
        (".", Ok(own)) => own.to_string(),
        ("!.", Ok(own)) => format!("!{own}"),
        _ => part.to_owned(),
    };
    list.split(',').map(number).collect::<Vec<_>>().join(",")
}

/// Asks, prints the answer as it comes, and returns the exit status of the command.
async fn ask(socket: &Path, endpoint: Endpoint, query: &str) -> Result<u8, Error> {
    let context =
        |source| Error::Io { context: format!("asking the daemon at {}", socket.display()), source };
    let mut shutdown = Shutdown::new(None)?;
    for _ in 0..TRIES {
        let (finish, body) = oneshot::channel::<()>();
        let request = Request::get(format!("{}?{query}", endpoint.path()))
            .header(HOST, "conntrace")
            .header(ACCEPT, FRAMES)
            .header(UNTIL, BODY_END)
            .header(TRANSFER_ENCODING, "chunked")
            .body(UntilFinish(Some(body)))
            .map_err(|error| context(io::Error::other(error)))?;
        let stream = UnixStream::connect(socket).await.map_err(context)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| context(io::Error::other(error)))?;
        tokio::spawn(connection);
        let response =
            sender.send_request(request).await.map_err(|error| context(io::Error::other(error)))?;
        let status = response.status().as_u16();
        if status == 200 {
            return print(response.into_body(), finish, &mut shutdown).await;
        }
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(|error| context(io::Error::other(error)))?
            .to_bytes();
        let problem = Problem::read(status, &bytes)
            .unwrap_or_else(|| Problem::new(status, format!("the daemon answers with status {status}"), ""));
        if status != 503 {
            return Err(refused(&problem));
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            () = shutdown.wait() => return Err(refused(&problem)),
        }
    }
    Err(context(io::Error::other("the daemon has no room for another client")))
}

fn refused(problem: &Problem) -> Error {
    Error::Daemon { status: problem.status, text: problem.text() }
}

/// Prints the answer. A signal is passed on to the command.
async fn print(body: Incoming, finish: oneshot::Sender<()>, shutdown: &mut Shutdown) -> Result<u8, Error> {
    let broken = |what: &str| Error::Io {
        context: "reading the answer of the daemon".into(),
        source: io::Error::new(io::ErrorKind::UnexpectedEof, what.to_owned()),
    };
    let (mut body, mut reader, mut finish) = (body, Reader::default(), Some(finish));
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = shutdown.wait() => {
                if finish.take().is_none() {
                    // The second signal ends the client.
                    return Ok(1);
                }
                continue;
            }
        };
        let Some(frame) = frame else { return Err(broken("it ended early")) };
        let frame = frame.map_err(|error| broken(&error.to_string()))?;
        if let Some(bytes) = frame.data_ref() {
            reader.push(bytes);
        }
        while let Some(piece) = reader.next().map_err(broken)? {
            match piece {
                Piece::Ready => Ready::take().signal(),
                Piece::Out(bytes) => {
                    if stdout::print_part(&bytes)? == Written::Closed {
                        return Ok(0);
                    }
                }
                Piece::Err(bytes) => stderr::print(String::from_utf8_lossy(&bytes)),
                Piece::Exit(code) => return Ok(code),
            }
        }
    }
}

/// A body without content, which ends when the sender is dropped.
struct UntilFinish(Option<oneshot::Receiver<()>>);

impl Body for UntilFinish {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Some(receiver) => Pin::new(receiver).poll(context).map(|_| None),
            None => Poll::Ready(None),
        }
    }
}
