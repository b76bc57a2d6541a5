//! `conntrace list --forwarded`: the flows that pass through now. Lines are printed as the table is read, so a table of any
//! size needs no memory here.

use std::time::Duration;

use crate::command::forwarded::asks_owners;
use crate::command::hint;
use crate::command::list::renderer;
use crate::conntrack::owners::Owners;
use crate::enrich::cgroup;
use crate::enrich::command_line;
use crate::enrich::{Enricher, LookUp, Wanted};
use crate::error::Error;
use crate::event::enriched::Enriched;
use crate::event::lost::Lost;
use crate::filter::expression::Field;
use crate::host::clock::WallClock;
use crate::host::facts::Host;
use crate::host::refusal::chain;
use crate::output::stdout::{Answer, Written};
use crate::settings::ListSettings;
use crate::settings::forwarded::ForwardedSettings;
use crate::stream::consumer::{Consumer, Finished, Taken};
use crate::stream::flow_owners;
use crate::stream::flow_walk::FlowWalk;
use crate::stream::notice::Notice;
use crate::stream::pipeline::Pipeline;
use crate::stream::text::Text;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub(super) fn run(settings: &ListSettings, flows: &ForwardedSettings, host: &Host) -> Result<(), Error> {
    let renderer = renderer(settings);
    let is_asked = asks_owners(&renderer, &settings.filter, &settings.workload);
    let owners = if is_asked { owners(flows, host) } else { None };
    let mut walk = FlowWalk::new(flows.scope, settings.filter.bound(Field::Netns))?.owned(owners);
    let shows_command_lines = renderer.shows(&command_line::COLUMNS);
    let by_filters = Wanted::by_filters(&settings.filter, &settings.workload);
    let names = if settings.style.resolve { LookUp::AtOnce } else { LookUp::Never };
    let wanted = Wanted {
        workloads: by_filters.workloads || renderer.shows(&cgroup::COLUMNS),
        command_lines: if shows_command_lines { LookUp::AtOnce } else { LookUp::Never },
        names,
        ..by_filters
    };
    let mut pipeline = Pipeline::new(&settings.filter)
        .of_flows(&flows.filter)
        .enriched(Enricher::new(wanted, host.cgroup_root.as_deref()), &settings.workload);
    let mut list =
        FlowList { text: Text::new(renderer, Answer), min_age: settings.min_age, younger: 0, undecided: 0 };
    list.text.begin();
    pipeline.run(&mut walk, &mut list)?;
    pipeline.finish(&mut list);
    // A reader that left has seen what it wanted.
    list.flush()?;
    warn(&walk, host);
    if list.undecided > 0 {
        list.notice(&Notice::UndecidedAge(list.undecided));
    }
    hint::print(&settings.filter, &mut list);
    list.notice(&Notice::Shown { count: pipeline.accounting.shown, noun: "flow entries" });
    if settings.exit_code && pipeline.accounting.shown == 0 {
        return Err(Error::NothingFound);
    }
    Ok(())
}

/// The sockets behind flows. Flows are shown without them, too.
fn owners(flows: &ForwardedSettings, host: &Host) -> Option<Owners> {
    let protocols = flows.protocols_of_sockets();
    if protocols.is_empty() {
        return None;
    }
    match flow_owners::of_existing(host, protocols) {
        Ok(owners) => Some(owners),
        Err(error) => {
            log::warn!("the processes behind flows are not known: {}", chain(&error));
            None
        }
    }
}

/// Says which flows may be missing.
fn warn(walk: &FlowWalk, host: &Host) {
    if let Some(netns) = walk.missed() {
        log::warn!("the flows of network namespace {netns} cannot be read: flows there are missing");
    }
    if walk.is_partial {
        log::warn!("a table changed its size while it was read: flows may be missing");
    }
    if walk.is_denied() && !host.may_look_everywhere() {
        log::warn!(
            "conntrace may not read the network namespaces of some processes: flows there are missing"
        );
    }
}

/// Prints flows as they come, those that are old enough.
struct FlowList {
    text: Text<Answer>,
    min_age: Option<Duration>,
    /// Flows that are not old enough.
    younger: u64,
    /// Flows whose age the kernel does not stamp.
    undecided: usize,
}

impl Consumer for FlowList {
    fn event(&mut self, event: &Enriched, clock: &WallClock) -> Taken {
        match (self.min_age, event.age_ns()) {
            (None, _) => self.text.event(event, clock),
            (Some(least), Some(age_ns)) if u128::from(age_ns) >= least.as_nanos() => {
                self.text.event(event, clock)
            }
            (Some(_), age_ns) => {
                self.younger += u64::from(age_ns.is_some());
                self.undecided += usize::from(age_ns.is_none());
                Taken::Shown
            }
        }
    }

    fn lost(&mut self, lost: &Lost, clock: &WallClock) {
        self.text.lost(lost, clock);
    }

    fn notice(&mut self, notice: &Notice) {
        self.text.notice(notice);
    }

    fn flush(&mut self) -> Result<Written, Error> {
        self.text.flush()
    }

    fn finish(&mut self, enricher: &mut Enricher, clock: &WallClock) -> Finished {
        let finished = self.text.finish(enricher, clock);
        Finished { filtered: self.younger + self.undecided as u64, ..finished }
    }
}
