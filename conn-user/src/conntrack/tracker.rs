//! The watches over all network namespaces that can be entered, and the descriptor that says when one has something.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::account::Account;
use super::counts::Counts;
use super::plan::{Hear, Plan};
use super::socket::PAGE;
use super::table::TableFacts;
use super::watch::{Buffers, Watch};
use crate::filter::value::ranges::Ranges;
use crate::host::clock::WallClock;
use crate::host::namespace::{self, Namespace};

/// Time between two looks for network namespaces.
const SCAN_EVERY: Duration = Duration::from_secs(2);
/// Time between two dumps of a table: ends are at most so much late.
const DUMP_EVERY: Duration = Duration::from_secs(5);
/// The share of the time that dumps may take: a large table is dumped less often.
const DUMP_SHARE: u32 = 20;
/// How many descriptors are looked at together.
const MAX_READY: usize = 256;

/// Why connection tracking cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum TrackError {
    /// The kernel has no connection tracking loaded, so no flow has an entry.
    #[error(
        "connection tracking is not loaded in this kernel (no /proc/sys/net/netfilter/nf_conntrack_count)"
    )]
    NotLoaded,
    /// No network namespace lets conntrace read its flows.
    #[error("connection tracking cannot be read in network namespace {netns}")]
    Refused {
        /// The namespace, by inode number.
        netns: u32,
        /// The system's answer.
        source: io::Error,
    },
    /// The system refuses something else.
    #[error("watching connection tracking failed")]
    Io(#[from] io::Error),
}

impl TrackError {
    /// What it would take. conntrace itself switches nothing on.
    pub fn remedy(&self) -> Option<&'static str> {
        const LOAD: &str = "load nf_conntrack_netlink (modprobe nf_conntrack_netlink), and have a rule that tracks; conntrace \
                            switches tracking on nowhere";
        const ADMIN: &str = "run conntrace as root on the host, or add CAP_NET_ADMIN and CAP_SYS_ADMIN";
        match self {
            Self::NotLoaded => Some(LOAD),
            Self::Refused { source, .. } => match source.raw_os_error() {
                Some(nix::libc::EPERM | nix::libc::EACCES) => Some(ADMIN),
                _ => Some(LOAD),
            },
            Self::Io(_) => None,
        }
    }
}

/// The watches over all network namespaces.
#[derive(Debug)]
pub(crate) struct Tracker {
    plan: Plan,
    /// The namespaces to watch, by inode number; `None` for all.
    only: Option<Ranges>,
    epoll: Epoll,
    watches: BTreeMap<u32, Watch>,
    /// Namespaces that refused, which are asked once.
    refused: BTreeSet<u32>,
    /// The counts of namespaces that are gone.
    gone: Counts,
    buffers: Buffers,
    clock: WallClock,
    next_scan: Instant,
    next_dump: Instant,
    dump_began: Instant,
    /// The dumps that began then are timed.
    is_timed: bool,
}

