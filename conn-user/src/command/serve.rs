//! `conntrace serve`: the daemon. It counts from its first start on, and answers clients.

use std::fmt::Write as _;
use std::path::Path;

use crate::cli::FrontArgs;
use crate::error::Error;
use crate::host::facts::Host;
use crate::host::lookup::HostLookup;
use crate::kernel::load_options::{Options, RemoteOptions};
use crate::kernel::pin::{self, Opened, PinSettings, Removed};
use crate::output::stdout;
use crate::serve;
use crate::settings::ServeSettings;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub fn run(typed: &ServeSettings, host: &Host) -> Result<(), Error> {
    let settings = &serve::configured(typed, &HostLookup::new(host))?;
    if settings.check {
        let warnings = serve::check(settings)?;
        let mut text = format!("{}: no mistakes\n", settings.config.display());
        for warning in warnings {
            // Writing into a string does not fail.
            _ = writeln!(text, "warning: {warning}");
        }
        for rule in &settings.rules {
            // Writing into a string does not fail.
            _ = writeln!(text, "{rule}");
        }
        return stdout::print(text);
    }
    if settings.detach {
        return detach(&settings.pins);
    }
    // One daemon at a time, before it loads programs.
    let socket = serve::open(settings)?;
    let pins = PinSettings { root: settings.pins.clone(), transient: settings.transient };
    let options = Options {
        durations: settings.lifetimes,
        remotes: settings.sources.map(|group| RemoteOptions { by: group.number(), slots: None }),
        ..Options::counting()
    };
    let service = pin::open(host, &options, &pins)?;
    log_opened(&service.how);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { context: "starting the event loop".into(), source })?
        .block_on(serve::run(typed, settings, host, &service, &socket))
}

/// Takes the pins away, and prints what was taken.
fn detach(point: &Path) -> Result<(), Error> {
    let removed = pin::detach(point)?;
    let Removed { links, programs, maps, left } = &removed;
    let mut text = format!("removed {links} links, {programs} programs and {maps} maps\n");
    for path in left {
        // Writing into a string does not fail.
        _ = writeln!(text, "left {}: conntrace did not make it", path.display());
    }
    stdout::print(text)
}

/// Logs how the daemon came to its programs.
fn log_opened(how: &Opened) {
    match how {
        Opened::New { why: None } => log::info!("counting begins"),
        Opened::New { why: Some(why) } => log::warn!("counting begins anew: {why}"),
        Opened::TakenOver => log::info!("the programs of the last daemon go on"),
        Opened::Replaced => {
            log::info!("the programs of the last daemon are replaced, and their counts go on");
        }
        Opened::Transient => log::info!("nothing is pinned: the counts end with the daemon"),
        Opened::Unpinned { why } => log::warn!("nothing is pinned, so the counts end with the daemon: {why}"),
    }
}

/// Runs the half of the daemon that speaks to clients.
///
/// # Errors
/// See [`Error`].
pub fn front(args: &FrontArgs) -> Result<(), Error> {
    serve::front::run(args)
}

/// Runs the process of the daemon that sends its metrics by OTLP.
///
/// # Errors
/// See [`Error`].
pub fn export(args: &FrontArgs) -> Result<(), Error> {
    serve::otlp::export::run(args.user, args.group)
}
