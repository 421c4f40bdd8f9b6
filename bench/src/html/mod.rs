//! The result of one or more runs as a self-contained page: no script, and no font or picture from elsewhere.
//!
//! `plots` selects the plotted data, `chart` draws it (an inline SVG), and `style.css` provides light and
//! dark colours. All text is escaped, and a policy in the page's head forbids a browser to load anything. The
//! page is also well-formed XML. It shows the given data: it contains no verdict logic and no measurement.

mod chart;
mod plots;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use crate::series::{LatencyDistribution, Sample};

/// The contents of a page.
#[derive(Clone, Debug, Default)]
pub struct HtmlInput {
    /// The heading.
    pub title: String,
    /// The command line of the run, for repeating it.
    pub command_line: String,
    /// Whether the run passed.
    pub passed: bool,
    /// Why the run failed.
    pub reasons: Vec<String>,
    /// Notes that are needed to interpret the figures.
    pub notes: Vec<String>,
    /// Column headings of the table, such as the names of the runs; empty for a single column without a
    /// heading.
    pub columns: Vec<String>,
    /// The table.
    pub figures: Vec<Figure>,
    /// The plotted runs; several runs share their plots.
    pub runs: Vec<Run>,
    /// The complete configuration of the server, as text.
    pub configuration: String,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The name of the figure, with its unit.
    pub name: String,
    /// One value for each column.
    pub values: Vec<String>,
}

/// A plotted run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The name in the legends.
    pub name: String,
    /// In chronological order.
    pub series: Vec<Sample>,
    /// The latency distribution of the whole run.
    pub latency: LatencyDistribution,
}

/// Renders the page.
pub fn page(input: &HtmlInput) -> String {
    let title = escaped(&input.title);
    let style = include_str!("style.css");
    let sections =
        [header(input), figures(input), plots(&input.runs), notes(&input.notes), configuration(input)];
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{}<footer>odin-bench {}</footer>
</body>
</html>
"#,
        sections.concat(),
        env!("CARGO_PKG_VERSION"),
    )
}

fn header(input: &HtmlInput) -> String {
    let (class, verdict) = if input.passed { ("passed", "Passed") } else { ("failed", "Failed") };
    let mut html = format!("<header>\n<h1>{}</h1>\n", escaped(&input.title));
    if !input.command_line.is_empty() {
        let _ = writeln!(html, "<pre class=\"command\">{}</pre>", escaped(&input.command_line));
    }
    let _ = writeln!(html, "<p class=\"verdict {class}\">{verdict}</p>");
    html.push_str(&list(&input.reasons));
    html.push_str("</header>\n");
    html
}

fn figures(input: &HtmlInput) -> String {
    let mut html = String::from("<section>\n<h2>Figures</h2>\n<div class=\"scroll\"><table>\n");
    if !input.columns.is_empty() {
        let columns =
            input.columns.iter().map(|column| format!("<th scope=\"col\">{}</th>", escaped(column)));
        let _ = writeln!(html, "<thead><tr><td></td>{}</tr></thead>", columns.collect::<String>());
    }
    html.push_str("<tbody>\n");
    for Figure { name, values } in &input.figures {
        let values = values.iter().map(|value| format!("<td>{}</td>", escaped(value))).collect::<String>();
        let _ = writeln!(html, "<tr><th scope=\"row\">{}</th>{values}</tr>", escaped(name));
    }
    html.push_str("</tbody>\n</table></div>\n</section>\n");
    html
}

fn plots(runs: &[Run]) -> String {
    let mut html = String::from("<section class=\"plots\">\n");
    for plot in plots::all(runs) {
        let title = escaped(plot.title);
        let _ = writeln!(html, "<figure>\n<figcaption>{title}</figcaption>");
        match chart::draw(&plot) {
            Some(svg) => {
                html.push_str(&legend(&plot));
                let _ = writeln!(html, "<div role=\"img\" aria-label=\"{title}\">{svg}</div>");
            }
            None => html.push_str("<p class=\"nothing\">Nothing was reported.</p>\n"),
        }
        html.push_str("</figure>\n");
    }
    html.push_str("</section>\n");
    html
}

/// The legend of a plot; a plot of one line needs none.
fn legend(plot: &plots::Plot) -> String {
    let lines = plot.lines.iter().filter(|line| !line.is_empty());
    let items = lines.map(|line| {
        format!(
            "<li><svg width=\"28\" height=\"8\" aria-hidden=\"true\"><path class=\"{}\" d=\"M2 4H26\"/></svg>{}</li>",
            line.style.class(),
            escaped(&line.name)
        )
    });
    let items: Vec<String> = items.collect();
    if items.len() < 2 {
        return String::new();
    }
    format!("<ul class=\"legend\">{}</ul>\n", items.concat())
}

fn notes(notes: &[String]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    format!("<section>\n<h2>Notes</h2>\n{}</section>\n", list(notes))
}

fn configuration(input: &HtmlInput) -> String {
    if input.configuration.is_empty() {
        return String::new();
    }
    format!(
        "<section>\n<details>\n<summary><h2>Configuration</h2></summary>\n<pre>{}</pre>\n</details>\n</section>\n",
        escaped(&input.configuration)
    )
}

fn list(items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items = items.iter().map(|item| format!("<li>{}</li>\n", escaped(item))).collect::<String>();
    format!("<ul>\n{items}</ul>\n")
}

/// Escapes text for an element and for a quoted attribute. Control characters, which neither HTML nor XML can
/// contain, are replaced.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            '\n' | '\t' => html.push(character),
            '\r' => {}
            '\u{fffe}' | '\u{ffff}' => html.push(char::REPLACEMENT_CHARACTER),
            character if character.is_control() => html.push(char::REPLACEMENT_CHARACTER),
            character => html.push(character),
        }
    }
    html
}
