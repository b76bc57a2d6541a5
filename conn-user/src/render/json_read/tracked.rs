//! The members that only lines of flows have.

use std::net::{IpAddr, SocketAddr};

use conn_common::protocol;
use serde::Deserialize;

use super::{ReadError, value};
use crate::event::tracked::{EntryFacts, Icmp, Offload, SctpState, TimeSource, Tracked};

/// Members beside those of every event.
#[derive(Deserialize)]
pub(super) struct TrackedFields {
    #[serde(default)]
    timeout_s: Option<u32>,
    #[serde(default)]
    protocol_number: Option<u8>,
    #[serde(default)]
    reply_src: Option<IpAddr>,
    #[serde(default)]
    reply_sport: Option<u16>,
    #[serde(default)]
    reply_dst: Option<IpAddr>,
    #[serde(default)]
    reply_dport: Option<u16>,
    #[serde(default)]
    mark: Option<u32>,
    #[serde(default)]
    zone: Option<u16>,
    #[serde(default)]
    zone_orig: Option<u16>,
    #[serde(default)]
    zone_reply: Option<u16>,
    #[serde(default)]
    replied: Option<bool>,
    #[serde(default)]
    assured: Option<bool>,
    #[serde(default)]
    offload: Option<String>,
    #[serde(default)]
    sctp_state: Option<String>,
    #[serde(default)]
    icmp_type: Option<u8>,
    #[serde(default)]
    icmp_code: Option<u8>,
    #[serde(default)]
    icmp_id: Option<u16>,
    #[serde(default)]
    reply_icmp_type: Option<u8>,
    #[serde(default)]
    reply_icmp_code: Option<u8>,
    #[serde(default)]
    reply_icmp_id: Option<u16>,
    #[serde(default)]
    time_source: Option<String>,
}

impl TrackedFields {
    /// True of a line of connection tracking.
    pub(super) const fn is_entry(&self) -> bool {
        self.time_source.is_some()
    }

    /// The layer-4 protocol, by its number or its name.
    pub(super) fn protocol(&self, name: Option<&str>) -> Result<u8, ReadError> {
        let by_name = || name.and_then(protocol::from_name);
        self.protocol_number.or_else(by_name).ok_or_else(|| value("protocol", name.unwrap_or("null")))
    }

    /// The facts, but for the packets. `ends` is the original tuple.
    pub(super) fn tracked(&self, ends: [SocketAddr; 2]) -> Result<Tracked, ReadError> {
        let end = |ip: Option<IpAddr>, port: Option<u16>| Some(SocketAddr::new(ip?, port?));
        let reply = end(self.reply_src, self.reply_sport).zip(end(self.reply_dst, self.reply_dport));
        let reversed = [ends[1], ends[0]];
        Ok(Tracked {
            reply: reply.map(<[SocketAddr; 2]>::from).filter(|reply| *reply != reversed),
            mark: self.mark,
            zone: self.zone,
            timeout_s: self.timeout_s,
            packets: None,
            entry: self.entry()?,
        })
    }

    fn entry(&self) -> Result<Option<EntryFacts>, ReadError> {
        let Some(clock) = self.time_source.as_deref() else { return Ok(None) };
        let clock = TimeSource::ALL.into_iter().find(|source| source.name() == clock);
        let clock =
            clock.ok_or_else(|| value("time_source", self.time_source.as_deref().unwrap_or_default()))?;
        let offload = self.offload.as_deref().map(|name| {
            let known = Offload::ALL.into_iter().find(|offload| offload.name() == name);
            known.ok_or_else(|| value("offload", name))
        });
        let sctp = self.sctp_state.as_deref().map(|name| {
            let known = SctpState::all().find(|state| state.name() == name);
            known.ok_or_else(|| value("sctp_state", name))
        });
        let icmp = |kind: Option<u8>, code: Option<u8>, id: Option<u16>| {
            Some(Icmp { kind: kind?, code: code?, id: id? })
        };
        let original = icmp(self.icmp_type, self.icmp_code, self.icmp_id);
        let reply = icmp(self.reply_icmp_type, self.reply_icmp_code, self.reply_icmp_id);
        Ok(Some(EntryFacts {
            replied: self.replied.unwrap_or(false),
            assured: self.assured.unwrap_or(false),
            offload: offload.transpose()?,
            zones: [self.zone_orig, self.zone_reply],
            icmp: original.zip(reply).map(<[Icmp; 2]>::from),
            sctp: sctp.transpose()?,
            clock,
        }))
    }
}
