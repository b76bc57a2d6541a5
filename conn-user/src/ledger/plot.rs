//! The history as lines of blocks, for a terminal.

use std::fmt::Write as _;

use crate::host::clock;
use crate::ledger::history::{Moment, Point};
use crate::render::style::Terminal;

/// The width without a terminal.
const WIDTH: usize = 80;
/// Characters before the blocks, and behind them.
const LABEL: usize = 9;
const NUMBERS: usize = 31;
/// The fewest blocks of a line.
const LEAST: usize = 12;
/// The shortest time of a block.
const MINUTE_NS: u64 = 60_000_000_000;
/// Blocks by height. The first one is for nothing, all others for something.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 9] = [' ', '.', ':', '-', '=', '+', '*', '#', '@'];

/// The blocks of a plot: when it begins and ends, and how many blocks it has.
struct Axis {
    begin_ns: u64,
    end_ns: u64,
    blocks: usize,
    heights: [char; 9],
}

/// A title and the points below it, for each row.
pub(crate) type Row = (String, Vec<Point>);

/// Draws the rows.
pub(crate) fn plot(rows: &[Row], from: Moment, now: Moment, terminal: Terminal) -> String {
    let room = terminal.width.unwrap_or(WIDTH).saturating_sub(LABEL + NUMBERS).max(LEAST);
    let span = now.boot_ns.saturating_sub(from.boot_ns).max(1);
    let axis = Axis {
        begin_ns: from.boot_ns,
        end_ns: from.boot_ns + span,
        blocks: room.min((span.div_ceil(MINUTE_NS)) as usize),
        heights: if terminal.utf8 { BLOCKS } else { ASCII },
    };
    let mut text = String::new();
    for (title, points) in rows {
        let sum = |of: fn(&Point) -> u64| points.iter().map(of).sum::<u64>();
        let opened = axis.rates(points, |point| point.opened);
        let failed = axis.rates(points, |point| point.failed);
        let open = axis.levels(points);
        let last = points.last().map_or(0, |point| point.open);
        // Writing into a string does not fail.
        _ = writeln!(text, "{title}");
        axis.line(&mut text, "opened", &opened, &format!("/min, {} in all", sum(|point| point.opened)));
        axis.line(&mut text, "failed", &failed, &format!("/min, {} in all", sum(|point| point.failed)));
        axis.line(&mut text, "open", &open, &format!(", {last} now"));
    }
    let [begin, end] = [from, now].map(|moment| time(moment.unix_ns));
    let gap = axis.blocks.saturating_sub(begin.len()).max(end.len() + 1);
    _ = writeln!(text, "{:LABEL$}{begin}{end:>gap$}", "");
    text
}

/// The plot of a scripted day, which the documentation shows: an office that works from eight to six, and a service of it that
/// breaks at ten for an hour.
#[expect(clippy::cast_sign_loss, reason = "no count of the day is negative")]
pub fn day() -> String {
    const MINUTES: u64 = 24 * 60;
    let edge = |minute: u64| Moment {
        boot_ns: minute * MINUTE_NS,
        // 2026-11-28, midnight.
        unix_ns: (1_795_824_000_000_000_000 + u128::from(minute * MINUTE_NS)) as i64,
    };
    // Busy hours by the distance to two in the afternoon.
    let busy = |minute: u64| 1.0 / (1.0 + (minute.abs_diff(14 * 60) as f64 / 210.0).powi(4));
    let row = |scale: f64, breaks: bool| {
        let point = |minute| {
            let new = 4.0 + scale * busy(minute);
            let is_broken = breaks && (10 * 60..11 * 60).contains(&minute);
            Point {
                begin_ns: edge(minute).boot_ns,
                end_ns: edge(minute + 1).boot_ns,
                opened: new as u64,
                failed: if is_broken { (new * 0.7) as u64 } else { 0 },
                open: if is_broken { 3 } else { 3 + (scale * busy(minute) / 5.0) as i64 },
            }
        };
        (0..MINUTES).map(point).collect::<Vec<_>>()
    };
    let (web, ssh) = (row(220.0, true), row(30.0, false));
    let both = |(one, other): (&Point, &Point)| Point {
        opened: one.opened + other.opened,
        failed: one.failed + other.failed,
        open: one.open + other.open,
        ..*one
    };
    let all = web.iter().zip(&ssh).map(both).collect();
    let rows =
        [("all ports".to_owned(), all), ("port https in".to_owned(), web), ("port ssh in".to_owned(), ssh)];
    let terminal = Terminal { width: Some(WIDTH), utf8: true, ..Terminal::NONE };
    plot(&rows, edge(0), edge(MINUTES), terminal)
}

