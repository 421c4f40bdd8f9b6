//! Draws a plot as an inline SVG with plotters.
//!
//! The drawing contains no colours: plotters gets key colours, and each is replaced by a class of
//! `style.css`, which defines readable colours for light and dark pages. Both axes are linear for plotters;
//! this module computes the logarithm.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

use super::plots::{COLOURS, Line, LineStyle, Plot, XAxis, percentiles};

/// Size of the drawing; a page scales it.
const SIZE: (u32, u32) = (640, 260);

/// Lines with more points are thinned: the drawing has no room for them.
const POINTS_MAX: usize = 1_200;

/// Approximate number of labels on an axis.
const STEPS: f64 = 5.0;

/// Lower latencies are drawn at the bottom of a logarithmic axis: timestamps are in whole milliseconds.
const LOGARITHMIC_FLOOR: f64 = 1.0;

const TEXT_KEY: RGBColor = RGBColor(0xA0, 0x01, 0x00);
const AXIS_KEY: RGBColor = RGBColor(0xA0, 0x02, 0x00);
const GRID_KEY: RGBColor = RGBColor(0xA0, 0x03, 0x00);
const FONT: (&str, u32) = ("sans-serif", 15);

/// An axis: its end and its labelled positions.
struct Axis {
    end: f64,
    names: Vec<(f64, String)>,
}

/// `None` if there is nothing to draw.
pub(super) fn draw(plot: &Plot) -> Option<String> {
    if plot.lines.iter().all(Line::is_empty) {
        return None;
    }
    let mut svg = String::new();
    draw_on(SVGBackend::with_string(&mut svg, SIZE), plot).expect("a string takes every drawing");
    Some(themed(svg))
}

fn draw_on(backend: SVGBackend<'_>, plot: &Plot) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let area = backend.into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .margin_top(10)
        .margin_right(20)
        .x_label_area_size(28)
        .y_label_area_size(48)
        .build_cartesian_2d(across(plot), up(plot))?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .bold_line_style(GRID_KEY)
        .axis_style(AXIS_KEY)
        .label_style(FONT.into_font().color(&TEXT_KEY))
        .draw()?;
    for line in &plot.lines {
        for part in parts(line) {
            let points = thinned(&part).into_iter().map(|(x, y)| (x, place(y, plot.is_logarithmic)));
            chart.draw_series(LineSeries::new(points, key(line.style).stroke_width(2)))?;
        }
    }
    drop(chart);
    area.present()
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (begin, end): (i32, i32)) -> i32 {
        begin + (f64::from(end - begin) * value / self.end).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.names.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> Range<f64> {
        0.0..self.end
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        self.names.iter().find(|(at, _)| at == value).map(|(_, name)| name.clone()).unwrap_or_default()
    }
}

impl Axis {
    /// From 0, in steps of 1, 2 or 5 times a power of ten.
    fn linear(most: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let power = 10_f64.powf((most / STEPS).log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| step * STEPS >= most);
        let step = step.unwrap_or(most);
        let names = (0..=(most / step).floor() as u32).map(|count| f64::from(count) * step);
        Self { end: most, names: names.map(|at| (at, short(at))).collect() }
    }

    /// Labelled at the powers of ten.
    fn logarithmic(most: f64) -> Self {
        let end = place(most, true).ceil().max(1.0);
        let names = (0..=end as i32).map(|power| (f64::from(power), short(10_f64.powi(power))));
        Self { end, names: names.collect() }
    }
}

fn across(plot: &Plot) -> Axis {
    match plot.across {
        XAxis::Time => {
            let points = plot.lines.iter().flat_map(|line| &line.points);
            let mut axis = Axis::linear(points.map(|(x, _)| *x).fold(0.0, f64::max));
            for (at, name) in &mut axis.names {
                *name = format!("{} s", (*at * 1e3).round() / 1e3);
            }
            axis
        }
        XAxis::Percentile => {
            let names: Vec<_> = percentiles().into_iter().map(|(at, name)| (at, name.to_owned())).collect();
            Axis { end: names.last().map_or(1.0, |(at, _)| *at), names }
        }
    }
}

fn up(plot: &Plot) -> Axis {
    let points = plot.lines.iter().flat_map(|line| &line.points);
    let most = points.filter_map(|(_, y)| *y).fold(0.0, f64::max);
    if plot.is_logarithmic { Axis::logarithmic(most) } else { Axis::linear(most * 1.08) }
}

fn place(y: f64, is_logarithmic: bool) -> f64 {
    if is_logarithmic { y.max(LOGARITHMIC_FLOOR).log10() } else { y }
}

/// A number as an axis label: 300000 becomes 300k.
fn short(value: f64) -> String {
    let (scaled, unit) = match value {
        value if value >= 1e9 => (value / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e3 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let digits = format!("{scaled:.3}");
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// The uninterrupted parts of a line. A single point becomes a line of length zero, which round ends turn
/// into a dot.
fn parts(line: &Line) -> Vec<Vec<(f64, f64)>> {
    let mut parts = vec![Vec::new()];
    for (x, y) in &line.points {
        match (y, parts.last_mut()) {
            (Some(y), Some(part)) => part.push((*x, *y)),
            _ => parts.push(Vec::new()),
        }
    }
    parts.retain(|part| !part.is_empty());
    for part in parts.iter_mut().filter(|part| part.len() == 1) {
        part.push(part[0]);
    }
    parts
}

/// Keeps the minimum and the maximum of each section of a long line, so that no spike and no dip is lost.
pub(super) fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS_MAX {
        return points.to_vec();
    }
    let section = points.len().div_ceil(POINTS_MAX / 2);
    let extremes = points.chunks(section).flat_map(|points| {
        let by_value = |left: &&(f64, f64), right: &&(f64, f64)| left.1.total_cmp(&right.1);
        let mut extremes: Vec<_> = points
            .iter()
            .min_by(by_value)
            .into_iter()
            .chain(points.iter().max_by(by_value))
            .copied()
            .collect();
        extremes.sort_by(|left, right| left.0.total_cmp(&right.0));
        extremes
    });
    extremes.collect()
}

fn key(style: LineStyle) -> RGBColor {
    RGBColor(0xA1, style.colour as u8, u8::from(style.is_dashed))
}

/// Replaces the key colours by classes.
fn themed(mut svg: String) -> String {
    for (key, attribute, class) in
        [(TEXT_KEY, "fill", "text"), (AXIS_KEY, "stroke", "axis"), (GRID_KEY, "stroke", "grid")]
    {
        svg = svg.replace(&format!("{attribute}=\"{}\"", hexadecimal(key)), &format!("class=\"{class}\""));
    }
    for style in
        (0..COLOURS).flat_map(|colour| [false, true].map(|is_dashed| LineStyle { colour, is_dashed }))
    {
        svg = svg.replace(
            &format!("stroke=\"{}\"", hexadecimal(key(style))),
            &format!("class=\"{}\"", style.class()),
        );
    }
    svg
}

fn hexadecimal(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}
