//! The commands of conntrace as clients of the daemon.

use std::fs;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
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
use tokio::time::error::Elapsed;
use tokio::time::{Duration, sleep, timeout};

use crate::cli::Cli;
use crate::error::Error;
use crate::output::stdout::{self, Written};
use crate::output::{stderr, terminal};
use crate::render::style::Color;
use crate::serve::endpoint::Endpoint;
use crate::serve::frame::{BODY_END, FRAMES, KEPT, Piece, Reader, STREAM_HEADER, UNTIL};
use crate::serve::problem::Problem;
use crate::serve::query::{FILTER, FROM, STREAM, TERMINAL, TZ};
use crate::serve::streams;
use crate::stream::ready::Ready;
use crate::stream::shutdown::Shutdown;

/// How often a client asks again when the daemon has no room for it, and how long it waits before.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);
/// How long a client waits for a daemon that has gone, until its stream is taken away.
const DAEMON_IS_AWAY: Duration = streams::PATIENCE;
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
    let own = fs::metadata("/proc/self/ns/net").map(|found| std::os::unix::fs::MetadataExt::ino(&found));
    let number = |part: &str| match (part.trim(), &own) {
        (".", Ok(own)) => own.to_string(),
        ("!.", Ok(own)) => format!("!{own}"),
        _ => part.to_owned(),
    };
    list.split(',').map(number).collect::<Vec<_>>().join(",")
}

/// Asks, prints the answer as it comes, and returns the exit status of the command. A stream goes on when the daemon comes back.
async fn ask(socket: &Path, endpoint: Endpoint, query: &str) -> Result<u8, Error> {
    let mut shutdown = Shutdown::new(None)?;
    if !endpoint.is_stream() {
        return match begin(socket, endpoint, query, &mut shutdown)
            .await?
            .print(&mut shutdown, &mut Lines::default())
            .await?
        {
            Printed::Exit(code) => Ok(code),
            Printed::Broken(why) => Err(broken(&why)),
        };
    }
    let name = stream_name().map_err(|error| context(socket, error))?;
    let query = format!("{query}{}{STREAM}={name}", if query.is_empty() { "" } else { "&" });
    let mut lines = Lines::default();
    let mut answer = begin(socket, endpoint, &query, &mut shutdown).await?;
    loop {
        let is_kept = answer.is_kept;
        let why = match answer.print(&mut shutdown, &mut lines).await? {
            Printed::Exit(code) => return Ok(code),
            Printed::Broken(why) if !is_kept => return Err(broken(&why)),
            Printed::Broken(why) => why,
        };
        // The next daemon counts a line that was cut as lost.
        lines.cut.clear();
        stderr::print(format!(
            "conntrace: the daemon has gone ({why}): the programs of the stream go on, and the command waits for the next daemon\n"
        ));
        let query = format!("{query}&{FROM}={}", lines.whole);
        answer = again(socket, endpoint, &query, &mut shutdown).await.map_err(|_gone| broken(&why))??;
    }
}

/// Asks the next daemon, until it answers. The outer error says that there is none.
async fn again(
    socket: &Path,
    endpoint: Endpoint,
    query: &str,
    shutdown: &mut Shutdown,
) -> Result<Result<Response, Error>, Elapsed> {
    let asked = async {
        loop {
            match begin(socket, endpoint, query, shutdown).await {
                // Nothing listens, or what listened has gone meanwhile.
                Err(Error::Io { .. }) => {}
                answered => return answered,
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = shutdown.wait() => return Err(broken("a signal ended the wait for the next daemon")),
            }
        }
    };
    timeout(DAEMON_IS_AWAY, asked).await
}

/// A name that is chosen at random.
fn stream_name() -> io::Result<String> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(uuid.chars().filter(char::is_ascii_hexdigit).collect())
}

fn context(socket: &Path, source: io::Error) -> Error {
    Error::Io { context: format!("asking the daemon at {}", socket.display()), source }
}

/// Asks, and waits for the head of the answer.
async fn begin(
    socket: &Path,
    endpoint: Endpoint,
    query: &str,
    shutdown: &mut Shutdown,
) -> Result<Response, Error> {
    let context = |source| context(socket, source);
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
            let is_kept = response.headers().get(STREAM_HEADER).is_some_and(|value| value == KEPT);
            return Ok(Response { body: response.into_body(), finish, is_kept });
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

fn broken(what: &str) -> Error {
    Error::Io {
        context: "reading the answer of the daemon".into(),
        source: io::Error::new(io::ErrorKind::UnexpectedEof, what.to_owned()),
    }
}

/// What this command has printed.
#[derive(Debug, Default)]
struct Lines {
    /// Whole lines of a stream.
    whole: u64,
    /// The begin of a line.
    cut: BytesMut,
}

impl Lines {
    /// Takes text, and returns the whole lines in it.
    fn take(&mut self, bytes: &Bytes) -> Bytes {
        self.cut.extend_from_slice(bytes);
        let end = self.cut.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let lines = self.cut.split_to(end).freeze();
        self.whole += lines.split(|&byte| byte == b'\n').skip(1).count() as u64;
        lines
    }
}

/// How an answer ended.
#[derive(Debug)]
enum Printed {
    /// The command ended with this status, or its reader has gone.
    Exit(u8),
    /// The daemon has gone: why.
    Broken(String),
}

/// An answer that has begun.
struct Response {
    body: Incoming,
    finish: oneshot::Sender<()>,
    /// It goes on with the next daemon.
    is_kept: bool,
}

impl Response {
    /// Prints the answer. A signal is passed on to the command.
    async fn print(self, shutdown: &mut Shutdown, lines: &mut Lines) -> Result<Printed, Error> {
        let (mut body, mut reader, mut finish) = (self.body, Reader::default(), Some(self.finish));
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = shutdown.wait() => {
                    if finish.take().is_none() {
                        // The second signal ends the client.
                        return Ok(Printed::Exit(1));
                    }
                    continue;
                }
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                broken_off => {
                    let why = broken_off.and_then(Result::err).map(|error| error.to_string());
                    let why = why.unwrap_or_else(|| "its answer ended early".into());
                    // After a signal, the command ends with the answer.
                    return if finish.is_some() { Ok(Printed::Broken(why)) } else { Err(broken(&why)) };
                }
            };
            if let Some(bytes) = frame.data_ref() {
                reader.push(bytes);
            }
            while let Some(piece) = reader.next().map_err(broken)? {
                match piece {
                    Piece::Ready => Ready::take().signal(),
                    Piece::Out(bytes) => {
                        if stdout::print_part(&lines.take(&bytes))? == Written::Closed {
                            return Ok(Printed::Exit(0));
                        }
                    }
                    Piece::Err(bytes) => stderr::print(String::from_utf8_lossy(&bytes)),
                    Piece::Exit(code) => {
                        // Text without a line end.
                        stdout::print_part(&lines.cut)?;
                        return Ok(Printed::Exit(code));
                    }
                }
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
