//! `conntrace events --forwarded` and `conntrace life --forwarded`: flows that pass through, until something ends the run.
//! No kernel program is loaded.

use crate::command::events::{end, stages};
use crate::command::hint;
use crate::conntrack::watch::Plan;
use crate::error::Error;
use crate::filter::expression::Field;
use crate::output::queue;
use crate::output::stdout::Written;
use crate::output::terminal;
use crate::settings::EventsSettings;
use crate::settings::forwarded::ForwardedSettings;
use crate::stream::forwarded::FlowSource;
use crate::stream::notice::Notice;
use crate::stream::ready::Ready;
use crate::stream::shutdown::Shutdown;
use crate::stream::source::Batch;

/// Bytes of lines that may wait for the reader. A burst of messages is taken as a whole, since none can go back into its
/// socket.
const QUEUE: usize = 64 << 20;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub(super) fn run(settings: &EventsSettings, flows: &ForwardedSettings) -> Result<(), Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { context: "starting the event loop".into(), source })?
        .block_on(watch(settings, flows))
}

async fn watch(settings: &EventsSettings, flows: &ForwardedSettings) -> Result<(), Error> {
    let mut shutdown = Shutdown::new(settings.timeout)?;
    let plan = Plan { scope: flows.scope, kinds: settings.kinds, buffer: flows.buffer };
    let only = settings.filter.bound(Field::Netns).cloned();
    let mut source = FlowSource::start(plan, only)?;
    let (sink, output) = queue::stdout(flows.buffer.max(QUEUE))?;
    let (pipeline, mut consumer) = stages(settings, None, sink);
    let mut pipeline = pipeline.of_flows(&flows.filter);
    if consumer.flush()? == Written::Closed {
        return Ok(());
    }
    hint::print(&settings.filter, &mut *consumer);
    if terminal::is_stderr() && !source.tracker().tracks() {
        consumer.notice(&Notice::NothingTracked);
    }
    Ready::take().signal();

    let mut quiet = false;
    let mut stop = pipeline.is_complete();
    while !stop {
        tokio::select! {
            waited = source.wait(quiet) => waited?,
            // A reader that closed the pipe has seen what it wanted.
            ended = output.ended() => return ended,
            () = shutdown.wait() => stop = true,
        }
        quiet = pipeline.run(&mut source, &mut *consumer)? == Batch::Idle;
        stop |= pipeline.is_complete();
        if consumer.flush()? == Written::Closed {
            return Ok(());
        }
        pipeline.refresh_clock();
    }
    let counts = pipeline.finish_flows(&mut source, &mut *consumer)?;
    pipeline.finish(&mut *consumer);
    if consumer.flush()? == Written::Closed {
        return Ok(());
    }
    let (written, unwritten) = output.finish(shutdown.signal()).await?;
    if written == Written::Closed {
        return Ok(());
    }
    pipeline.note_unwritten(unwritten);
    if counts.uncounted > 0 {
        consumer.notice(&Notice::Uncounted(counts.uncounted));
    }
    end(settings, &pipeline, &mut *consumer, unwritten, None)
}
