//! Counts that survive the daemon: pins below a bpf file system of the test's own.

mod capabilities;
mod choices;
mod directory;
mod flaws;
mod harm;
mod survive;

use conn_tests::{
    pins::{ANEW, UNPINNED},
    tracer::Tracer,
};

/// The reason why a daemon does not go on with the pins.
fn anew(daemon: &Tracer) -> String {
    daemon.await_stderr("why counting begins anew", |line| line.contains(ANEW))
}

/// The reason why a daemon pins nothing.
fn unpinned(daemon: &Tracer) -> String {
    daemon.await_stderr("why nothing is pinned", |line| line.contains(UNPINNED))
}
