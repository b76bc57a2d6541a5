//! conntrack's status of a connection, from what its socket or its flow shows.

use conn_common::cause::Cause;
use conn_common::connection::WAS_ESTABLISHED;
use conn_common::flow::{ASSURED, UNREPLIED};
use conn_common::protocol::{TCP, UDP};
use conn_common::state;

use crate::event::enriched::Enriched;
use crate::event::kind::Kind;

/// True while the responder has said nothing: a SYN is out, or was until its connection failed in
/// silence. A refusal is an answer.
pub(super) fn is_unreplied(event: &Enriched) -> bool {
    if event.protocol == UDP {
        return flow_state(event) == UNREPLIED;
    }
    let connection = &event.connection;
    if !event.is_out() && event.kind != Kind::Attempt {
        return false;
    }
    match event.kind {
        Kind::Attempt => true,
        Kind::Listen | Kind::Closed => false,
        Kind::New | Kind::Update | Kind::Open => connection.state == state::SYN_SENT,
        Kind::Destroy => {
            event.old_state == state::SYN_SENT
                && event.failure().is_some_and(|cause| !matches!(cause, Cause::Refused | Cause::ResetByPeer))
        }
    }
}

/// The state of a flow; at its end the last one.
fn flow_state(event: &Enriched) -> u8 {
    if event.kind == Kind::Destroy { event.old_state } else { event.connection.state }
}

/// True once the connection was established.
pub(super) fn is_assured(event: &Enriched) -> bool {
    if event.protocol == UDP {
        return flow_state(event) == ASSURED;
    }
    let connection = &event.connection;
    connection.is(WAS_ESTABLISHED)
        || connection.state == state::TIME_WAIT
        || (event.protocol == TCP && state::is_open(connection.state) && !state::is_opening(connection.state))
}
