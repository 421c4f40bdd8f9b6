//! Tests: a page contains all given data, and no given text can break the page.

use super::*;
use crate::latency::Percentiles;
use crate::series::LatencyPoint;

const HOSTILE: &str = "<script src=\"http://elsewhere/\">&amp;'\u{1}\u{1b}[31m</script>";

fn run(name: &str, latency_ms: u64, has_window: bool) -> Run {
    let sample = |second: u64| Sample {
        at_s: second as f64,
        deliveries_per_s: 300_000.0 + (second % 5) as f64 * 900.0,
        latency_ms: Some(Percentiles {
            p50: latency_ms,
            p90: latency_ms * 2,
            p99: latency_ms * 3 + second % 4,
            p999: latency_ms * 4,
            max: latency_ms * 5,
        }),
        server_cpu_cores: Some(0.6 + (second % 3) as f64 / 50.0),
        generator_cpu_cores: 0.4,
        flush_window_ms: has_window.then_some(40.0 + (second % 7) as f64),
        frames_per_send: has_window.then_some(2.1),
    };
    let quantiles = [0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 0.99999, 1.0];
    let latency = quantiles.iter().enumerate().map(|(index, quantile)| LatencyPoint {
        quantile: *quantile,
        latency_ms: (latency_ms * (index as u64 + 1)) as f64 / 2.0,
    });
    Run { name: name.to_owned(), series: (1..=20).map(sample).collect(), latency: latency.collect() }
}

fn input(runs: Vec<Run>) -> HtmlInput {
    let columns = runs.iter().map(|run| run.name.clone()).collect();
    let values = runs.iter().map(|_| "5,999,700".to_owned()).collect();
    HtmlInput {
        title: "fanout: 12,000 connections".to_owned(),
        command_line: "odin-bench fanout --connections 12000 --rate 25".to_owned(),
        passed: false,
        reasons: vec!["events lost: 3".to_owned()],
        notes: vec!["The generator was busier than the server.".to_owned()],
        columns,
        figures: vec![Figure { name: "delivered".to_owned(), values }],
        runs,
        configuration: "WS_CPU_LIMIT=1\nWS_MAX_CONNECTIONS=12000".to_owned(),
    }
}

/// Parses the page, which proves that it is well-formed.
fn parse(page: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    roxmltree::Document::parse_with_options(page, options).expect("well-formed")
}

/// Number of elements of this name that have all these classes.
fn count(document: &roxmltree::Document<'_>, element: &str, wanted: &str) -> usize {
    let is_wanted = |node: &roxmltree::Node<'_, '_>| {
        let classes: Vec<_> = node.attribute("class").unwrap_or_default().split(' ').collect();
        node.tag_name().name() == element && wanted.split(' ').all(|class| classes.contains(&class))
    };
    document.descendants().filter(is_wanted).count()
}

fn texts(document: &roxmltree::Document<'_>) -> Vec<String> {
    document
        .descendants()
        .filter(|node| node.is_text())
        .map(|node| node.text().unwrap_or_default().trim().to_owned())
        .collect()
}

#[test]
fn a_page_holds_everything_that_it_was_given() {
    let page = page(&input(vec![run("gateway", 20, true)]));
    let texts = texts(&parse(&page));
    for expected in [
        "fanout: 12,000 connections",
        "odin-bench fanout --connections 12000 --rate 25",
        "Failed",
        "events lost: 3",
        "delivered",
        "5,999,700",
        "The generator was busier than the server.",
        "WS_CPU_LIMIT=1\nWS_MAX_CONNECTIONS=12000",
        "Latency distribution, ms by percentile",
        "Latency over time, ms",
        "Deliveries per second",
        "CPU, cores",
        "Flush window, ms",
        "Frames per send",
        "99.99",
    ] {
        assert!(texts.iter().any(|text| text == expected), "{expected} is missing");
    }
}

#[test]
fn each_figure_is_a_line_in_the_colour_of_its_run() {
    let page = page(&input(vec![run("gateway", 20, true), run("peer", 900, false)]));
    let document = parse(&page);
    // Distribution, latency, deliveries, CPU, window, frames; the peer has no window and no frames per send.
    assert_eq!(count(&document, "polyline", "line run-0"), 1 + 2 + 1 + 2 + 1 + 1);
    assert_eq!(count(&document, "polyline", "line run-1"), 1 + 2 + 1 + 2);
    assert_eq!(count(&document, "polyline", "dashed"), 4, "p50 and the generator, of each");
    let texts = texts(&document);
    assert!(
        ["gateway, p99", "peer, p50", "peer, generator"]
            .iter()
            .all(|name| texts.iter().any(|text| text == name))
    );
    assert!(!page.contains("#A0") && !page.contains("#A1"), "a key colour is left");
}

