//! `conntrace list -p unix`: the Unix domain sockets that exist now, in all network namespaces, with the processes that have
//! them.

use conn_common::connection::{Connection, UNDIRECTED};

use crate::command::hint;
use crate::error::Error;
use crate::event::kind::Kind;
use crate::event::unix::UnixSocket;
use crate::filter::expression::Field;
use crate::filter::sockets::wanted;
use crate::filter::visible;
use crate::host::facts::Host;
use crate::host::plan::plan;
use crate::kernel::load_options::Options;
use crate::kernel::probe::Probe;
use crate::kernel::sockets::{self, Holders};
use crate::output::{stderr, stdout, terminal};
use crate::render::style::Format;
use crate::render::unix_list::UnixList;
use crate::settings::ListSettings;
use crate::stream::notice::Notice;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub(super) fn run(settings: &ListSettings, host: &Host) -> Result<(), Error> {
    settings.filter.log(&[Kind::Open], settings.protocols);
    let probe = Probe::load(&plan(host, None)?, &Options::for_unix())?;
    probe.load_programs(&sockets::listing_programs(settings.protocols, true))?;
    probe.release_btf();
    let (found, holders) = sockets::namespaces_and_holders(&probe)?;
    if found.denied && !host.may_look_everywhere() {
        log::warn!(
            "conntrace may not read the network namespaces of some processes: sockets there are missing"
        );
    }
    let (all, walked) = sockets::unix(&probe, &found, &holders)?;
    walked.warn("sockets there are missing");
    let mut shown: Vec<_> = all.iter().filter_map(|socket| chosen(socket, settings, &holders)).collect();
    // Those without an address come last.
    let key = |socket: &UnixSocket| (socket.name.is_empty(), socket.name.clone(), socket.inode);
    shown.sort_by_cached_key(key);
    let list = UnixList::new(&shown, &all);
    match settings.style.format {
        Format::Json => stdout::print(list.json())?,
        Format::Csv => stdout::print(list.csv(settings.style.header))?,
        _ => {
            let terminal = terminal::probe(settings.style.color);
            stdout::print(list.text(settings.style.header, terminal))?;
        }
    }
    hint::of_namespaces(&settings.filter).into_iter().for_each(stderr::print);
    stderr::print(Notice::Shown { count: shown.len() as u64, noun: "sockets" });
    if settings.exit_code && shown.is_empty() {
        return Err(Error::NothingFound);
    }
    Ok(())
}

/// The socket with the first of its processes that passes; `None` if the run does not want the socket.
fn chosen(socket: &UnixSocket, settings: &ListSettings, holders: &Holders) -> Option<UnixSocket> {
    let filter = &settings.filter;
    let asks_for_states =
        filter.asks_for_state(socket.state) || filter.asks_for(|field| field == Field::State);
    if !asks_for_states && socket.is_unconnected() != settings.listening {
        return None;
    }
    let connection =
        Connection { netns: socket.netns, state: socket.state, direction: UNDIRECTED, ..Connection::UNSEEN };
    let holders = visible::holders(holders.of_inode(socket.inode.into()), filter.viewer());
    // Without a user, no process comes first.
    let uid = socket.uid.unwrap_or(u32::MAX);
    let found = wanted(connection, uid, holders.as_deref(), |connection| filter.matches(connection))?;
    Some(UnixSocket { owner: found.owner, ..socket.clone() })
}
