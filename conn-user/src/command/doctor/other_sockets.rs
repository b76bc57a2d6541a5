//! Whether the kernel shows sockets of other protocols than TCP, for `list` and `count`.

use conn_common::name;

use super::Fact;
use crate::filter::Filter;
use crate::filter::protocols::Protocols;
use crate::host::facts::Host;
use crate::host::plan::plan;
use crate::host::refusal::chain;
use crate::kernel::load_options::Options;
use crate::kernel::probe::Probe;
use crate::kernel::sockets;

/// One fact for each protocol.
pub(super) fn facts(host: &Host) -> [Fact; 2] {
    let text = |answer: Result<(), String>| answer.map_or_else(|why| format!("no, {why}"), |()| "yes".into());
    [
        Fact { name: "UDP sockets", value: text(udp(host)) },
        Fact {
            name: "Unix sockets",
            value: text(sockets::may_show_unix().map_err(|error| error.to_string())),
        },
    ]
}

/// Loads the iterator over UDP sockets.
fn udp(host: &Host) -> Result<(), String> {
    let plan = plan(host, None).map_err(|error| chain(&error))?;
    let options = Options::for_sockets(&Filter::all(), Protocols::UDP, true);
    let probe = Probe::load(&plan, &options).map_err(|error| chain(&error))?;
    probe.load_programs(&[name::UDP_LIST]).map_err(|error| chain(&error))
}
