//! The tables of all network namespaces, as they are now.

use std::collections::BTreeMap;
use std::io;

use conn_common::connection::FORWARD;

use super::addresses::Addresses;
use super::dump::{Dumper, Progress};
use super::plan::Scope;
use super::socket::PAGE;
use super::table::TableFacts;
use super::tracker::TrackError;
use crate::event::Event;
use crate::event::entry::{Entry, Reading};
use crate::event::kind::Kind;
use crate::event::tracked::TimeSource;
use crate::filter::value::ranges::Ranges;
use crate::host::clock::{WallClock, boot_now_ns};
use crate::host::namespace;

/// The tables that have entries.
#[derive(Debug)]
pub(crate) struct Tables {
    open: BTreeMap<u32, (Dumper, Addresses)>,
    /// The first namespace that refused, and why.
    pub refused: Option<(u32, io::Error)>,
    /// A process could not be inspected, so a namespace may be missing.
    pub denied: bool,
}

impl Tables {
    /// Opens the tables of all network namespaces, or of `only` those with these inode numbers.
    ///
    /// # Errors
    /// There is no connection tracking.
    pub(crate) fn open(only: Option<&Ranges>) -> Result<Self, TrackError> {
        if TableFacts::probe().is_none() {
            return Err(TrackError::NotLoaded);
        }
        let mut found = namespace::all();
        found.namespaces.retain(|one| only.is_none_or(|only| only.contains(one.inode.into())));
        // A table without entries needs no dump.
        let table = || match TableFacts::probe() {
            Some(facts) if facts.count == 0 => None,
            _ => Some(Dumper::open().and_then(|dumper| Ok((dumper, Addresses::open()?)))),
        };
        let mut tables = Self { open: BTreeMap::new(), refused: None, denied: found.denied };
        for (netns, table) in namespace::in_each(&found.namespaces, table) {
            match table {
                Ok(table) => _ = tables.open.insert(netns, table),
                Err(error) => _ = tables.refused.get_or_insert((netns, error)),
            }
        }
        Ok(tables)
    }

    /// Passes each flow in scope to `each`, table by table, page by page. Returns whether a table changed its shape meanwhile,
    /// so that flows may be missing.
    ///
    /// # Errors
    /// A table cannot be read.
    pub(crate) fn read(
        &mut self,
        scope: Scope,
        clock: &WallClock,
        mut each: impl FnMut(&mut Event),
    ) -> Result<bool, TrackError> {
        let (mut page, mut is_partial) = (vec![0; PAGE], false);
        for (&netns, (dumper, addresses)) in &mut self.open {
            let refused = |source| TrackError::Refused { netns, source };
            dumper.begin().map_err(refused)?;
            let mut interrupted = false;
            let each = &mut |entry: &Entry| {
                let direction = addresses.direction(entry);
                if scope == Scope::All || direction == FORWARD {
                    each(&mut open(entry, netns, direction, clock));
                }
            };
            while dumper.page(&mut page, &mut interrupted, &mut *each).map_err(refused)? == Progress::More {}
            is_partial |= interrupted;
        }
        Ok(is_partial)
    }
}

/// The event of an entry that exists now.
pub(super) fn open(entry: &Entry, netns: u32, direction: u8, clock: &WallClock) -> Event {
    let time_ns = boot_now_ns();
    let started_ns = entry.started_unix_ns.and_then(|ns| clock.to_boot_ns(i64::try_from(ns).ok()?));
    entry.event(&Reading {
        netns,
        direction,
        kind: Kind::Open,
        time_ns,
        began_ns: started_ns,
        preexisting: true,
        at_least_ns: started_ns.map(|since_ns| time_ns.saturating_sub(since_ns)),
        clock: if started_ns.is_some() { TimeSource::Kernel } else { TimeSource::Reading },
    })
}
