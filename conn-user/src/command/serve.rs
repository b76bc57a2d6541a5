//! `conntrace serve`: the daemon. It counts from its start to its end.

use crate::error::{Error, UsageError};
use crate::host::facts::Host;
use crate::kernel::load_options::Options;
use crate::kernel::session::Session;
use crate::settings::ServeSettings;
use crate::stream::ready::Ready;
use crate::stream::shutdown::Shutdown;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub fn run(settings: &ServeSettings, host: &Host) -> Result<(), Error> {
    if settings.detach {
        let complaint = "nothing is pinned by this version, so there is nothing to take away";
        return Err(UsageError::conflict("--detach", complaint).into());
    }
    if !settings.transient {
        log::debug!("nothing is pinned below {}: the counts end with the daemon", settings.pins.display());
    }
    let session = Session::start(host, &Options::counting())?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { context: "starting the event loop".into(), source })?
        .block_on(serve(&session))
}

/// Counts until a signal.
async fn serve(_session: &Session) -> Result<(), Error> {
    let mut shutdown = Shutdown::new(None)?;
    Ready::take().signal();
    shutdown.wait().await;
    Ok(())
}
