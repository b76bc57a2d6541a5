//! The options of `serve`.

use std::path::PathBuf;

use clap::Args;

pub(super) const EXAMPLES: &str = "\
Examples:
  conntrace serve                       counts, and answers on its socket, until Ctrl-C
  conntrace serve --transient           takes its kernel programs away at the end
  conntrace serve --socket /tmp/c.sock  another socket
  curl --unix-socket /run/conntrace/conntrace.sock 'http://conntrace/v1/count?dport=443'
";

/// The options of `serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// The socket for clients, at an absolute path [default: /run/conntrace/conntrace.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Pin nothing: the kernel programs and their counts end with the daemon
    #[arg(long)]
    pub transient: bool,
    /// Pin kernel programs and counts below this directory of a BPF file system [default: /sys/fs/bpf/conntrace]
    #[arg(long, value_name = "DIR", conflicts_with = "transient")]
    pub bpffs: Option<PathBuf>,
    /// Take away what an earlier daemon has pinned, and end
    #[arg(long, conflicts_with_all = ["transient", "socket"])]
    pub detach: bool,
}