#[test]
fn runs_far_apart_share_a_logarithmic_axis() {
    let is_logarithmic = |other| {
        let runs = [run("gateway", 20, true), run("peer", other, true)];
        plots::all(&runs).iter().filter(|plot| plot.is_logarithmic).count()
    };
    assert_eq!(is_logarithmic(40), 0);
    assert_eq!(is_logarithmic(4_000), 2, "the distribution, and the latency over time");
}

#[test]
fn whatever_is_text_is_escaped() {
    let hostile = || HOSTILE.to_owned();
    let page = page(&HtmlInput {
        title: hostile(),
        command_line: hostile(),
        passed: true,
        reasons: vec![hostile()],
        notes: vec![hostile()],
        columns: vec![hostile(), hostile()],
        figures: vec![Figure { name: hostile(), values: vec![hostile(), hostile()] }],
        runs: vec![run(HOSTILE, 20, true), run(HOSTILE, 30, true)],
        configuration: hostile(),
    });
    let document = parse(&page);
    assert_eq!(document.descendants().filter(|node| node.tag_name().name() == "script").count(), 0);
    assert!(!page.contains(['\u{1}', '\u{1b}']));
    let shown = HOSTILE.replace(['\u{1}', '\u{1b}'], "\u{fffd}");
    assert!(texts(&document).iter().filter(|text| text.contains(&shown)).count() >= 9);
}

#[test]
fn a_page_refers_to_nothing_outside_itself() {
    let page = page(&input(vec![run("gateway", 20, true), run("peer", 900, false)]));
    for attribute in parse(&page).descendants().flat_map(|node| node.attributes().collect::<Vec<_>>()) {
        assert!(
            !["src", "href", "srcset", "data", "action", "style"].contains(&attribute.name()),
            "{attribute:?}"
        );
        assert!(!attribute.value().contains("://"), "{attribute:?}");
    }
    for reference in ["url(", "@import", "<script", "<link", "<img", "<iframe"] {
        assert!(!page.contains(reference), "{reference}");
    }
}

#[test]
fn what_is_missing_is_said_and_breaks_nothing() {
    let empty = Run { name: "empty".to_owned(), series: Vec::new(), latency: Vec::new() };
    for runs in [vec![], vec![empty.clone()], vec![empty, run("gateway", 20, false)]] {
        let missing = if runs.len() == 2 { 2 } else { 6 };
        let page = page(&input(runs));
        assert_eq!(count(&parse(&page), "p", "nothing"), missing);
    }
    let page = page(&HtmlInput::default());
    assert_eq!(count(&parse(&page), "p", "nothing"), 6);
}

#[test]
fn a_line_is_interrupted_where_a_figure_is_missing_and_figures_that_are_none_are_left_out() {
    let mut run = run("gateway", 0, true);
    run.series[4].flush_window_ms = None;
    run.series[6].flush_window_ms = Some(f64::NAN);
    run.series.iter_mut().for_each(|sample| sample.frames_per_send = Some(f64::INFINITY));
    let page = page(&input(vec![run]));
    let document = parse(&page);
    // The window in three parts, the middle one a dot; no frames per send.
    assert_eq!(count(&document, "polyline", "line run-0"), 1 + 2 + 1 + 2 + 3);
    assert_eq!(count(&document, "p", "nothing"), 1);
    assert!(!page.contains("NaN") && !page.contains("inf,"));
}

#[test]
fn a_long_run_keeps_its_spikes_and_a_page_of_bounded_size() {
    let mut long = run("gateway", 20, true);
    let sample = long.series[0];
    long.series = (0..200_000).map(|second| Sample { at_s: f64::from(second), ..sample }).collect();
    let page = page(&input(vec![long]));
    assert!(page.len() < 500_000, "{} bytes", page.len());
    assert!(texts(&parse(&page)).iter().any(|text| text == "50000 s"), "time is in plain seconds");

    let mut points: Vec<_> = (0..200_000).map(|second| (f64::from(second), 5.0)).collect();
    points[77_777].1 = 0.0;
    points[123_456].1 = 900.0;
    let thinned = chart::thinned(&points);
    assert!(thinned.contains(&points[77_777]) && thinned.contains(&points[123_456]));
    assert!(thinned.is_sorted_by(|left, right| left.0 <= right.0));
}
