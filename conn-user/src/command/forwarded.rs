//! `conntrace events --forwarded` and `conntrace life --forwarded`: flows that pass through, until something ends the run.
//! Kernel programs run only if the output shows the processes behind flows.

use crate::command::events::{end, stages};
use crate::command::hint;
use crate::conntrack::plan::Plan;
use crate::enrich::{cgroup, command_line};
use crate::error::Error;
use crate::filter::Filter;
use crate::filter::expression::Field;
use crate::filter::workload::WorkloadFilter;
use crate::host::facts::Host;
use crate::host::refusal::chain;
use crate::output::queue;
use crate::output::stdout::Written;
use crate::output::terminal;
use crate::render::Renderer;
use crate::render::style::View;
use crate::settings::EventsSettings;
use crate::settings::forwarded::ForwardedSettings;
use crate::stream::flow_owners::FlowOwners;
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
pub(super) fn run(settings: &EventsSettings, flows: &ForwardedSettings, host: &Host) -> Result<(), Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { context: "starting the event loop".into(), source })?
        .block_on(watch(settings, flows, host))
}

async fn watch(settings: &EventsSettings, flows: &ForwardedSettings, host: &Host) -> Result<(), Error> {
    let mut shutdown = Shutdown::new(settings.timeout)?;
    let (sink, output) = queue::stdout(flows.buffer.max(QUEUE))?;
    let (pipeline, mut consumer) = stages(settings, host.cgroup_root.as_deref(), sink, None);
    let mut pipeline = pipeline.of_flows(&flows.filter);
    let view = if settings.life.is_some() { View::Lives } else { View::Events };
    let renderer = Renderer::new(&settings.style, view, terminal::probe(settings.style.color));
    let is_asked = asks_owners(&renderer, &settings.filter, &settings.workload);
    let owners = if is_asked { owners(settings, flows, host) } else { None };
    let plan =
        Plan { scope: flows.scope, kinds: settings.kinds, buffer: flows.buffer, owners: owners.is_some() };
    let only = settings.filter.bound(Field::Netns).cloned();
    let mut source = FlowSource::new(plan, only, host)?.owned(owners);
    // The flows that exist.
    pipeline.run(&mut source, &mut *consumer)?;
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
    if let Some((flows, missed)) = source.unnamed() {
        consumer.notice(&Notice::Unnamed { flows, missed });
    }
    end(settings, &pipeline, &mut *consumer, unwritten, None)
}

/// The columns that the owner of an event fills.
const OWNERS: [&str; 9] = ["pid", "tid", "uid", "comm", "thread", "owner", "holders", "cgroup", "processes"];

/// True if the output or a filter asks for the processes behind flows.
pub(super) fn asks_owners(renderer: &Renderer, filter: &Filter, workload: &WorkloadFilter) -> bool {
    let columns = [&OWNERS[..], &cgroup::COLUMNS, &command_line::COLUMNS];
    renderer.always_shows_owners()
        || columns.into_iter().any(|ids| renderer.shows(ids))
        || filter.asks_for_owners()
        || !workload.is_empty()
}

/// The watch over the sockets behind flows. Flows are shown without it, too.
fn owners(settings: &EventsSettings, flows: &ForwardedSettings, host: &Host) -> Option<FlowOwners> {
    let protocols = flows.protocols_of_sockets();
    if protocols.is_empty() {
        return None;
    }
    match FlowOwners::start(host, protocols, settings.max_flows) {
        Ok(owners) => Some(owners),
        Err(error) => {
            log::warn!("the processes behind flows are not known: {}", chain(&error));
            None
        }
    }
}
