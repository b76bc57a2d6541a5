//! The daemon: counts for all users of the host, behind a Unix socket.
//!
//! Two processes share the work. The `back` has the privileges: it counts, and starts commands for clients. The `front`
//! speaks to clients and has no privilege. The front sends typed requests to the back over a socket pair.

mod address;
pub(crate) mod alarm;
pub(crate) mod answers;
mod back;
mod channel;
mod child;
pub mod client;
mod config;
mod confine;
mod count;
mod earlier;
pub mod endpoint;
mod epoch;
mod frame;
pub(crate) mod front;
mod helper;
mod listener;
mod lookout;
mod lookup;
mod media;
mod message;
mod notify;
pub mod openapi;
pub mod otlp;
mod past;
mod peer;
mod places;
pub mod problem;
mod query;
mod reports;
mod state_file;
mod streams;

use std::cell::Cell;
use std::convert::Infallible;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::error::Error;
use crate::host::facts::Host;
use crate::host::lookup::HostLookup;
use crate::host::name_service;
use crate::kernel::pin::Service;
use crate::output::{journal, stderr};
use crate::serve::address::Address;
use crate::serve::alarm::keeper::Keeper;
use crate::serve::back::Back;
use crate::serve::epoch::Epoch;
use crate::serve::helper::Helper;
use crate::serve::listener::Listener;
use crate::serve::lookout::Lookout;
use crate::serve::message::Setup;
use crate::serve::streams::Streams;
use crate::settings::otlp::Otlp;
use crate::settings::rule::Rule;
use crate::settings::{Access, ServeSettings};
use crate::stream::shutdown::Shutdown;

/// The users that the front becomes: the first of these that the host has.
const USERS: [&str; 2] = ["conntrace", "nobody"];
/// The user and the group of `nobody`, on a host without users.
const NOBODY: u32 = 65534;

/// The socket of the daemon. Until it is dropped, no other daemon gets it.
///
/// # Errors
/// Another daemon has it, or the system's answer.
pub(crate) fn open(settings: &ServeSettings) -> Result<Socket, Error> {
    let error = |source| Error::Io { context: format!("looking up the group {}", settings.group), source };
    let group = match settings.group.parse() {
        Ok(number) => Some(number),
        Err(_) => name_service::group(&settings.group).map_err(error)?,
    };
    if group.is_none() {
        let rights = match settings.access {
            Access::Group => "may ask",
            Access::Everyone => "sees all processes",
        };
        log::warn!(
            "there is no group {}: root alone {rights}. Make it with: groupadd --system {0}",
            settings.group
        );
    }
    let listener = Listener::open(&settings.socket, group, settings.access)?;
    for warning in settings.listen.iter().copied().filter_map(address::warning) {
        log::warn!("{warning}");
    }
    let addresses = settings.listen.iter().copied().map(Address::open).collect::<Result<_, _>>()?;
    Ok(Socket { listener, addresses, group })
}

/// The sockets for clients.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: Listener,
    /// The sockets for scrapers.
    addresses: Vec<Address>,
    group: Option<u32>,
}

/// What is to be known of the addresses of a configuration before a start: warnings.
///
/// # Errors
/// This host does not have an address.
pub(crate) fn check(settings: &ServeSettings) -> Result<Vec<String>, Error> {
    settings.listen.iter().try_for_each(|&address| Address::check(address))?;
    Ok(settings.listen.iter().copied().filter_map(address::warning).collect())
}

/// The settings with those of the configuration file. `names`: those of this host.
///
/// # Errors
/// The file cannot be read, or has a mistake.
pub(crate) fn configured(settings: &ServeSettings, names: &HostLookup) -> Result<ServeSettings, Error> {
    config::with_file(settings, names)
}

