//! Names of addresses, for `--resolve`, from `/etc/hosts` and DNS.
//!
//! No line waits for DNS: a line shows the names in the cache. A thread looks up missing names for the next line.
//!
//! The owner of an address controls the address's name in DNS. So only host names are shown, none that looks like an
//! address, and a name that does not lead back to the address is marked.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use domain::base::Name;
use domain::resolv::StubResolver;
use lru::LruCache;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::event::enriched::Enriched;

/// The host's own table, hosts(5).
const HOSTS: &str = "/etc/hosts";
/// How long a command that knows all addresses before it prints waits for their names.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(2);
/// How many addresses the cache holds, the last seen ones.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
/// The most questions under way. A further question waits for a later line.
const UNDER_WAY: usize = 32;
/// How long a question may take, whatever `/etc/resolv.conf` says.
const GIVE_UP: Duration = Duration::from_secs(30);
/// An address is asked for again after this time, whether it has a name or not.
const VALID: Duration = Duration::from_secs(300);

/// How many names of one address are tried.
const MAX_TRIED: usize = 4;
/// What stands behind a name that does not lead back to its address. No host name has the character.
const UNCONFIRMED: char = '?';
/// The longest name and the longest label, bytes (RFC 1035).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// The name of an address, as DNS has it.
struct Answer {
    address: IpAddr,
    name: Option<Arc<str>>,
}

/// The entry of an address in the cache.
struct Known {
    name: Option<Arc<str>>,
    /// When to ask again; `None` while a question is under way.
    until: Option<Instant>,
}

/// Finds names.
pub(crate) struct Resolver {
    hosts: HashMap<IpAddr, Arc<str>>,
    known: LruCache<IpAddr, Known>,
    /// To the thread that asks DNS; `None` if there is none.
    questions: Option<UnboundedSender<IpAddr>>,
    answers: Receiver<Answer>,
    under_way: usize,
}

impl Resolver {
    /// Reads this host's configuration, `/etc/hosts` and `/etc/resolv.conf`.
    pub(crate) fn start() -> Self {
        let (sender, answers) = channel();
        let questions = match serve(sender) {
            Ok(questions) => Some(questions),
            Err(error) => {
                log::warn!("--resolve uses {HOSTS} only: {error}");
                None
            }
        };
        let hosts = fs::read(HOSTS).map(|text| hosts(&String::from_utf8_lossy(&text))).unwrap_or_default();
        Self { hosts, known: LruCache::new(REMEMBERED), questions, answers, under_way: 0 }
    }

    /// Fills in the names that the cache has, and asks for the others.
    pub(crate) fn name(&mut self, event: &mut Enriched) {
        event.src_name = self.known(event.src());
        event.dst_name = self.known(event.dst());
    }

    /// Waits for the names of events, at most [`MAX_WAIT`], and fills them in.
    pub(crate) fn name_all(&mut self, events: &mut [Enriched]) {
        let deadline = Instant::now() + MAX_WAIT;
        let mut wanted: Vec<IpAddr> = events.iter().flat_map(|event| [event.src(), event.dst()]).collect();
        wanted.sort_unstable();
        wanted.dedup();
        loop {
            while let Some(&address) = wanted.last()
                && self.under_way < UNDER_WAY
            {
                self.known(address);
                wanted.pop();
            }
            if self.under_way == 0 {
                break;
            }
            match self.answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(answer) => self.learn(answer),
                Err(_) => break,
            }
        }
        for event in events {
            self.name(event);
        }
    }

    /// The name of an address, if the cache has it. Asks for a name that is missing or out of date.
    fn known(&mut self, address: IpAddr) -> Option<Arc<str>> {
        if let Some(name) = self.hosts.get(&address) {
            return Some(Arc::clone(name));
        }
        while self.under_way > 0
            && let Ok(answer) = self.answers.try_recv()
        {
            self.learn(answer);
        }
        let known = self.known.get(&address);
        let name = known.and_then(|known| known.name.clone());
        // A name that is out of date is shown until the new answer comes.
        let due = known.is_none_or(|known| known.until.is_some_and(|until| until <= Instant::now()));
        if due && self.under_way < UNDER_WAY && !address.is_unspecified() && self.ask(address) {
            self.known.put(address, Known { name: name.clone(), until: None });
        }
        name
    }

    /// Asks for a name. False if no thread asks DNS.
    fn ask(&mut self, address: IpAddr) -> bool {
        let asked = self.questions.as_ref().is_some_and(|questions| questions.send(address).is_ok());
        self.under_way += usize::from(asked);
        asked
    }

    fn learn(&mut self, answer: Answer) {
        self.under_way -= 1;
        let until = Some(Instant::now() + VALID);
        self.known.put(answer.address, Known { name: answer.name, until });
    }
}

