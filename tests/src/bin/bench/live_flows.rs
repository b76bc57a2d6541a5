//! A million flows of UDP that are alive: the memory of their table, and what looking at it takes.

use crate::{
    machine::{attempt, settle},
    page::{self, Target},
    tool::{How, Tool},
};
use conn_tests::{netns::NetNs, tracer::Setup, usage};
use std::{
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// Flows of a whole run. Half of the table stays free.
const FLOWS: u32 = 1 << 20;
/// The room that the run asks for.
const ROOM: &str = "2M";
/// Looks at the table per second.
const SWEEPS: f64 = 2.0;
/// How long the looks are measured. No flow is idle for its idle time until then.
const WATCHED: Duration = Duration::from_secs(5);

/// What a run showed.
struct Cost {
    maps: u64,
    own: u64,
    sweep: Duration,
    count: Duration,
}

/// Sends one packet to each of so many peers, to ports where nothing listens.
fn begin(netns: &NetNs, flows: u32) -> UdpSocket {
    netns.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
        for peer in 0..flows {
            let address = Ipv4Addr::from(0x7F01_0000 | (peer & 0xFFFF));
            let port = 40_000 + (peer >> 16) as u16;
            socket.send_to(b"x", (address, port)).expect("send");
        }
        socket
    })
}

fn measure_once(flows: u32) -> Result<Cost, String> {
    let netns = NetNs::new().map_err(|error| format!("no network namespace: {error}"))?;
    let words = ["events", "-p", "udp", "-e", "DESTROY", "--max-flows", ROOM];
    let tool = Tool { name: "", how: How::Conntrace(&words), tracked: false, lines: None };
    let running = tool.start(&netns)?;
    let socket = begin(&netns, flows);
    // The first look reads each flow.
    thread::sleep(Duration::from_secs(1));
    let before = running.cpu();
    thread::sleep(WATCHED);
    let sweep = (running.cpu() - before) / (WATCHED.as_secs_f64() * SWEEPS);
    let pid = running.pid().ok_or("conntrace is gone")?;
    let (maps, own) = (usage::map_memory(pid), usage::own_memory(pid));
    let begin = Instant::now();
    netns.run(|| Setup::new(["count", "-p", "udp"]).run()).expect_code(0);
    let count = begin.elapsed();
    running.stop()?;
    drop(socket);
    Ok(Cost { maps, own, sweep: Duration::from_secs_f64(sweep), count })
}

/// The part of the page.
pub(crate) fn measure(quick: bool) -> String {
    let flows = if quick { FLOWS / 64 } else { FLOWS };
    settle();
    let cost = match attempt(|| measure_once(flows)) {
        Ok(cost) => cost,
        Err(why) => return page::skipped(&[(format!("{flows} live flows"), why)]),
    };
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let head = ["live flows", "maps", "process", "a look at the table", "`count -p udp` beside it"];
    let row = [flows.to_string(), mib(cost.maps), mib(cost.own), ms(cost.sweep), ms(cost.count)];
    let targets = [
        Target::at_most("look at the table, ms", 20.0, cost.sweep.as_secs_f64() * 1e3),
        Target::at_most("`count -p udp`, ms", 1_000.0, cost.count.as_secs_f64() * 1e3),
    ];
    format!(
        "Live flows, with `--max-flows {ROOM}`; the process without the maps:\n\n{}\n{}",
        page::table(&head, &[row.to_vec()]),
        page::targets(&targets)
    )
}
