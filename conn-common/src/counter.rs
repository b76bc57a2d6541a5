//! The self counters of the kernel programs, per CPU.

/// Cells of the map of counters. Those beyond [`COUNT`] are reserved: a counter that is added later does not change the
/// map.
pub const CELLS: usize = 32;

/// Names the cells of the self counters and their text.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $at:literal, $text:literal;)*) => {
        $($(#[$doc])* pub const $name: u32 = $at;)*
        /// How many counters there are.
        pub const COUNT: usize = [$($at as u32),*].len();
        const _: () = assert!(COUNT <= CELLS);
        /// Stable names, by cell.
        pub const NAMES: [&str; COUNT] = [$($text),*];
    };
}

counters! {
    /// Events written into the ring.
    PRODUCED = 0, "events_produced";
    /// Events that found the ring full.
    LOST = 1, "events_lost";
    /// There was no memory for a socket's state, or no scratch slot to work in; the next hook tries again.
    STORAGE_FAILED = 2, "storage_failed";
    /// A ledger slot could not be created; its step was counted in the unattributed slot.
    LEDGER_FAILED = 3, "ledger_failed";
    /// A namespace's totals could not be created; the step is missing there.
    NETNS_FAILED = 4, "netns_failed";
    /// A state that differed from the remembered one: a step in between was missed and made good.
    STEP_REPAIRED = 5, "steps_repaired";
    /// A connection first seen in the middle of its life, after the start snapshot.
    ADOPTED_LATE = 6, "adopted_late";
    /// A CLOSE that only the destruction of the socket showed.
    CLOSED_LATE = 7, "closed_late";
    /// `bpf_sock_ops_cb_flags_set` refused: this socket has one hook less.
    FLAGS_FAILED = 8, "flags_failed";
    /// Wake-ups of the reader.
    WAKEUPS = 9, "wakeups";
    /// A call of a hook that matters but has no full TCP socket: the hook could not do its work.
    NO_SOCKET = 10, "no_socket";
    /// An owner could not be noted: the connection keeps the one it has, or none.
    OWNER_FAILED = 11, "owner_failed";
    /// A histogram could not be created; the duration is missing there.
    SPANS_FAILED = 12, "spans_failed";
    /// A socket began at the address of another, whose end no hook saw. The audit repairs the count.
    END_UNSEEN = 13, "ends_unseen";
    /// A step of a socket without a kept state: counted and shown from what the socket itself shows.
    STEP_STATELESS = 14, "steps_stateless";
    /// A socket's state that found no way in the table: it is kept where a hook works slower.
    STATE_OVERFLOWED = 15, "states_overflowed";
    /// A step that was counted in a slot behind the table: the way of its port was taken. It took longer.
    LEDGER_OVERFLOWED = 16, "ledger_overflowed";
    /// A duration that was counted with those of other ports: all histograms of ports were taken.
    SPANS_SHARED = 17, "spans_shared";
    /// UDP packets that are counted in no flow: the table had no room. Each segment counts.
    PACKETS_UNTRACKED = 18, "packets_untracked";
    /// The payload bytes of these packets.
    BYTES_UNTRACKED = 19, "bytes_untracked";
    /// Sockets whose close could not be noted: their flows end by idle time.
    CLOSES_UNNOTED = 20, "closes_unnoted";
}

/// The counters of failures: while one of them is not 0, an event, a count or an owner may be missing or wrong.
pub const FAILURES: [u32; 10] = [
    STORAGE_FAILED,
    STEP_STATELESS,
    LEDGER_FAILED,
    NETNS_FAILED,
    FLAGS_FAILED,
    NO_SOCKET,
    OWNER_FAILED,
    SPANS_FAILED,
    PACKETS_UNTRACKED,
    CLOSES_UNNOTED,
];

#[cfg(test)]
mod tests {
    #[test]
    fn cells_are_dense() {
        assert_eq!(super::COUNT, super::CLOSES_UNNOTED as usize + 1);
    }
}
