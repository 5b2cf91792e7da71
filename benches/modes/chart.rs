//! The chart: four questions, a bar for each mode.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::load::Outcome;
use super::load::report::Spread;
use super::report::Report;

const WIDTH: i32 = 1240;
const HEIGHT: i32 = 800;
const HEADING: i32 = 76;
/// From the left of a panel to its bars: the names of the modes.
const NAMES: i32 = 175;
/// From its right to its longest bar: the figures.
const FIGURES: i32 = 105;
const BAR: i32 = 22;
const STEP: i32 = 38;
const INK: RGBColor = RGBColor(31, 41, 55);
const FAINT: RGBColor = RGBColor(107, 114, 128);
const REUSEPORT: RGBColor = RGBColor(37, 99, 235);
const SHARED: RGBColor = RGBColor(217, 119, 6);
const HANDOFF: RGBColor = RGBColor(5, 150, 105);
const MAY: RGBColor = RGBColor(156, 163, 175);

struct Panel {
    title: &'static str,
    /// What is better, and what the figure is of.
    note: String,
    spreads: Vec<Spread>,
    write: fn(f64) -> String,
}

/// Draws `report` as SVG. `work` is the load of the first three panels.
pub(crate) fn draw(report: &Report, work: usize) -> Outcome<String> {
    let load = &report.works[work];
    let panels = [
        Panel {
            title: "CPU time per request",
            note: format!("µs, saturated, {load}; less is better"),
            spreads: report.spreads(work, |figures| figures.cpu_us),
            write: |value| format!("{value:.1} µs"),
        },
        Panel {
            title: "Latency, 99th percentile",
            note: format!("µs, at a fixed pace, {load}; less is better"),
            spreads: report.spreads(work, |figures| figures.latencies.p99_us),
            write: |value| format!("{value:.0} µs"),
        },
        Panel {
            title: "Connections of the busiest lane",
            note: format!("÷ mean, {load}; 1 is even"),
            spreads: report.spreads(work, |figures| figures.connections.0),
            write: |value| format!("{value:.2}"),
        },
        Panel {
            title: "Clients that noticed a killed worker",
            note: format!("% of 64, one of {} lanes' workers; less is better", report.lanes),
            spreads: report.blasts(|blast| blast.noticed * 100.0),
            write: |value| format!("{value:.0} %"),
        },
    ];
    let mut svg = String::new();
    {
        let root =
            SVGBackend::with_string(&mut svg, (WIDTH as u32, HEIGHT as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        let text = |words: &str, size, color, at| {
            root.draw(&Text::new(
                words.to_owned(),
                at,
                ("sans-serif", size).into_font().color(&color),
            ))
        };
        text("laneway: what each mode costs", 24, INK, (24, 16))?;
        text(&report.heading(), 14, FAINT, (24, 48))?;
        let (width, height) = (WIDTH / 2, (HEIGHT - HEADING) / 2);
        for (number, panel) in panels.iter().enumerate() {
            let (column, row) = (number as i32 % 2, number as i32 / 2);
            let origin = (column * width + 24, HEADING + row * height);
            draw_panel(&root, panel, &report.rows.modes, origin, width - 48)?;
        }
        root.present()?;
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_panel(
    root: &Area,
    panel: &Panel,
    modes: &[&str],
    (left, top): (i32, i32),
    width: i32,
) -> Outcome<()> {
    let text = |words: String, size: i32, color: RGBColor, at: (i32, i32), anchor: HPos| {
        let style = ("sans-serif", size).into_font().color(&color);
        root.draw(&Text::new(words, at, style.pos(Pos::new(anchor, VPos::Center))))
    };
    text(panel.title.into(), 18, INK, (left, top + 14), HPos::Left)?;
    text(panel.note.clone(), 13, FAINT, (left, top + 36), HPos::Left)?;
    let longest = panel.spreads.iter().map(|spread| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let scale = f64::from(width - NAMES - FIGURES) / longest;
    let at = |value: f64| left + NAMES + (value * scale).round() as i32;
    for (number, (mode, spread)) in modes.iter().zip(&panel.spreads).enumerate() {
        let y = top + 62 + number as i32 * STEP;
        let middle = y + BAR / 2;
        text((*mode).into(), 14, INK, (left + NAMES - 10, middle), HPos::Right)?;
        let bar = [(at(0.0), y), (at(spread.median).max(at(0.0) + 1), y + BAR)];
        root.draw(&Rectangle::new(bar, color(mode).filled()))?;
        let whisker =
            |points: Vec<(i32, i32)>| root.draw(&PathElement::new(points, INK.stroke_width(1)));
        whisker(vec![(at(spread.min), middle), (at(spread.max), middle)])?;
        for end in [spread.min, spread.max] {
            whisker(vec![(at(end), middle - 4), (at(end), middle + 4)])?;
        }
        let beside = at(spread.max) + 8;
        text((panel.write)(spread.median), 14, INK, (beside, middle), HPos::Left)?;
    }
    Ok(())
}

fn color(mode: &str) -> RGBColor {
    match mode.rsplit(' ').next() {
        Some("reuseport") => REUSEPORT,
        Some("shared") => SHARED,
        Some("handoff") => HANDOFF,
        _ => MAY,
    }
}
