//! The plots of the report, as SVG: calls per second and latency against load, CPU per call by peer, and CPU per call against the size of messages.
//!
//! A plot that a run has no figures for is not drawn.

use super::case::{
    self, BUSY, PLOTTED, PLOTTED_LOAD_BYTES, PLOTTED_PAYLOADS_BYTES, PLOTTED_STREAMS, Work, unary,
};
use super::load::Shape;
use super::measure::Measured;
use super::peer::Peer;
use super::report::{cpu_us, p50_us, p99_us, per_s};
use super::rounds::Results;
use anyhow::Context as _;
use plotters::coord::Shift;
use plotters::prelude::{
    BLACK, ChartBuilder, Circle, Color, DashedLineSeries, DrawingArea, IntoDrawingArea, IntoFont,
    IntoLogRange, LineSeries, PathElement, RGBColor, Rectangle, SVGBackend, SeriesLabelPosition, Text, WHITE,
};
use std::path::Path;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (760, 440);
const FONT: &str = "sans-serif";
/// Connections of the plots against load.
const CONNECTIONS: u64 = 8;

/// One line of a plot, with its name in the legend.
struct Curve {
    peer: Peer,
    name: String,
    is_dashed: bool,
    points: Vec<(f64, f64)>,
}

/// A plot of curves, both axes logarithmic.
struct Lines {
    title: &'static str,
    x: &'static str,
    y: &'static str,
    curves: Vec<Curve>,
}

/// Draws into `folder`, and gives names and titles of what is there now.
pub(super) fn draw(results: &Results, folder: &Path) -> anyhow::Result<Vec<(&'static str, &'static str)>> {
    std::fs::create_dir_all(folder)?;
    let plots = [
        ("calls-per-second.svg", calls_per_s(results)),
        ("latency.svg", latency(results)),
        ("cpu-by-size.svg", cpu_by_size(results)),
    ];
    let mut drawn = Vec::new();
    for (name, plot) in plots {
        if plot.curves.iter().any(|curve| curve.points.len() > 1) {
            plot.draw(&folder.join(name)).with_context(|| format!("cannot draw {name}"))?;
            drawn.push((name, plot.title));
        }
    }
    let bars = cpu_by_peer(results);
    if bars.len() > 1 {
        let name = "cpu-by-peer.svg";
        draw_bars(&bars, &folder.join(name)).with_context(|| format!("cannot draw {name}"))?;
        drawn.push((name, BARS_TITLE));
    }
    Ok(drawn)
}

fn curve(
    results: &Results,
    peer: Peer,
    works: &[(f64, Work)],
    figure: fn(&Measured) -> Option<f64>,
) -> Vec<(f64, f64)> {
    let point = |&(x, work): &(f64, Work)| Some((x, results.cell(work, peer)?.median(figure)?));
    works.iter().filter_map(point).collect()
}

fn by_load() -> Vec<(f64, Work)> {
    let point = |streams| {
        let shape = Shape { connections: CONNECTIONS, streams };
        ((CONNECTIONS * streams) as f64, unary(shape, PLOTTED_LOAD_BYTES))
    };
    PLOTTED_STREAMS.map(point).to_vec()
}

fn calls_per_s(results: &Results) -> Lines {
    let of = |&peer: &Peer| {
        let points = curve(results, peer, &by_load(), per_s);
        Curve { peer, name: peer.to_string(), is_dashed: false, points }
    };
    let curves = PLOTTED.iter().map(of).collect();
    Lines { title: "Calls per second, 1 KiB, 8 connections", x: "calls at a time", y: "calls/s", curves }
}

fn latency(results: &Results) -> Lines {
    let of = |&peer: &Peer| {
        let p50 = curve(results, peer, &by_load(), p50_us);
        let p99 = curve(results, peer, &by_load(), p99_us);
        [
            Curve { peer, name: format!("{peer}, p50"), is_dashed: false, points: p50 },
            Curve { peer, name: format!("{peer}, p99"), is_dashed: true, points: p99 },
        ]
    };
    let curves = PLOTTED.iter().flat_map(of).collect();
    Lines { title: "Latency, 1 KiB, 8 connections", x: "calls at a time", y: "µs", curves }
}

