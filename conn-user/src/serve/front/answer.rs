//! The answer of the back, piece by piece.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use crate::serve::frame::Piece;
use crate::serve::front::shared::{Asked, News};
use crate::serve::problem::Problem;

/// Bytes of one reading.
const CHUNK: usize = 1 << 16;
/// The most text of standard error that a refusal quotes.
const MAX_QUOTE: usize = 4096;
/// The longest answer that is kept as a whole.
const MAX_WHOLE: usize = 64 << 20;

/// An answer as a whole.
#[derive(Debug, Default)]
pub(super) struct Whole {
    /// All who read it share it.
    pub(super) out: Bytes,
    pub(super) err: Vec<u8>,
    pub(super) code: u8,
}

impl Whole {
    /// Why there is no answer, if the command failed without one. `1` alone says that nothing was found.
    pub(super) fn failure(&self) -> Option<Problem> {
        let is_failure = self.out.is_empty() && self.code != 0 && !self.err.is_empty();
        is_failure.then(|| {
            let text = String::from_utf8_lossy(&self.err[..self.err.len().min(MAX_QUOTE)]);
            let (message, remedy) = text.trim().split_once('\n').unwrap_or((text.trim(), ""));
            Problem {
                status: 500,
                parameter: None,
                message: message.trim_start_matches("conntrace: ").to_owned(),
                remedy: Some(remedy.to_owned()).filter(|remedy| !remedy.is_empty()),
            }
        })
    }
}

/// The pieces of an answer.
#[derive(Debug)]
pub(super) struct Pieces {
    asked: Asked,
    out: Option<Source>,
    err: Option<Source>,
    ready: Option<Source>,
    /// The stream outlives the daemon.
    pub(super) is_kept: bool,
    is_over: bool,
}

impl Pieces {
    /// Waits for the begin of the answer.
    ///
    /// # Errors
    /// The back refuses.
    pub(super) async fn begin(mut asked: Asked) -> Result<Self, Problem> {
        let broken = |_| Problem::new(500, "the daemon is out of descriptors", "ask again later");
        loop {
            match asked.news.recv().await {
                Some(News::Started(descriptors, is_kept)) => {
                    let mut sources = descriptors.into_iter().map(Source::new);
                    let mut next = || sources.next().transpose().map_err(broken);
                    let (out, err, ready) = (next()?, next()?, next()?);
                    return Ok(Self { asked, out, err, ready, is_kept, is_over: false });
                }
                Some(News::Refused(problem)) => return Err(problem),
                Some(News::Ended(_)) => {}
                None => return Err(Problem::new(500, "the daemon ends", "ask again")),
            }
        }
    }

    /// The next piece; none behind the exit status, which comes last.
    pub(super) async fn next(&mut self) -> Option<Piece> {
        loop {
            if self.is_over {
                return None;
            }
            let (out, err, ready) = (&mut self.out, &mut self.err, &mut self.ready);
            if out.is_none() && err.is_none() {
                self.is_over = true;
                return Some(Piece::Exit(self.asked.code().await));
            }
            tokio::select! {
                biased;
                bytes = read(ready), if ready.is_some() => {
                    *ready = None;
                    if bytes.is_some() {
                        return Some(Piece::Ready);
                    }
                }
                bytes = read(err), if err.is_some() => match bytes {
                    Some(bytes) => return Some(Piece::Err(bytes)),
                    None => *err = None,
                },
                bytes = read(out), if out.is_some() => match bytes {
                    Some(bytes) => return Some(Piece::Out(bytes)),
                    None => *out = None,
                },
            }
        }
    }

    /// All of it.
    pub(super) async fn whole(mut self) -> Result<Whole, Problem> {
        let (mut whole, mut out) = (Whole::default(), BytesMut::new());
        while let Some(piece) = self.next().await {
            match piece {
                Piece::Out(bytes) => out.extend_from_slice(&bytes),
                Piece::Err(bytes) => whole.err.extend_from_slice(&bytes),
                Piece::Ready => {}
                Piece::Exit(code) => whole.code = code,
            }
            if out.len() + whole.err.len() > MAX_WHOLE {
                return Err(Problem::new(500, "the answer is too long", "use a filter"));
            }
        }
        whole.out = out.freeze();
        Ok(whole)
    }

    /// What ends the command as Ctrl-C does.
    pub(super) fn finish(&self) -> impl FnOnce() + use<> {
        self.asked.finish()
    }
}

/// The next bytes; none at the end.
async fn read(source: &mut Option<Source>) -> Option<Bytes> {
    match source {
        Some(source) => source.read().await,
        None => None,
    }
}

/// A pipe, or a file in memory.
#[derive(Debug)]
enum Source {
    Pipe(pipe::Receiver),
    File(File),
}

impl Source {
    fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let file = File::from(descriptor);
        if file.metadata()?.is_file() {
            return Ok(Self::File(file));
        }
        Ok(Self::Pipe(pipe::Receiver::from_file(file)?))
    }

    /// The next bytes. An error ends the answer as the end of the command does.
    async fn read(&mut self) -> Option<Bytes> {
        let mut bytes = BytesMut::with_capacity(CHUNK);
        let length = match self {
            Self::Pipe(pipe) => pipe.read_buf(&mut bytes).await.ok()?,
            Self::File(file) => {
                bytes.resize(CHUNK, 0);
                let length = file.read(&mut bytes).ok()?;
                bytes.truncate(length);
                length
            }
        };
        (length != 0).then(|| bytes.freeze())
    }
}