/// Answers clients until a signal. `typed`: the settings of the command line alone, for the next reading of the
/// configuration file.
///
/// # Errors
/// See [`Error`].
pub(crate) async fn run(
    typed: &ServeSettings,
    settings: &ServeSettings,
    host: &Host,
    service: &Service,
    socket: &Socket,
) -> Result<(), Error> {
    let error = |source| Error::Io { context: "preparing the front".into(), source };
    let mut shutdown = Shutdown::new(None)?;
    let (wanted, requests) = mpsc::unbounded_channel();
    let (reported, reports) = mpsc::unbounded_channel();
    let epoch = Epoch::of(&service.epoch);
    journal::set_epoch(&epoch.header());
    let mut lookout = Lookout::new(service)?;
    let found = USERS.iter().find_map(|user| name_service::local_user(user));
    let back = Back {
        addresses: &socket.addresses,
        lines_lost: Cell::new(0),
        listener: socket.listener.socket.try_clone().map_err(error)?,
        setup: watch::Sender::new(Setup {
            group: socket.group,
            access: settings.access,
            clients: settings.clients,
            per_user: settings.clients_per_user,
            epoch: epoch.header(),
        }),
        epoch: epoch.clone(),
        lifetimes: settings.lifetimes,
        sources: settings.sources,
        names: HostLookup::new(host),
        front_user: found.map_or((NOBODY, NOBODY), |user| (user.id, user.group)),
        verbose: settings.verbose,
        wanted,
        streams: Streams::new(service.pinned.is_some().then_some(&settings.pins)),
    };
    let helper = |command, noun| Helper {
        command,
        noun,
        user: back.front_user.0,
        group: socket.group,
        verbose: settings.verbose,
    };
    let keeper = Keeper {
        socket: settings.socket.clone(),
        sendmail: settings.sendmail.clone(),
        directory: settings.state.clone(),
        helper: helper("watch-rules", "the watch over the rules"),
    };
    let export = otlp::Keeper {
        helper: helper("export-otlp", "the export by OTLP"),
        socket: settings.socket.clone(),
        lifetimes: settings.lifetimes,
        ports: settings.ports.clone(),
        directory: settings.state.clone(),
    };
    let rules = watch::Sender::new(settings.rules.clone());
    let exports = watch::Sender::new(settings.otlp.clone());
    let done = tokio::select! {
        done = back.run(reports) => done,
        never = keeper.run(rules.subscribe()) => match never {},
        never = export.run(exports.subscribe()) => match never {},
        failed = reports::run(settings, service, &epoch, &back.lines_lost, requests, reported) => match failed {
            Ok(never) => match never {},
            Err(error) => Err(error),
        },
        never = reload(typed, settings, &back.names, &back.setup, &rules, &exports) => match never? {},
        never = lookout.run() => match never {},
        () = shutdown.wait() => Ok(()),
    };
    notify::stopping();
    lookout.note();
    done
}

/// Reads the configuration again at each SIGHUP. A file that is wrong changes nothing.
async fn reload(
    typed: &ServeSettings,
    settings: &ServeSettings,
    names: &HostLookup,
    setup: &watch::Sender<Setup>,
    rules: &watch::Sender<Vec<Rule>>,
    exports: &watch::Sender<Option<Otlp>>,
) -> Result<Infallible, Error> {
    let mut hangup = signal(SignalKind::hangup())
        .map_err(|source| Error::Io { context: "waiting for signals".into(), source })?;
    loop {
        hangup.recv().await;
        match config::with_file(typed, names) {
            Ok(new) => {
                let fixed = |of: &ServeSettings| {
                    let ServeSettings { socket, group, pins, state, sendmail, .. } = of.clone();
                    let paths = (socket, group, pins, state, sendmail);
                    let scrapes = (of.listen.clone(), of.ports.clone());
                    (paths, scrapes, of.access, of.transient, of.lifetimes, of.sources)
                };
                if fixed(&new) != fixed(settings) {
                    log::warn!(
                        "socket, listen, ports, group, access, bpffs, transient, lifetimes, sources, state and sendmail \
                         change at the next start"
                    );
                }
                setup.send_modify(|setup| {
                    setup.clients = new.clients;
                    setup.per_user = new.clients_per_user;
                });
                rules.send_if_modified(|rules| {
                    let is_changed = *rules != new.rules;
                    rules.clone_from(&new.rules);
                    is_changed
                });
                exports.send_if_modified(|otlp| {
                    let is_changed = *otlp != new.otlp;
                    otlp.clone_from(&new.otlp);
                    is_changed
                });
                stderr::print("conntrace: the configuration was read again\n");
            }
            Err(error) => {
                log::warn!("the configuration stays: {}", error.report());
            }
        }
    }
}