/// Starts the thread that asks DNS.
fn serve(answers: Sender<Answer>) -> io::Result<UnboundedSender<IpAddr>> {
    let (questions, asked) = unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new()
        .name("names".into())
        .spawn(move || runtime.block_on(answer(StubResolver::new().into(), asked, answers)))?;
    Ok(questions)
}

/// Answers questions, many at a time, until the resolver is dropped.
async fn answer(resolver: Arc<StubResolver>, mut asked: UnboundedReceiver<IpAddr>, answers: Sender<Answer>) {
    while let Some(address) = asked.recv().await {
        let (resolver, answers) = (Arc::clone(&resolver), answers.clone());
        tokio::spawn(async move {
            let name = look_up(&resolver, address).await;
            // The receiver is gone only at the end.
            let _ = answers.send(Answer { address, name });
        });
    }
}

/// The first name of an address in DNS that leads back to the address; else the first name, with a mark. `None` if DNS has
/// no host name or does not answer.
async fn look_up(resolver: &StubResolver, address: IpAddr) -> Option<Arc<str>> {
    let answer = async {
        let found = resolver.lookup_addr(address).await.ok()?;
        let names: Vec<String> =
            found.iter().filter_map(|name| public_name(&name.to_string())).take(MAX_TRIED).collect();
        for name in &names {
            if leads_to(resolver, name, address).await {
                return Some(name.as_str().into());
            }
        }
        names.first().map(|name| format!("{name}{UNCONFIRMED}").into())
    };
    timeout(GIVE_UP, answer).await.ok()?
}

/// True if an address is among those of a name.
async fn leads_to(resolver: &StubResolver, name: &str, address: IpAddr) -> bool {
    let Ok(name) = name.parse::<Name<Vec<u8>>>() else { return false };
    resolver.lookup_host(&name).await.is_ok_and(|hosts| hosts.iter().any(|host| host == address))
}

/// A host name that DNS may give an address. `localhost` is a name of this host only (RFC 6761).
fn public_name(text: &str) -> Option<String> {
    let name = host_name(text)?;
    let last = name.rsplit('.').next().unwrap_or(name);
    (!last.eq_ignore_ascii_case("localhost")).then(|| name.to_owned())
}

/// A host name without the dot of the root. Refuses what is no host name (RFC 1123, with `_` as in glibc's
/// `res_hnok()`), and what is read as an address: a last label that is a number, `192.0.2.01` and `3232235777` included.
fn host_name(text: &str) -> Option<&str> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or(name);
    let digits = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (name.len() <= MAX_NAME && name.split('.').all(is_label) && !is_number).then_some(name)
}

