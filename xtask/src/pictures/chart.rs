//! Panels as one SVG, in the order and the dark colours of Grafana.

use std::fmt::Write as _;

use super::dashboard::{POINT, Panel, Shown};
use super::{END, START, words};

/// Pixels of a unit of the dashboard's grid.
const WIDE: u32 = 60;
const HIGH: u32 = 23;
/// Between panels.
const GAP: u32 = 6;
/// Of a plot within its panel: the left edge, the upper edge, and its size. A point of time is a whole number of pixels.
const LEFT: u32 = 62;
const TOP: u32 = 30;
const PLOT_WIDE: u32 = ((END - START) / POINT) as u32 * POINT_WIDE;
const POINT_WIDE: u32 = 3;
/// Seconds between two times under a plot.
const TIMES: u64 = 4 * 3_600;

const COLORS: [&str; 10] = [
    "#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#ffa6b0", "#96d98d",
    "#c0a36e",
];

/// The picture of a dashboard.
pub(super) fn picture(panels: &[Panel]) -> String {
    let width = 24 * WIDE + GAP;
    let height = panels.iter().map(|panel| panel.y + panel.h).max().unwrap_or_default() * HIGH + GAP;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"DejaVu Sans, Helvetica, sans-serif\" font-size=\"12\">\n\
         <style>.t{{fill:#d8d9da}}.s{{fill:#9fa3a9;font-size:10.5px}}.e{{text-anchor:end}}\
         .m{{text-anchor:middle}}.g{{stroke:#33373e}}.p{{fill:#1f232a}}path{{stroke-width:1.3}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#111418\"/>\n"
    );
    for panel in panels {
        let (x, y) = (panel.x * WIDE + GAP, panel.y * HIGH + GAP);
        let (w, h) = (panel.w * WIDE - GAP, panel.h * HIGH - GAP);
        line(&mut out, &format!("<g transform=\"translate({x} {y})\">"));
        let title = escaped(&panel.title);
        if matches!(panel.shown, Shown::Row) {
            line(&mut out, &format!("<text class=\"t\" x=\"2\" y=\"13\" font-size=\"14\">▾ {title}</text>"));
        } else {
            line(&mut out, &format!("<rect class=\"p\" width=\"{w}\" height=\"{h}\" rx=\"2\"/>"));
            line(&mut out, &format!("<text class=\"t\" x=\"9\" y=\"18\">{title}</text>"));
        }
        match &panel.shown {
            Shown::Row => {}
            Shown::Word(word, color) => big(&mut out, word, color, w, h),
            Shown::Table(rows) => table(&mut out, rows, w),
            Shown::Lines { unit, is_stacked, lines } => {
                plot(&mut out, unit, *is_stacked, lines, Place { wide: plot_width(w), w, h });
            }
        }
        line(&mut out, "</g>");
    }
    out + "</svg>\n"
}

/// The sizes of a panel with lines.
#[derive(Clone, Copy)]
struct Place {
    /// Pixels of a point.
    wide: u32,
    w: u32,
    h: u32,
}

impl Place {
    const fn bottom(self) -> u32 {
        self.h - 22
    }

    const fn plot(self) -> u32 {
        PLOT_WIDE / POINT_WIDE * self.wide
    }
}

/// A panel of twice the width has points of twice the width.
const fn plot_width(w: u32) -> u32 {
    if w > 2 * PLOT_WIDE { 2 * POINT_WIDE } else { POINT_WIDE }
}

fn big(out: &mut String, word: &str, color: &str, w: u32, h: u32) {
    let color = match color {
        "red" => "#f2495c",
        "green" => "#73bf69",
        "orange" => "#ff9830",
        "gray" => "#9fa3a9",
        _ => "#d8d9da",
    };
    let (x, y, word) = (w / 2, h / 2 + 18, escaped(word));
    let text =
        format!("<text class=\"m\" x=\"{x}\" y=\"{y}\" font-size=\"24\" fill=\"{color}\">{word}</text>");
    line(out, &text);
}

fn table(out: &mut String, rows: &[Vec<String>], w: u32) {
    let columns = rows.first().map_or(1, Vec::len) as u32;
    for (at, row) in rows.iter().enumerate() {
        let (y, class) = (44 + 22 * at as u32, if at == 0 { "s" } else { "t" });
        for (column, word) in row.iter().enumerate() {
            let x = 9 + column as u32 * (w / columns);
            line(out, &format!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escaped(word)));
        }
    }
}

type Line = (String, Vec<(u64, f64)>);

