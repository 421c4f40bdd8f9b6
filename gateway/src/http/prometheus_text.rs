//! The metrics page in Prometheus' text format 0.0.4, for readers that do not know OpenMetrics.
//!
//! Converted from the OpenMetrics page, so that both always have the same metrics. In the older format a metric's description has
//! the name of its samples, `_total` and `_info` included, and there is no info type, no unit and no end mark.

/// Converts a page. The library writes HELP, then TYPE, then perhaps UNIT, then the samples of each metric.
pub(crate) fn from_openmetrics(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let mut help = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                kind => ("", kind),
            };
            for part in ["# HELP ", name, suffix, " ", help, "\n# TYPE ", name, suffix, " ", kind, "\n"] {
                text.push_str(part);
            }
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_have_the_names_of_their_samples_and_what_the_format_lacks_is_left_out() {
        let page = "# HELP ws_build The program.\n# TYPE ws_build info\nws_build_info{version=\"1\"} 1\n\
            # HELP ws_uptime_seconds Since.\n# TYPE ws_uptime_seconds gauge\n# UNIT ws_uptime_seconds seconds\nws_uptime_seconds 2.5\n\
            # HELP ws_sends Sends.\n# TYPE ws_sends counter\nws_sends_total{shard=\"0\"} 3\n\
            # HELP ws_pass_seconds One.\n# TYPE ws_pass_seconds histogram\n# UNIT ws_pass_seconds seconds\n\
            ws_pass_seconds_sum 1.0\nws_pass_seconds_count 1\nws_pass_seconds_bucket{le=\"+Inf\"} 1\n# EOF\n";
        let expected = "# HELP ws_build_info The program.\n# TYPE ws_build_info gauge\nws_build_info{version=\"1\"} 1\n\
            # HELP ws_uptime_seconds Since.\n# TYPE ws_uptime_seconds gauge\nws_uptime_seconds 2.5\n\
            # HELP ws_sends_total Sends.\n# TYPE ws_sends_total counter\nws_sends_total{shard=\"0\"} 3\n\
            # HELP ws_pass_seconds One.\n# TYPE ws_pass_seconds histogram\n\
            ws_pass_seconds_sum 1.0\nws_pass_seconds_count 1\nws_pass_seconds_bucket{le=\"+Inf\"} 1\n";
        assert_eq!(from_openmetrics(page), expected);
    }
}