impl Axis {
    /// Begin and end of a block.
    fn block(&self, at: usize) -> (u64, u64) {
        let edge = |at: usize| {
            let span = u128::from(self.end_ns - self.begin_ns);
            self.begin_ns + (span * at as u128 / self.blocks as u128) as u64
        };
        (edge(at), edge(at + 1))
    }

    /// Per minute in each block. A stretch that is longer than a block spreads over its blocks evenly.
    fn rates(&self, points: &[Point], of: fn(&Point) -> u64) -> Vec<f64> {
        let mut rates = Vec::with_capacity(self.blocks);
        for at in 0..self.blocks {
            let (begin, end) = self.block(at);
            let mut sum = 0.0;
            for point in points.iter().filter(|point| point.begin_ns < end && point.end_ns > begin) {
                let shared = point.end_ns.min(end) - point.begin_ns.max(begin);
                let length = (point.end_ns - point.begin_ns).max(1);
                sum += of(point) as f64 * shared as f64 / length as f64;
            }
            rates.push(sum * MINUTE_NS as f64 / (end - begin).max(1) as f64);
        }
        rates
    }

    /// Open connections at the end of each block, as the last reading before it, or the first one behind it, has them.
    fn levels(&self, points: &[Point]) -> Vec<f64> {
        let mut levels = Vec::with_capacity(self.blocks);
        for at in 0..self.blocks {
            let (_, end) = self.block(at);
            let known = points.iter().rev().find(|point| point.end_ns <= end).or_else(|| points.first());
            levels.push(known.map_or(0.0, |point| point.open as f64));
        }
        levels
    }

    /// Writes a line of blocks, and its largest value.
    #[expect(clippy::cast_sign_loss, reason = "a height is 0 at the least")]
    fn line(&self, text: &mut String, label: &str, values: &[f64], more: &str) {
        let most = values.iter().copied().fold(0.0, f64::max);
        let highest = self.heights.len() - 1;
        let block = |value: &f64| {
            let height = if most > 0.0 { (value / most * highest as f64).ceil() } else { 0.0 };
            self.heights[(height.max(0.0) as usize).min(highest)]
        };
        let blocks: String = values.iter().map(block).collect();
        let digits = usize::from(most < 10.0 && most.fract() != 0.0);
        // Writing into a string does not fail.
        _ = writeln!(text, "  {label:<6} {blocks} max {most:.digits$}{more}");
    }
}

/// `18:41Z`.
fn time(unix_ns: i64) -> String {
    let mut text = Vec::new();
    clock::rfc3339(unix_ns, &mut text);
    String::from_utf8_lossy(text.get(11..16).unwrap_or_default()).into_owned() + "Z"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(minute: u64) -> Moment {
        let boot_ns = minute * MINUTE_NS;
        Moment { boot_ns, unix_ns: boot_ns.cast_signed() + 1_700_000_000_000_000_000 }
    }

    fn point(begin: u64, end: u64, opened: u64, failed: u64, open: i64) -> Point {
        Point { begin_ns: begin * MINUTE_NS, end_ns: end * MINUTE_NS, opened, failed, open }
    }

    #[test]
    fn a_day_fits_a_terminal() {
        let text = day();
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn few_minutes_are_few_blocks() {
        let points = vec![point(0, 1, 4, 0, 4), point(1, 2, 0, 0, 4), point(2, 3, 1, 1, 2)];
        let rows = [("port 443 out".to_owned(), points)];
        insta::assert_snapshot!(plot(&rows, moment(0), moment(3), Terminal::NONE));
    }

    #[test]
    fn a_long_stretch_spreads_over_its_blocks() {
        let points = [point(0, 4, 8, 0, 1), point(4, 5, 5, 0, 0)];
        let axis = Axis { begin_ns: 0, end_ns: 5 * MINUTE_NS, blocks: 5, heights: ASCII };
        assert_eq!(axis.rates(&points, |point| point.opened), [2.0, 2.0, 2.0, 2.0, 5.0]);
    }
}