impl Tracker {
    /// A tracker of all network namespaces, or of `only` those with these inode numbers, see [`Self::begin`].
    ///
    /// # Errors
    /// There is no connection tracking.
    pub(crate) fn new(plan: Plan, only: Option<Ranges>) -> Result<Self, TrackError> {
        if TableFacts::probe().is_none() {
            return Err(TrackError::NotLoaded);
        }
        let now = Instant::now();
        Ok(Self {
            plan,
            only,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io::Error::from)?,
            watches: BTreeMap::new(),
            refused: BTreeSet::new(),
            gone: Counts::default(),
            buffers: Buffers { page: vec![0; PAGE], batch: Vec::new() },
            clock: WallClock::probe(),
            next_scan: now + SCAN_EVERY,
            next_dump: now + DUMP_EVERY,
            dump_began: now,
            is_timed: false,
        })
    }

    /// Begins to watch. Returns when the flows that exist are known, if the plan needs them.
    ///
    /// # Errors
    /// No namespace lets its connection tracking be read.
    pub(crate) fn begin(&mut self, hear: &mut Hear<'_>) -> Result<(), TrackError> {
        match self.scan(hear)? {
            Some((netns, source)) if self.watches.is_empty() => Err(TrackError::Refused { netns, source }),
            _ => Ok(()),
        }
    }

    /// A descriptor that is readable while a watch has something.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub(crate) fn descriptor(&self) -> io::Result<File> {
        self.epoll.0.as_fd().try_clone_to_owned().map(File::from)
    }

    /// How long until something is due without a message.
    pub(crate) fn due_in(&self) -> Duration {
        let next = if self.plan.dumps() { self.next_scan.min(self.next_dump) } else { self.next_scan };
        if self.is_dumping() { Duration::ZERO } else { next.saturating_duration_since(Instant::now()) }
    }

    /// True if a namespace that is watched had an entry when its watch began, or a message came.
    pub(crate) fn tracks(&self) -> bool {
        self.watches.values().any(Watch::tracks)
    }

    /// The counts of all namespaces, by now.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = self.gone;
        self.watches.values().for_each(|watch| counts.add(&watch.counts()));
        counts
    }

    /// Measures the distance of the clocks again: the wall clock may have been set.
    pub(crate) fn refresh_clock(&mut self) {
        self.clock.refresh();
    }

    fn is_dumping(&self) -> bool {
        self.watches.values().any(Watch::is_dumping)
    }

    /// Reads what waits, up to a limit. True if there was something.
    ///
    /// # Errors
    /// A socket cannot be read any more.
    pub(crate) fn read(&mut self, hear: &mut Hear<'_>) -> Result<bool, TrackError> {
        let mut was_something = false;
        for netns in self.ready()? {
            if let Some(watch) = self.watches.get_mut(&netns) {
                was_something = true;
                watch.read(&mut self.buffers, &self.clock, hear)?;
            }
        }
        let now = Instant::now();
        if self.is_timed && !self.is_dumping() {
            self.is_timed = false;
            self.next_dump = now + DUMP_EVERY.max(self.dump_began.elapsed() * DUMP_SHARE);
        }
        if now >= self.next_scan {
            self.next_scan = now + SCAN_EVERY;
            _ = self.scan(hear)?;
        }
        if self.plan.dumps() && now >= self.next_dump && !self.is_dumping() {
            self.begin_dumps()?;
        }
        Ok(was_something)
    }

    /// The namespaces that have something.
    fn ready(&self) -> io::Result<BTreeSet<u32>> {
        let mut events = [EpollEvent::empty(); MAX_READY];
        let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        let dumping = self.watches.iter().filter(|(_, watch)| watch.is_dumping()).map(|(&netns, _)| netns);
        Ok(events[..count].iter().map(|event| event.data() as u32).chain(dumping).collect())
    }

    fn begin_dumps(&mut self) -> io::Result<()> {
        let now = Instant::now();
        (self.dump_began, self.is_timed) = (now, true);
        self.watches.values_mut().try_for_each(Watch::begin_dump)
    }

    /// The account of each namespace that is watched. What has expired ends first.
    ///
    /// # Errors
    /// A socket cannot be read any more.
    pub(crate) fn accounts(&mut self, hear: &mut Hear<'_>) -> Result<Vec<Account>, TrackError> {
        let Self { watches, buffers, clock, .. } = self;
        let accounts = watches.values_mut().map(|watch| watch.account(buffers, clock, hear));
        Ok(accounts.collect::<io::Result<_>>()?)
    }

    /// Takes what is left: evicts what has expired, leaves all groups, and reads until nothing waits. `dumps` is false if
    /// later events are not wanted.
    ///
    /// # Errors
    /// A socket cannot be read any more.
    pub(crate) fn finish(&mut self, dumps: bool, hear: &mut Hear<'_>) -> Result<(), TrackError> {
        if dumps && self.plan.dumps() {
            for watch in self.watches.values_mut() {
                // A dump from before may have passed what has expired since.
                watch.catch_up(&mut self.buffers, &self.clock, hear)?;
                watch.begin_dump()?;
                watch.catch_up(&mut self.buffers, &self.clock, hear)?;
            }
        }
        for watch in self.watches.values_mut() {
            watch.leave()?;
            while watch.read(&mut self.buffers, &self.clock, hear)? || watch.is_dumping() {}
        }
        Ok(())
    }

    /// Looks for network namespaces: watches new ones, and lets go of those that nothing else keeps, which would live on
    /// by the sockets of their watch. Returns the first namespace that refused.
    fn scan(&mut self, hear: &mut Hear<'_>) -> Result<Option<(u32, io::Error)>, TrackError> {
        let found = namespace::all().namespaces;
        let is_there: BTreeSet<u32> = found.iter().map(|namespace| namespace.inode).collect();
        let gone: Vec<u32> = self.watches.keys().copied().filter(|netns| !is_there.contains(netns)).collect();
        for netns in gone {
            self.let_go(netns, hear)?;
        }
        self.refused.retain(|netns| is_there.contains(netns));
        let is_new = |namespace: &Namespace| {
            let netns = namespace.inode;
            self.only.as_ref().is_none_or(|only| only.contains(netns.into()))
                && !self.watches.contains_key(&netns)
                && !self.refused.contains(&netns)
        };
        let new: Vec<Namespace> = found.into_iter().filter(is_new).collect();
        if new.is_empty() {
            return Ok(None);
        }
        let plan = self.plan;
        let opened = namespace::in_each_of(&new, |netns| Some(Watch::open(netns, plan)));
        let mut first_refused = None;
        for (netns, watch) in opened {
            let watch = watch.and_then(|watch| self.take_up(netns, watch, hear));
            if let Err(error) = watch {
                log::warn!("connection tracking cannot be read in network namespace {netns}: {error}");
                self.refused.insert(netns);
                first_refused.get_or_insert((netns, error));
            }
        }
        Ok(first_refused)
    }

    /// Takes a watch over a namespace up.
    fn take_up(&mut self, netns: u32, mut watch: Watch, hear: &mut Hear<'_>) -> io::Result<()> {
        if self.plan.dumps() {
            watch.begin_dump()?;
            watch.catch_up(&mut self.buffers, &self.clock, hear)?;
        }
        for descriptor in watch.descriptors() {
            self.epoll.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, netns.into()))?;
        }
        self.watches.insert(netns, watch);
        Ok(())
    }

    /// Ends the watch over a namespace.
    fn let_go(&mut self, netns: u32, hear: &mut Hear<'_>) -> io::Result<()> {
        let Some(mut watch) = self.watches.remove(&netns) else { return Ok(()) };
        watch.leave()?;
        while watch.read(&mut self.buffers, &self.clock, hear)? {}
        self.gone.add(&watch.counts());
        // The descriptors leave epoll as they are closed.
        Ok(())
    }
}
