//! The watch over one network namespace: its groups of messages, its dumps, and the flows that are alive there.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use conn_common::connection::FORWARD;
use conn_common::owner::Owner;

use super::account::{Account, Verdict};
use super::addresses::Addresses;
use super::counts::Counts;
use super::dump::{Dumper, Progress};
use super::group::Group;
use super::lives::{Life, Lives};
use super::order;
use super::plan::{Hear, Heard, Plan, Scope};
use super::socket::PAGE;
use super::table::TableFacts;
use super::tables::open;
use crate::event::Event;
use crate::event::entry::{Change, Entry, Failures, Reading};
use crate::event::kind::Kind;
use crate::event::lost::{Lost, LostGroup};
use crate::event::tracked::TimeSource;
use crate::host::clock::{WallClock, boot_now_ns};

/// How many messages about ends are read at a time.
const MOST: usize = 1 << 9;
/// The same of others: an end that was read must not come before the beginning and the changes of its flow.
const MOST_BEFORE: usize = 1 << 16;
/// How long one namespace may keep all others waiting at the start of its watch, at its end, and for an account.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How often a table that contradicts the messages is counted again, and after how long. Only what stays is a difference.
const COUNTS_AGAIN: u32 = 3;
const COUNT_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How long pages of a dump are read at a time, or as long as messages were: a flood of messages delays no dump without end.
const DUMP_SLICE: Duration = Duration::from_millis(2);

/// The dump under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DumpState {
    /// There is none.
    Idle,
    /// Pages follow.
    Running { interrupted: bool },
    /// All pages were read, and messages from before may wait.
    Settling { interrupted: bool },
}

/// The watch over one network namespace.
#[derive(Debug)]
pub(super) struct Watch {
    netns: u32,
    plan: Plan,
    groups: [Option<Group>; 3],
    dumper: Dumper,
    /// The kernel's counters of failures when the watch began.
    failures: Failures,
    dump: DumpState,
    addresses: Addresses,
    lives: Lives,
    /// Flows whose end a dump found and that are not shown yet.
    unseen: Vec<Life>,
    /// There were entries when the watch began.
    has_entries: bool,
    found: u64,
    unwanted: u64,
}

/// Memory that all watches share.
#[derive(Debug)]
pub(super) struct Buffers {
    /// One read.
    pub page: Vec<u8>,
    /// One batch of messages.
    pub batch: Vec<(Change, Entry)>,
}