/// Parses a table: `address name alias… # comment`. The first name of an address counts, as with
/// gethostbyaddr(3).
fn hosts(text: &str) -> HashMap<IpAddr, Arc<str>> {
    let mut names = HashMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let address = words.next().and_then(|word| word.parse().ok());
        if let (Some(address), Some(name)) = (address, words.next().and_then(host_name)) {
            names.entry(address).or_insert_with(|| name.into());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::new_out;

    /// A resolver whose DNS is this test, the receiver of its questions, and the sender of answers.
    fn resolver() -> (Resolver, UnboundedReceiver<IpAddr>, Sender<Answer>) {
        let (answers, receiver) = channel();
        let (questions, asked) = unbounded_channel();
        let resolver = Resolver {
            hosts: hosts("192.0.2.7 laptop.example laptop\n"),
            known: LruCache::new(REMEMBERED),
            questions: Some(questions),
            answers: receiver,
            under_way: 0,
        };
        (resolver, asked, answers)
    }

    fn named(resolver: &mut Resolver) -> [Option<String>; 2] {
        let mut event = new_out();
        resolver.name(&mut event);
        [event.src_name, event.dst_name].map(|name| name.map(|name| name.to_string()))
    }

    #[test]
    fn names_are_asked_once_and_shown_when_answered() {
        let (mut resolver, mut asked, answers) = resolver();
        let laptop = || Some("laptop.example".to_owned());
        assert_eq!(named(&mut resolver), [laptop(), None]);
        assert_eq!(named(&mut resolver), [laptop(), None]);
        // DNS is asked once, and not for a name in the table.
        let address = asked.try_recv().unwrap();
        assert_eq!(address, new_out().dst());
        assert!(asked.try_recv().is_err());
        let answer = |name: Option<&str>| Answer { address, name: name.map(Into::into) };
        answers.send(answer(Some("web.example"))).unwrap();
        assert_eq!(named(&mut resolver), [laptop(), Some("web.example".into())]);
        // A name that is out of date is asked for again, and shown meanwhile.
        resolver.known.get_mut(&address).unwrap().until = Some(Instant::now());
        assert_eq!(named(&mut resolver)[1].as_deref(), Some("web.example"));
        assert_eq!(asked.try_recv(), Ok(address));
        answers.send(answer(None)).unwrap();
        assert_eq!(named(&mut resolver), [laptop(), None]);
        assert!(asked.try_recv().is_err());
    }

    #[test]
    fn questions_under_way_are_bounded() {
        let (mut resolver, mut asked, _answers) = resolver();
        for last in 0..=255 {
            assert_eq!(resolver.known([10, 0, 0, last].into()), None);
        }
        assert_eq!(std::iter::from_fn(|| asked.try_recv().ok()).count(), UNDER_WAY);
        assert_eq!(resolver.known.len(), UNDER_WAY);
    }

    #[test]
    fn malformed_names_are_refused() {
        let table = hosts(
            "# comment\n127.0.0.1 localhost\n127.0.0.1 other\n::1 ip6-localhost # x\n10.0.0.1\nname 10.0.0.2\n\
             10.0.0.3 10.9.9.9\n",
        );
        let name = |address: &str| table.get(&address.parse::<IpAddr>().unwrap()).map(|name| &**name);
        assert_eq!((name("127.0.0.1"), name("::1")), (Some("localhost"), Some("ip6-localhost")));
        assert_eq!(table.len(), 2);
        let long = format!("{}.example", "a".repeat(64));
        let deep = "a.".repeat(127) + "a";
        for refused in [
            "",
            ".",
            "a..b",
            "192.0.2.1",
            "192.0.2.1.",
            "192.0.2.01",
            "192.0.2.1:443",
            "[2001:db8::1]",
            "2001:db8::1",
            "3232235777",
            "0xc0000201",
            "a.0X7f",
            "a.0x",
            "-",
            "-a.example",
            "a-.example",
            "a b.example",
            "a\u{1b}.example",
            r"web\027[2J.example",
            "ä.example",
            "web.example?",
            "a/b",
            "a@b",
            &long,
            &deep,
        ] {
            assert_eq!(host_name(refused), None, "{refused}");
        }
        for name in [
            "a.example",
            "a.example.",
            "A-1.Example",
            "_x.a",
            "1.2.3.4.example",
            "0x.example",
            "xn--bcher-kva.example",
        ] {
            assert_eq!(host_name(name), Some(name.trim_end_matches('.')), "{name}");
        }
        assert_eq!(public_name("localhost"), None);
        assert_eq!(public_name("a.LocalHost."), None);
        assert_eq!(public_name("localhost.example").as_deref(), Some("localhost.example"));
    }
}
