//! Reads what a PromQL expression asks for: metrics with the labels that select among them, and the labels that it groups by.
//!
//! A scanner, not a parser: whether an expression is correct is Prometheus's to say (scripts/observability-test.sh asks it).

use std::collections::BTreeSet;

/// What an expression asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) metrics: Vec<Selected>,
    /// In `by`, `on` and the like.
    pub(crate) groupings: BTreeSet<String>,
}

/// A metric and what its braces hold: label, operator, value.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) name: String,
    pub(crate) matchers: Vec<[String; 3]>,
}

const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const OPERATORS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

/// Reads an expression.
pub(crate) fn read(expression: &str) -> Asked {
    let tokens = tokens(expression);
    let mut asked = Asked::default();
    let mut at = 0;
    while at < tokens.len() {
        let Token::Word(word) = &tokens[at] else {
            at += 1;
            continue;
        };
        at += 1;
        let opens = |sign| tokens.get(at) == Some(&Token::Sign(sign));
        // Sums and the like may say what they group by before what they take.
        let is_aggregation =
            matches!(tokens.get(at), Some(Token::Word(next)) if GROUPINGS.contains(&next.as_str()));
        if GROUPINGS.contains(&word.as_str()) && opens('(') {
            let labels = until(&tokens, &mut at, ')');
            asked.groupings.extend(labels.iter().filter_map(word_of));
        } else if !OPERATORS.contains(&word.as_str()) && !is_aggregation && !opens('(') {
            let matchers = if opens('{') { matchers(&until(&tokens, &mut at, '}')) } else { Vec::new() };
            asked.metrics.push(Selected { name: word.clone(), matchers });
        }
    }
    asked
}

/// From an opening bracket to the closing one, without both.
fn until(tokens: &[Token], at: &mut usize, end: char) -> Vec<Token> {
    let inside: Vec<Token> =
        tokens[*at + 1..].iter().take_while(|token| **token != Token::Sign(end)).cloned().collect();
    *at += inside.len() + 2;
    inside
}

fn word_of(token: &Token) -> Option<String> {
    if let Token::Word(word) = token { Some(word.clone()) } else { None }
}

fn matchers(tokens: &[Token]) -> Vec<[String; 3]> {
    let parts = tokens.split(|token| *token == Token::Sign(',')).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let [Token::Word(label), signs @ .., Token::Text(value)] = part else { panic!("{part:?}") };
            let operator =
                signs.iter().map(|sign| if let Token::Sign(sign) = sign { *sign } else { '?' }).collect();
            [label.clone(), operator, value.clone()]
        })
        .collect()
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expression.chars().peekable();
    while let Some(first) = rest.next() {
        let is_of_word = |&next: &char| next.is_ascii_alphanumeric() || "_:".contains(next);
        if first.is_ascii_alphabetic() || first == '_' || first == ':' {
            let mut word = String::from(first);
            while let Some(next) = rest.next_if(is_of_word) {
                word.push(next);
            }
            tokens.push(Token::Word(word));
        } else if first.is_ascii_digit() || first == '$' {
            // A number, a duration, or a variable of the dashboard in the place of one.
            while rest.next_if(|next| is_of_word(next) || *next == '.').is_some() {}
        } else if "\"'`".contains(first) {
            tokens.push(Token::Text(rest.by_ref().take_while(|&next| next != first).collect()));
        } else if !first.is_whitespace() {
            tokens.push(Token::Sign(first));
        }
    }
    tokens
}

#[test]
fn metrics_labels_and_groupings_are_told_from_functions_numbers_and_texts() {
    let asked = read(
        r#"histogram_quantile(0.99, sum by (le, shard) (rate(a_b_bucket{from="poll", x!~"c|d"}[$__rate_interval])))
           / on (job) group_left () (b:c:rate5m > 1e3) unless up == 0 or vector(0)"#,
    );
    let names: Vec<&str> = asked.metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["a_b_bucket", "b:c:rate5m", "up"]);
    let matchers = [["from", "=", "poll"], ["x", "!~", "c|d"]].map(|it| it.map(str::to_owned));
    assert_eq!(asked.metrics[0].matchers, matchers);
    assert_eq!(asked.groupings, ["job", "le", "shard"].map(str::to_owned).into());
}