impl Watch {
    /// Begins to watch the network namespace of the calling thread, whose inode number is `netns`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn open(netns: u32, plan: Plan) -> io::Result<Self> {
        let now_ns = boot_now_ns();
        let facts = TableFacts::probe();
        let join =
            |change: Change| plan.joins(change).then(|| Group::join(change, plan.buffer, now_ns)).transpose();
        let [new, update, destroy] = Change::ALL.map(join);
        let dumper = Dumper::open()?;
        let failures = dumper.failures(&mut vec![0; PAGE])?;
        Ok(Self {
            netns,
            plan,
            groups: [new?, update?, destroy?],
            dumper,
            failures,
            dump: DumpState::Idle,
            addresses: Addresses::open()?,
            lives: Lives::default(),
            unseen: Vec::new(),
            has_entries: facts.is_some_and(|facts| facts.count > 0),
            found: 0,
            unwanted: 0,
        })
    }

    /// True if there were entries when the watch began, or a message came.
    pub(super) fn tracks(&self) -> bool {
        self.has_entries || self.groups.iter().flatten().any(|group| group.received > 0)
    }

    /// The descriptors that become readable.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let groups = self.groups.iter().flatten().map(|group| group.as_fd());
        groups.chain([self.addresses.as_fd()])
    }

    /// The counts by now.
    pub(super) fn counts(&self) -> Counts {
        let of = |part: fn(&Group) -> u64| {
            let mut numbers = [0; 3];
            for (number, group) in numbers.iter_mut().zip(&self.groups) {
                *number = group.as_ref().map_or(0, part);
            }
            numbers
        };
        Counts {
            received: of(|group| group.received),
            lost: of(|group| group.losses.lost),
            uncounted: of(|group| group.losses.uncounted).iter().sum(),
            undecoded: of(|group| group.undecoded).iter().sum(),
            found: self.found,
            unwanted: self.unwanted,
        }
    }

    /// The whole account: every message is counted, whether its flow is in scope or not.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn account(
        &mut self,
        buffers: &mut Buffers,
        clock: &WallClock,
        hear: &mut Hear<'_>,
    ) -> io::Result<Account> {
        // What has expired ends first.
        self.begin_dump()?;
        let is_settled = self.catch_up(buffers, clock, hear)?;
        let mut account = self.compare(is_settled, buffers, clock, hear)?;
        for _ in 0..COUNTS_AGAIN {
            if !matches!(account.verdict(), Verdict::Differs(_)) {
                break;
            }
            // The kernel counts an entry before it reports the beginning, and for a moment after it has reported the end. A
            // packet whose processor is taken away stays in between for longer.
            thread::sleep(COUNT_AGAIN_AFTER);
            account = self.compare(is_settled, buffers, clock, hear)?;
        }
        Ok(account)
    }

    /// Compares what was counted with the table.
    fn compare(
        &mut self,
        is_settled: bool,
        buffers: &mut Buffers,
        clock: &WallClock,
        hear: &mut Hear<'_>,
    ) -> io::Result<Account> {
        let before = self.counts();
        let [tracked, max] = self.dumper.entries(&mut buffers.page)?;
        self.read(buffers, clock, hear)?;
        let after = self.counts();
        let failures = self.dumper.failures(&mut buffers.page)?;
        let account = Account {
            netns: self.netns,
            begun: [before, after].map(|counts| counts.sent(Change::New)),
            ended: [before, after].map(|counts| counts.sent(Change::Destroy)),
            lost: [Change::New, Change::Destroy].map(|change| after.lost[change as usize]),
            preexisting: self.lives.preexisting,
            ended_unseen: self.lives.ended_unseen,
            silent: self.lives.silent(),
            tracked,
            max,
            failures: failures.since(self.failures),
            is_settled,
        };
        Ok(account.without_lost_ends())
    }

    /// Reads until nothing waits and no dump is under way. A flood of the owner of a namespace never ends, so this reads for
    /// [`CATCH_UP`] at most, and to the last page of a dump. True if nothing was left.
    ///
    /// # Errors
    /// A socket cannot be read any more.
    pub(super) fn catch_up(
        &mut self,
        buffers: &mut Buffers,
        clock: &WallClock,
        hear: &mut Hear<'_>,
    ) -> io::Result<bool> {
        let begin = Instant::now();
        while self.read(buffers, clock, hear)? || self.is_dumping() {
            let is_paged = !matches!(self.dump, DumpState::Running { .. });
            if is_paged && begin.elapsed() >= CATCH_UP {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// True if a dump is under way, so that another read is worthwhile at once.
    pub(super) fn is_dumping(&self) -> bool {
        self.dump != DumpState::Idle || !self.unseen.is_empty()
    }

    /// Begins a dump, unless one is under way.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn begin_dump(&mut self) -> io::Result<()> {
        if !self.is_dumping() {
            self.lives.begin_dump(boot_now_ns());
            self.dumper.begin()?;
            self.dump = DumpState::Running { interrupted: false };
        }
        Ok(())
    }

    /// Leaves all groups. What came before stays to be read.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn leave(&self) -> io::Result<()> {
        self.groups.iter().flatten().try_for_each(Group::leave)
    }

    /// Reads what waits, up to a limit. True if more may wait.
    ///
    /// # Errors
    /// A socket cannot be read any more.
    pub(super) fn read(
        &mut self,
        buffers: &mut Buffers,
        clock: &WallClock,
        hear: &mut Hear<'_>,
    ) -> io::Result<bool> {
        let Buffers { page, batch } = buffers;
        let begin = Instant::now();
        batch.clear();
        self.addresses.refresh(page)?;
        self.lives.begin_read();
        let mut empty = [true; 3];
        // Ends first: the beginning of each is in its socket by then, and is read after it.
        for change in [Change::Destroy, Change::Update, Change::New] {
            if let Some(group) = &mut self.groups[change as usize] {
                let most = if change == Change::Destroy { MOST } else { MOST_BEFORE };
                empty[change as usize] = group.drain(most, page, batch)?.empty;
            }
        }
        if !batch.is_empty() {
            hear(Heard::Read);
        }
        let now_ns = boot_now_ns();
        for change in [Change::New, Change::Destroy] {
            if self.groups[change as usize].as_ref().map(Group::is_lossy).transpose()? == Some(true) {
                self.lives.lose(change == Change::New);
            }
        }
        let lives = &mut self.lives;
        order::sort(batch, |entry| lives.key(entry), |key| lives.has(key));
        if self.plan.dumps() {
            // Before the ends, so that an end with two flows to choose from is seen as such.
            for (_, entry) in batch.iter().filter(|(change, _)| *change == Change::New) {
                lives.begin(lives.key(entry), now_ns);
            }
        }
        for (change, entry) in &*batch {
            self.take(*change, entry, now_ns, clock, hear);
        }
        for change in Change::ALL {
            if let Some(group) = self.groups[change as usize].as_mut().filter(|_| empty[change as usize])
                && let Some(lost) = group.look(now_ns)?
            {
                let of = Some(LostGroup { kind: change.kind(), netns: self.netns });
                if change != Change::Update {
                    self.lives.lose(change == Change::New);
                }
                hear(Heard::Lost(Lost { of, ..lost }));
            }
        }
        let ends_are_read = empty[Change::Destroy as usize];
        self.unseen.extend(self.lives.end_read(ends_are_read));
        let slice = DUMP_SLICE.max(begin.elapsed());
        self.go_on_dumping(page, slice, ends_are_read, clock, hear)?;
        // A few at a time: each is a line that has to be written.
        for life in self.unseen.split_off(self.unseen.len().saturating_sub(MOST)) {
            self.show_unseen_end(&life, clock, hear);
        }
        Ok(empty != [true; 3])
    }

    /// Takes one message.
    fn take(&mut self, change: Change, entry: &Entry, now_ns: u64, clock: &WallClock, hear: &mut Hear<'_>) {
        let key = self.lives.key(entry);
        let life = if change == Change::Destroy { self.lives.end(key) } else { None };
        let is_wanted = self.plan.kinds.contains(change.kind());
        let begins = change == Change::New && self.plan.owners;
        let is_in_scope = (is_wanted || begins) && self.is_in_scope(entry);
        let mut event = is_in_scope.then(|| self.event(change.kind(), entry, life.as_ref(), now_ns, clock));
        if begins {
            let owner = event.as_mut().and_then(|event| named(event, hear));
            self.lives.name(key, owner);
        } else if let Some(event) = &mut event
            && self.plan.owners
        {
            let ended = life.and_then(|life| life.owner);
            set_owner(event, if change == Change::Update { self.lives.owner(key) } else { ended });
        }
        match event {
            Some(mut event) if is_wanted => hear(Heard::Event(&mut event)),
            _ => self.unwanted += 1,
        }
    }

    fn is_in_scope(&self, entry: &Entry) -> bool {
        self.plan.scope == Scope::All || self.addresses.direction(entry) == FORWARD
    }

    /// The event of an entry, at `now_ns` unless the kernel stamped it.
    fn event(&self, kind: Kind, entry: &Entry, life: Option<&Life>, now_ns: u64, clock: &WallClock) -> Event {
        let boot_ns = |unix_ns: Option<u64>| clock.to_boot_ns(i64::try_from(unix_ns?).ok()?);
        let stamp = match kind {
            Kind::New => entry.happened_unix_ns.or(entry.started_unix_ns),
            Kind::Destroy => entry.stopped_unix_ns.or(entry.happened_unix_ns),
            _ => entry.happened_unix_ns,
        };
        let (stamped_ns, started_ns) = (boot_ns(stamp), boot_ns(entry.started_unix_ns));
        let time_ns = stamped_ns.unwrap_or(now_ns);
        let preexisting = life.is_some_and(|life| life.preexisting);
        let seen_ns = life.map(|life| life.began_ns);
        let known_ns = match kind {
            Kind::New => Some(time_ns),
            _ => started_ns.or(seen_ns.filter(|_| !preexisting)),
        };
        let at_least_ns = seen_ns.filter(|_| preexisting && known_ns.is_none() && kind == Kind::Destroy);
        let is_stamped = stamped_ns.is_some() && (kind != Kind::Destroy || started_ns.is_some());
        entry.event(&Reading {
            netns: self.netns,
            direction: self.addresses.direction(entry),
            kind,
            time_ns,
            began_ns: known_ns,
            preexisting,
            at_least_ns: at_least_ns.map(|since_ns| time_ns.saturating_sub(since_ns)),
            clock: if is_stamped { TimeSource::Kernel } else { TimeSource::Reading },
        })
    }

    /// Reads pages of the dump for about `slice`. `ends_are_read`: no message about an end waits.
    fn go_on_dumping(
        &mut self,
        page: &mut [u8],
        slice: Duration,
        ends_are_read: bool,
        clock: &WallClock,
        hear: &mut Hear<'_>,
    ) -> io::Result<()> {
        match self.dump {
            DumpState::Running { mut interrupted } => {
                let begin = Instant::now();
                let Self { netns, dumper, lives, plan, addresses, .. } = self;
                let mut note = |entry: &Entry| {
                    let direction = addresses.direction(entry);
                    let is_shown = plan.scope == Scope::All || direction == FORWARD;
                    lives.note(entry, is_shown, || {
                        let names = plan.owners && is_shown;
                        names.then(|| named(&mut open(entry, *netns, direction, clock), hear)).flatten()
                    });
                };
                loop {
                    match dumper.page(page, &mut interrupted, &mut note)? {
                        Progress::More if begin.elapsed() < slice => {}
                        Progress::More => {
                            self.dump = DumpState::Running { interrupted };
                            break;
                        }
                        Progress::Done { interrupted } => {
                            self.dump = DumpState::Settling { interrupted };
                            break;
                        }
                    }
                }
            }
            // A dump that may lack entries ends no flow.
            DumpState::Settling { interrupted: true } => self.dump = DumpState::Idle,
            DumpState::Settling { interrupted: false } if ends_are_read => {
                self.dump = DumpState::Idle;
                self.unseen.extend(self.lives.end_dump());
            }
            DumpState::Idle | DumpState::Settling { .. } => {}
        }
        Ok(())
    }

    /// Shows the end of a flow that no message reported, if the run shows such ends.
    fn show_unseen_end(&mut self, life: &Life, clock: &WallClock, hear: &mut Hear<'_>) {
        let Some(entry) = life.entry.as_deref().filter(|_| self.plan.kinds.contains(Kind::Destroy)) else {
            return;
        };
        // What changes until the end is not known.
        let entry = Entry { timeout_s: None, tcp_state: None, sctp_state: None, counters: None, ..*entry };
        let mut event = self.event(Kind::Destroy, &entry, Some(life), boot_now_ns(), clock);
        set_owner(&mut event, life.owner.clone());
        self.found += 1;
        hear(Heard::Event(&mut event));
    }
}

/// The owner of a flow that begins, or is from before the run, as the hearer fills it in.
fn named(event: &mut Event, hear: &mut Hear<'_>) -> Option<Box<Owner>> {
    hear(Heard::Begun(event));
    let owner = event.connection.owner;
    owner.is_known().then(|| Box::new(owner))
}

fn set_owner(event: &mut Event, owner: Option<Box<Owner>>) {
    if let Some(owner) = owner {
        event.connection.owner = *owner;
    }
}
