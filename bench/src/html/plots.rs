//! The plotted data: converts figures of runs to lines on plots. Draws nothing.

use super::Run;
use crate::series::{LatencyPoint, Sample};

/// Further runs reuse the colours of the first ones.
pub(super) const COLOURS: usize = 6;

/// On the axis of the latency distribution every further nine has the same width. The axis ends slightly
/// after the last labelled percentile, and the slowest delivery is drawn there.
const NINES_MAX: f64 = 4.6;

/// From this ratio of the slowest latencies of two runs, the faster run would be a flat line at the bottom of
/// a linear axis.
const LOGARITHMIC_RATIO: f64 = 20.0;

/// The style of a line: the colour identifies the run in every plot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineStyle {
    /// Below [`COLOURS`].
    pub(super) colour: usize,
    /// The less important of two lines of a run is dashed.
    pub(super) is_dashed: bool,
}

impl LineStyle {
    /// The class in `style.css`.
    pub(super) fn class(self) -> String {
        format!("line run-{}{}", self.colour, if self.is_dashed { " dashed" } else { "" })
    }
}

/// Points in ascending `x`; the line is interrupted where the value is `None`.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) style: LineStyle,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

impl Line {
    /// Whether there is nothing to draw.
    pub(super) fn is_empty(&self) -> bool {
        self.points.iter().all(|(_, y)| y.is_none())
    }
}

/// The horizontal axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum XAxis {
    /// Seconds since the events began.
    Time,
    /// Percentiles; see [`nines`].
    Percentile,
}

/// One plot.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) across: XAxis,
    pub(super) is_logarithmic: bool,
    pub(super) lines: Vec<Line>,
}

/// A metric of each run: a line, or one of two lines.
struct Metric {
    name: &'static str,
    is_dashed: bool,
    value: fn(&Sample) -> Option<f64>,
}

/// All plots of a page, including empty ones.
pub(super) fn all(runs: &[Run]) -> Vec<Plot> {
    let only = |value| [Metric { name: "", is_dashed: false, value }];
    let latency = [
        Metric { name: "p99", is_dashed: false, value: |at| at.latency_ms.map(|latency| latency.p99 as f64) },
        Metric { name: "p50", is_dashed: true, value: |at| at.latency_ms.map(|latency| latency.p50 as f64) },
    ];
    let cpu = [
        Metric { name: "server", is_dashed: false, value: |at| at.server_cpu_cores },
        Metric { name: "generator", is_dashed: true, value: |at| Some(at.generator_cpu_cores) },
    ];
    let distribution = distribution(runs);
    let is_logarithmic = distribution.is_logarithmic;
    vec![
        distribution,
        Plot { is_logarithmic, ..over_time("Latency over time, ms", runs, &latency) },
        over_time("Deliveries per second", runs, &only(|at| Some(at.deliveries_per_s))),
        over_time("CPU, cores", runs, &cpu),
        over_time("Flush window, ms", runs, &only(|at| at.flush_window_ms)),
        over_time("Frames per send", runs, &only(|at| at.frames_per_send)),
    ]
}

fn distribution(runs: &[Run]) -> Plot {
    let lines = runs.iter().enumerate().map(|(index, run)| {
        let points = run
            .latency
            .iter()
            .map(|LatencyPoint { quantile, latency_ms }| (nines(*quantile), finite(*latency_ms)));
        Line { name: run.name.clone(), style: style(index, false), points: points.collect() }
    });
    let lines: Vec<Line> = lines.collect();
    let is_logarithmic = is_far_apart(&lines);
    Plot { title: "Latency distribution, ms by percentile", across: XAxis::Percentile, is_logarithmic, lines }
}

fn over_time(title: &'static str, runs: &[Run], kinds: &[Metric]) -> Plot {
    let lines = runs.iter().enumerate().flat_map(|(index, run)| {
        kinds.iter().map(move |Metric { name, is_dashed, value }| Line {
            name: match (runs.len(), *name) {
                (_, "") => run.name.clone(),
                (1, name) => name.to_owned(),
                (_, name) => format!("{}, {name}", run.name),
            },
            style: style(index, *is_dashed),
            points: run.series.iter().map(|at| (at.at_s, value(at).and_then(finite))).collect(),
        })
    });
    Plot { title, across: XAxis::Time, is_logarithmic: false, lines: lines.collect() }
}

fn style(run: usize, is_dashed: bool) -> LineStyle {
    LineStyle { colour: run % COLOURS, is_dashed }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Position of a quantile on the axis: 0.9 at 1, 0.99 at 2, 0.999 at 3. The slowest delivery, at 1.0, would
/// be at infinity.
pub(super) fn nines(quantile: f64) -> f64 {
    (-(1.0 - quantile.clamp(0.0, 1.0)).log10()).min(NINES_MAX)
}

/// The labelled positions of the percentile axis.
pub(super) fn percentiles() -> Vec<(f64, &'static str)> {
    let mut places: Vec<_> =
        [(0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")]
            .into_iter()
            .map(|(quantile, name)| (nines(quantile), name))
            .collect();
    places.push((NINES_MAX, "max"));
    places
}

fn is_far_apart(lines: &[Line]) -> bool {
    let slowest = lines.iter().filter_map(|line| line.points.iter().filter_map(|(_, y)| *y).reduce(f64::max));
    let (least, most) = slowest
        .fold((f64::INFINITY, 0.0_f64), |(least, most), slowest| (least.min(slowest), most.max(slowest)));
    most > least.max(1.0) * LOGARITHMIC_RATIO
}
