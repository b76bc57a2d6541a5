//! The options of `count`.

use clap::{Args, ValueEnum};

use crate::cli::FilterArgs;
use crate::render::number_table::TableFormat;

pub(super) const EXAMPLES: &str = "\
Examples:
  conntrace count                       open TCP connections, one number
  conntrace -C --dport 80               those with service port 80
  conntrace count --by port,state       a table, by service port and state
  conntrace count --by peer --top 10    the ten hosts with most connections
  conntrace count --by container        connections of each container; also unit, pid, comm
  conntrace count --netns .             those of this network namespace only
  conntrace count -p tcp,udp            with the UDP sockets that have a peer
  conntrace count --state listening --dport 80 --exit-code
                                        status 1 if nothing listens on port 80
";

/// The options of `count`.
#[derive(Clone, Debug, Default, Args)]
pub struct CountArgs {
    /// Group the count by one or more of these keys: a table, the largest group first
    #[arg(
        long,
        value_name = "port|state|direction|netns|src|dst|peer|comm|pid|uid|container|unit",
        value_delimiter = ',',
        hide_possible_values = true
    )]
    pub by: Vec<Group>,
    /// Print only the N largest groups. Standard error counts the others
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub top: Option<String>,
    /// End with status 1 if nothing was found, as grep does, and with status 2 after an error
    #[arg(long)]
    pub exit_code: bool,
    /// Output format [default: table]
    #[arg(
        short,
        long,
        value_name = "table|json|csv",
        default_value = "table",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub output: TableFormat,
    /// Show port numbers instead of service names in tables: 22, not ssh
    #[arg(short, long)]
    pub numeric: bool,
    /// Which connections.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// The keys that `count` groups by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Service port.
    Port,
    /// TCP state.
    State,
    /// Who opened it.
    Direction,
    /// Network namespace, by its inode number.
    Netns,
    /// Address of the initiator.
    Src,
    /// Address of the responder.
    Dst,
    /// Address of the other end.
    Peer,
    /// Name of the process that holds the socket.
    Comm,
    /// Process that holds the socket.
    Pid,
    /// User of that process.
    Uid,
    /// Container of that process.
    Container,
    /// systemd unit of that process.
    Unit,
}

impl Group {
    /// True if the holder of a socket is asked for.
    pub const fn is_owners(self) -> bool {
        self.is_workloads() || matches!(self, Self::Comm | Self::Pid | Self::Uid)
    }

    /// True if the container or the unit of the holder is asked for.
    pub const fn is_workloads(self) -> bool {
        matches!(self, Self::Container | Self::Unit)
    }
}
