//! The messages between the two halves of the daemon: one JSON object in each packet of their socket pair.

use serde::{Deserialize, Serialize};

use crate::serve::problem::Problem;
use crate::serve::query::Query;
use crate::settings::Access;

/// The largest packet, in bytes: a query of [`MAX_QUERY`](super::query::MAX_QUERY) bytes, of which JSON writes each in
/// six at most, and what is around it.
pub(crate) const MAX_PACKET: usize = 128 << 10;

/// What the front needs from the back: at its start, and after a change of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// The group whose members see all; none if there is no such group.
    pub(crate) group: Option<u32>,
    /// Who may ask beside root and the group.
    pub(crate) access: Access,
    /// How many clients there may be.
    pub(crate) clients: usize,
    /// How many of them may be of one user; root has no limit of its own.
    pub(crate) per_user: usize,
    /// The epoch, as the header of answers has it.
    pub(crate) epoch: String,
}

/// From the front to the back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The front takes connections.
    Ready,
    /// A client asks. Its connection comes with it: the back itself looks which user the client is.
    Run {
        /// The number of the request.
        id: u64,
        /// The request.
        query: Query,
    },
    /// The client wants the end of the answer now, as with Ctrl-C.
    Finish {
        /// The number of the request.
        id: u64,
    },
    /// The client is gone.
    Leave {
        /// The number of the request.
        id: u64,
    },
    /// The front does its work.
    Alive {
        /// How many clients it has.
        clients: usize,
        /// How many lines clients of shared streams lost since the last such message.
        lines_lost: u64,
    },
}

/// From the back to the front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// First of all. The socket for clients comes with it, and behind it those of addresses.
    Setup(Setup),
    /// Three descriptors come with it: standard output and standard error of the command, and a pipe that ends or has a
    /// byte when the command is ready.
    Started {
        /// The number of the request.
        id: u64,
        /// The stream outlives the daemon.
        is_kept: bool,
    },
    /// The request is refused.
    Refused {
        /// The number of the request.
        id: u64,
        /// The status of HTTP.
        status: u16,
        /// Why.
        problem: Problem,
    },
    /// The command has ended.
    Ended {
        /// The number of the request.
        id: u64,
        /// Its exit status; 128 and the number of the signal that ended it.
        code: u8,
    },
    /// Asks for [`Request::Alive`].
    Ask,
}
