//! How fast lines are written. Ignored: it says something on a quiet machine and in release only.

use std::time::Instant;

use super::tests::{CLOCK, style};
use super::*;
use crate::event::tests::*;

#[test]
#[ignore = "a measurement: cargo test --release --package conn-user --lib speed -- --ignored --nocapture"]
fn lines_per_second() {
    const ROUNDS: u32 = 400_000;
    let events = [new_out(), established(), closed(), new_in_v6(), preexisting()];
    let formats = [
        Format::Conntrack(Extras::default()),
        Format::Json,
        Format::Csv,
        Format::Logfmt,
        Format::Xml(Extras::default()),
        Format::Save,
        Format::Table,
        Format::Otel,
        Format::Ecs,
    ];
    for format in formats {
        let mut renderer = Renderer::new(&style(format, None), Subject::Events, Terminal::NONE);
        let mut out = Vec::with_capacity(1 << 20);
        let begin = Instant::now();
        for _ in 0..ROUNDS {
            for event in &events {
                renderer.event(event, &CLOCK, &mut out);
            }
            if out.len() > 900_000 {
                out.clear();
            }
        }
        let rate = f64::from(ROUNDS) * events.len() as f64 / begin.elapsed().as_secs_f64() / 1e6;
        eprintln!("{format:?}: {rate:.2} million lines per second");
    }
}
