//! `conntrace serve`: the daemon. It counts from its start to its end, and answers clients.

use crate::cli::FrontArgs;
use crate::error::{Error, UsageError};
use crate::host::facts::Host;
use crate::kernel::load_options::Options;
use crate::kernel::session::Session;
use crate::output::stdout;
use crate::serve;
use crate::settings::ServeSettings;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub fn run(typed: &ServeSettings, host: &Host) -> Result<(), Error> {
    let settings = &serve::configured(typed)?;
    if settings.check {
        return stdout::print(format!("{}: no mistakes\n", settings.config.display()));
    }
    if settings.detach {
        let complaint = "nothing is pinned by this version, so there is nothing to take away";
        return Err(UsageError::conflict("--detach", complaint).into());
    }
    if !settings.transient {
        log::debug!("nothing is pinned below {}: the counts end with the daemon", settings.pins.display());
    }
    // One daemon at a time, before it loads programs.
    let socket = serve::open(settings)?;
    let session = Session::start(host, &Options::counting())?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { context: "starting the event loop".into(), source })?
        .block_on(serve::run(typed, settings, host, &session, &socket))
}

/// Runs the half of the daemon that speaks to clients.
///
/// # Errors
/// See [`Error`].
pub fn front(args: &FrontArgs) -> Result<(), Error> {
    serve::front::run(args)
}
