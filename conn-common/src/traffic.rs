//! The traffic of a socket, as the programs read it at the end of a connection and when they list sockets.

/// Figures of one socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Traffic {
    /// Payload bytes sent, retransmissions not counted twice.
    pub bytes_sent: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Segments sent, those without payload and retransmissions included.
    pub segments_sent: u32,
    /// Segments received.
    pub segments_received: u32,
    /// Segments retransmitted.
    pub retransmits: u32,
    /// Smoothed round trip time, microseconds; 0 if never measured.
    pub srtt_us: u32,
    /// Shortest round trip of the last minutes, microseconds; 0 if never measured.
    pub min_rtt_us: u32,
    /// Bytes that wait for the process; for a listener, connections that wait to be accepted.
    pub receive_queue: u32,
    /// Bytes sent and not acknowledged, or not sent yet; for a listener, how many may wait (the backlog). In the record of
    /// an event the socket's mark, if the run asks for it.
    pub send_queue: u32,
    /// For how long no payload was sent or received, in ticks; since the connection was established if there was none.
    /// Undefined before that.
    pub idle_jiffies: u32,
}

impl Traffic {
    /// No traffic.
    pub const NONE: Self = Self {
        bytes_sent: 0,
        bytes_received: 0,
        segments_sent: 0,
        segments_received: 0,
        retransmits: 0,
        srtt_us: 0,
        min_rtt_us: 0,
        receive_queue: 0,
        send_queue: 0,
        idle_jiffies: 0,
    };

    /// The traffic of a flow of datagrams: packets and payload bytes, sent and received. A flow has neither round trips nor
    /// retransmissions: the upper halves of packets take their fields.
    #[inline(always)]
    pub const fn of_packets(packets: [u64; 2], bytes: [u64; 2]) -> Self {
        Self {
            bytes_sent: bytes[0],
            bytes_received: bytes[1],
            segments_sent: packets[0] as u32,
            segments_received: packets[1] as u32,
            retransmits: (packets[0] >> 32) as u32,
            srtt_us: (packets[1] >> 32) as u32,
            ..Self::NONE
        }
    }

    /// Packets sent and received, of [`Self::of_packets`].
    pub const fn packets(&self) -> [u64; 2] {
        [
            (self.retransmits as u64) << 32 | self.segments_sent as u64,
            (self.srtt_us as u64) << 32 | self.segments_received as u64,
        ]
    }
}

const _: () = assert!(size_of::<Traffic>() == 48);