fn plot(out: &mut String, unit: &str, is_stacked: bool, lines: &[Line], place: Place) {
    let mut tops: Vec<Vec<(u64, f64)>> = lines.iter().map(|(_, points)| finite(points)).collect();
    if is_stacked {
        for at in 1..tops.len() {
            let below = tops[at - 1].clone();
            for (time, value) in &mut tops[at] {
                let under = below.iter().find(|(other, _)| other == time);
                *value += under.map_or(0.0, |&(_, value)| value);
            }
        }
    }
    let most = tops.iter().flatten().map(|&(_, value)| value).fold(0.0, f64::max);
    let tick = if unit == "bytes" { binary_tick(most) } else { tick(most) };
    let ticks = (most / tick).ceil().max(1.0);
    let tall = f64::from(place.bottom() - TOP);
    let height = |value: f64| (value / (tick * ticks) * tall).round() as i64;
    let (bottom, right) = (i64::from(place.bottom()), LEFT + place.plot());
    for number in (0..=5).map(f64::from).take_while(|&number| number <= ticks) {
        let value = tick * number;
        let y = bottom - height(value);
        line(out, &format!("<path class=\"g\" d=\"M{LEFT} {y}H{right}\"/>"));
        let word = words::amount(value, unit);
        line(out, &format!("<text class=\"s e\" x=\"{}\" y=\"{}\">{word}</text>", LEFT - 6, y + 4));
    }
    for time in (0..=END - START).step_by(TIMES as usize) {
        let x = LEFT + (time / POINT) as u32 * place.wide;
        let (y, hour) = (bottom + 14, time / 3_600 % 24);
        line(out, &format!("<text class=\"s m\" x=\"{x}\" y=\"{y}\">{hour:02}:00</text>"));
    }
    // The highest area first: lower ones lie over it.
    for (at, points) in tops.iter().enumerate().rev() {
        let color = COLORS[at % COLORS.len()];
        for run in points.chunk_by(|(one, _), (next, _)| one + POINT == *next) {
            let x = |time: u64| i64::from(LEFT + (time / POINT) as u32 * place.wide);
            let spots: Vec<(i64, i64)> =
                run.iter().map(|&(time, value)| (x(time), bottom - height(value))).collect();
            let mut path = path(&spots);
            let fill = if is_stacked {
                // The last line of the path goes back along the axis.
                let _ = write!(path, "V{bottom}H{}z", spots[0].0);
                color
            } else {
                "none"
            };
            line(out, &format!("<path stroke=\"{color}\" fill=\"{fill}\" d=\"{path}\"/>"));
        }
    }
    let (x, room) = (right + 14, place.h.saturating_sub(TOP) / 15);
    if lines.is_empty() {
        line(out, &format!("<text class=\"t\" x=\"{}\" y=\"{}\">No data</text>", LEFT + 180, bottom - 40));
    }
    for (at, (name, points)) in lines.iter().take(room as usize).enumerate() {
        let (y, color) = (TOP + 4 + 15 * at as u32, COLORS[at % COLORS.len()]);
        let most = words::amount(points.iter().map(|&(_, value)| value).fold(0.0, f64::max), unit);
        line(out, &format!("<path stroke=\"{color}\" stroke-width=\"3\" d=\"M{x} {}h9\"/>", y - 4));
        line(out, &format!("<text class=\"s\" x=\"{}\" y=\"{y}\">{}</text>", x + 13, escaped(name)));
        let end = place.w.min(x + 210) - 8;
        line(out, &format!("<text class=\"s e\" x=\"{end}\" y=\"{y}\">{most}</text>"));
    }
}

/// Points with a number.
fn finite(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    points.iter().copied().filter(|(_, value)| value.is_finite()).collect()
}

/// A distance of 1, 2 or 5 times a power of ten, of which two to five reach the most.
fn tick(most: f64) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf((most / 5.0).log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| power * factor * 4.0 >= most);
    power * factor.unwrap_or(20.0)
}

/// The same in the binary unit that has the most.
fn binary_tick(most: f64) -> f64 {
    let unit = 1_024_f64.powf(most.max(1.0).log(1_024.0).floor());
    tick(most / unit) * unit
}

/// A line through points, each as a step from the last one.
fn path(spots: &[(i64, i64)]) -> String {
    let mut text = String::new();
    let Some(&(mut x, mut y)) = spots.first() else { return text };
    // A String takes any text.
    let _ = write!(text, "M{x} {y}");
    for (at, &(to_x, to_y)) in spots.iter().enumerate().skip(1) {
        let goes_on = spots.get(at + 1).is_some_and(|&(_, next)| next == to_y);
        if to_y == y && goes_on {
            continue;
        }
        let _ = match (to_x - x, to_y - y) {
            (right, 0) => write!(text, "h{right}"),
            (right, down @ 0..) => write!(text, "l{right} {down}"),
            (right, up) => write!(text, "l{right}{up}"),
        };
        (x, y) = (to_x, to_y);
    }
    text
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_line_is_one_step() {
        assert_eq!(path(&[(0, 9), (3, 9), (6, 9), (9, 4), (12, 6)]), "M0 9h6l3-5l3 2");
        assert_eq!(path(&[(0, 9), (3, 9)]), "M0 9h3");
    }

    #[test]
    fn few_ticks_reach_the_most() {
        for most in [0.000_3, 0.9, 1.0, 3.7, 48.0, 51_234.0] {
            let ticks = (most / tick(most)).ceil();
            assert!((1.0..=5.0).contains(&ticks), "{most}: {ticks}");
        }
    }

    #[test]
    fn a_picture_is_whole() {
        let shown = Shown::Lines {
            unit: "cps".into(),
            is_stacked: true,
            lines: vec![("a<b".into(), vec![(600, 1.0), (1_200, 2.0), (2_400, f64::NAN)])],
        };
        let panel = Panel { title: "x".into(), x: 0, y: 0, w: 12, h: 8, shown };
        let text = picture(&[panel]);
        assert_eq!(text.matches("<g ").count(), text.matches("</g>").count());
        assert!(text.contains("a&lt;b") && text.ends_with("</svg>\n"), "{text}");
    }
}