fn cpu_by_size(results: &Results) -> Lines {
    let works =
        PLOTTED_PAYLOADS_BYTES.map(|payload_bytes| (f64::from(payload_bytes), unary(BUSY, payload_bytes)));
    let of = |&peer: &Peer| Curve {
        peer,
        name: peer.to_string(),
        is_dashed: false,
        points: curve(results, peer, &works, cpu_us),
    };
    let curves = PLOTTED.iter().map(of).collect();
    Lines {
        title: "CPU of the proxy per call, 8 connections x 32 streams",
        x: "payload, bytes",
        y: "µs per call",
        curves,
    }
}

impl Lines {
    fn draw(&self, path: &Path) -> anyhow::Result<()> {
        let area = white(path)?;
        let points = || self.curves.iter().flat_map(|curve| curve.points.iter().copied());
        let (x_min, x_max) = bounds(points().map(|(x, _)| x));
        let (y_min, y_max) = bounds(points().map(|(_, y)| y));
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, (FONT, 20))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(
                (x_min..x_max * 1.05).log_scale().base(2.0),
                (y_min * 0.8..y_max * 1.25).log_scale(),
            )?;
        let label = |figure: &f64| format!("{figure:.0}");
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&label)
            .y_label_formatter(&label)
            .light_line_style(WHITE)
            .draw()?;
        for curve in self.curves.iter().filter(|curve| !curve.points.is_empty()) {
            let style = color(curve.peer).stroke_width(2);
            let points = curve.points.iter().copied();
            let series = if curve.is_dashed {
                chart.draw_series(DashedLineSeries::new(points.clone(), 5, 5, style))?
            } else {
                chart.draw_series(LineSeries::new(points.clone(), style))?
            };
            let is_dashed = curve.is_dashed;
            series.label(&curve.name).legend(move |(x, y)| {
                PathElement::new(vec![(x, y), (x + if is_dashed { 8 } else { 18 }, y)], style)
            });
            chart.draw_series(points.map(|point| Circle::new(point, 3, style.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

const BARS_TITLE: &str = "CPU of the proxy per call, 8 connections x 32 streams, 1 KiB";

/// Peers, and their CPU per call.
fn cpu_by_peer(results: &Results) -> Vec<(Peer, f64)> {
    let work = unary(BUSY, case::PLOTTED_LOAD_BYTES);
    let cells = results.cells.iter().filter(|cell| cell.work == work && cell.peer != Peer::AttestryTwo);
    cells.filter_map(|cell| Some((cell.peer, cell.median(cpu_us)?))).collect()
}

fn draw_bars(bars: &[(Peer, f64)], path: &Path) -> anyhow::Result<()> {
    let area = white(path)?;
    let most = bars.iter().map(|&(_, cpu_us)| cpu_us).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&area)
        .caption(BARS_TITLE, (FONT, 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(140)
        .build_cartesian_2d(0.0..most * 1.12, 0.0..bars.len() as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_desc("µs per call")
        .light_line_style(WHITE)
        .draw()?;
    for (place, &(peer, cpu_us)) in bars.iter().rev().enumerate() {
        let place = place as f64;
        let bar = Rectangle::new([(0.0, place + 0.15), (cpu_us, place + 0.85)], color(peer).filled());
        chart.draw_series([bar])?;
        let figure = Text::new(format!(" {cpu_us:.1}"), (cpu_us, place + 0.65), (FONT, 14).into_font());
        chart.draw_series([figure])?;
        let (_, y) = chart.backend_coord(&(0.0, place + 0.65));
        area.draw(&Text::new(peer.to_string(), (12, y), (FONT, 14).into_font()))?;
    }
    area.present()?;
    Ok(())
}

fn white(path: &Path) -> anyhow::Result<Area<'_>> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    Ok(area)
}

fn bounds(figures: impl Iterator<Item = f64>) -> (f64, f64) {
    figures.fold((f64::INFINITY, 0.0), |(min, max), figure| (figure.min(min), figure.max(max)))
}

fn color(peer: Peer) -> RGBColor {
    match peer {
        Peer::Attestry | Peer::AttestryTwo => RGBColor(200, 30, 40),
        Peer::Envoy => RGBColor(120, 60, 170),
        Peer::EnvoyLog => RGBColor(150, 110, 190),
        Peer::EnvoyTap => RGBColor(180, 150, 210),
        Peer::Nginx => RGBColor(20, 130, 70),
        Peer::Nghttpx => RGBColor(225, 130, 20),
        Peer::Haproxy => RGBColor(40, 100, 190),
        Peer::Direct => RGBColor(110, 110, 110),
    }
}
