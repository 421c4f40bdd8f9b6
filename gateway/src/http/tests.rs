//! The answers of the routes, byte by byte where it matters.

use serde_json::Value;

use super::*;
use crate::shared::Shared;

fn config(variables: &[(&str, &str)], dev: bool) -> Config {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let brokers = (!dev).then(|| ("KAFKA_BROKERS".to_owned(), "broker:9092".to_owned()));
    Config::from_pairs(variables.chain(brokers), dev).unwrap()
}

fn http(variables: &[(&str, &str)], dev: bool) -> (Http, Arc<Shared>) {
    let config = config(variables, dev);
    let shared = Arc::new(Shared::new(config.shards.count, dev.then(|| "127.0.0.1:1234".to_owned())));
    let config = Arc::new(config);
    let http = Http::new(&config, Arc::default());
    Renderer::new(config, Arc::clone(&shared), Arc::clone(&http.pages), Instant::now())
        .refresh(Instant::now());
    (http, shared)
}

/// Renders as the main thread does in the next second.
fn render(http: &Http, shared: &Arc<Shared>, variables: &[(&str, &str)], is_draining: bool) {
    let now = Instant::now();
    let mut renderer =
        Renderer::new(Arc::new(config(variables, true)), Arc::clone(shared), Arc::clone(&http.pages), now);
    if is_draining { renderer.begin_drain(now) } else { renderer.refresh(now) }
}

fn running(shared: &Shared) {
    shared.kafka.update(|status| {
        status.assigned = true;
        status.warm = true;
        status.connected = true;
    });
    shared.pulses.iter().for_each(|pulse| pulse.turn(Instant::now()));
}

/// A parsed response.
struct Response {
    route: HttpRoute,
    status: u16,
    head: String,
    body: String,
}

fn ask(http: &Http, method: HttpMethod, path: &str) -> Response {
    ask_for(
        http,
        &HttpRequest { method, path: path.to_owned(), wants_prometheus_text: false },
        Instant::now(),
    )
}

fn ask_for(http: &Http, request: &HttpRequest, now: Instant) -> Response {
    let (route, bytes) = http.respond(request, now);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
    Response { route, status, head: head.to_owned(), body: body.to_owned() }
}

fn get(http: &Http, path: &str) -> Response {
    ask(http, HttpMethod::Get, path)
}

const PATHS: [(&str, HttpRoute); 6] = [
    ("/health", HttpRoute::Health),
    ("/health/live", HttpRoute::Health),
    ("/health/ready", HttpRoute::Health),
    ("/metrics", HttpRoute::Metrics),
    ("/", HttpRoute::Console),
    ("/elsewhere", HttpRoute::NotFound),
];

#[test]
fn every_answer_closes_the_connection_tells_its_length_and_is_not_stored() {
    let (http, _) = http(&[("WS_CONSOLE", "on")], false);
    for (path, route) in PATHS {
        let Response { route: found, head, body, .. } = get(&http, path);
        assert_eq!(found, route, "{path}");
        for line in
            ["Connection: close", "Cache-Control: no-store", &format!("Content-Length: {}", body.len())]
        {
            assert!(head.lines().any(|found| found == line), "{path}: {line} is not in {head}");
        }
    }
}

#[test]
fn head_answers_as_get_without_the_body() {
    let (http, _) = http(&[("WS_CONSOLE", "on")], false);
    for (path, route) in PATHS {
        let (get, head) = (get(&http, path), ask(&http, HttpMethod::Head, path));
        assert_eq!((head.route, head.status, head.body.as_str()), (route, get.status, ""), "{path}");
        assert_eq!(head.head, get.head, "{path}");
    }
}

#[test]
fn pages_of_any_site_may_read_the_health_but_nothing_else() {
    let (http, _) = http(&[("WS_CONSOLE", "on")], false);
    for (path, route) in PATHS {
        for method in [HttpMethod::Get, HttpMethod::Options] {
            let any_origin = ask(&http, method, path).head.contains("Access-Control-Allow-Origin: *");
            assert_eq!(any_origin, route == HttpRoute::Health, "{method:?} {path}");
        }
    }
}

#[test]
fn options_names_the_methods_of_what_there_is() {
    let (http, _) = http(&[("WS_CONSOLE", "on")], false);
    for (path, route) in PATHS {
        let answer = ask(&http, HttpMethod::Options, path);
        if route == HttpRoute::NotFound {
            assert_eq!(answer.status, 404, "{path}");
        } else {
            assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
            assert!(answer.head.contains("Allow: GET, HEAD, OPTIONS"), "{path}: {}", answer.head);
        }
    }
}

#[test]
fn the_console_is_there_when_it_is_switched_on_and_else_says_how() {
    let (off, _) = http(&[], false);
    let answer = get(&off, "/");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.route, answer.status), (HttpRoute::NotFound, 404));
    assert!(body["message"].as_str().unwrap().contains("WS_CONSOLE=on"), "{body}");
    for (on, _) in [http(&[("WS_CONSOLE", "on")], false), http(&[], true)] {
        let answer = get(&on, "/");
        assert_eq!((answer.route, answer.status), (HttpRoute::Console, 200));
        assert!(answer.head.contains("Content-Type: text/html; charset=utf-8"), "{}", answer.head);
        assert_eq!(answer.body, console::PAGE);
    }
}

#[test]
fn an_unknown_path_is_told_what_there_is() {
    let (http, _) = http(&[], false);
    for path in ["/elsewhere", "/health/", "/healthy", "/metrics/x", "", "*", "/../health"] {
        let answer = get(&http, path);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(
            (answer.route, answer.status, &body["error"]),
            (HttpRoute::NotFound, 404, &"not_found".into())
        );
        assert!(body["message"].as_str().unwrap().contains("/health"), "{body}");
    }
}

#[test]
fn the_process_is_alive_while_it_is_neither_ready_nor_well() {
    let (http, shared) = http(&[], true);
    render(&http, &shared, &[], true);
    let answer = get(&http, "/health/live");
    assert_eq!((answer.status, answer.body.trim_end()), (200, r#"{"status":"alive"}"#));
    assert_eq!(get(&http, "/health/ready").status, 503);
    assert_eq!(get(&http, "/health").status, 503);
}

#[test]
fn health_and_readiness_follow_what_the_threads_share() {
    let (http, shared) = http(&[], true);
    running(&shared);
    render(&http, &shared, &[], false);
    let answer = get(&http, "/health");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, &body["status"]), (200, &"healthy".into()), "{body}");
    assert_eq!(body["dev"]["brokers"], "127.0.0.1:1234");
    assert_eq!(get(&http, "/health/ready").body.trim_end(), r#"{"status":"ready"}"#);
    render(&http, &shared, &[], true);
    for path in ["/health", "/health/ready"] {
        let answer = get(&http, path);
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.body.contains("draining"), "{}", answer.body);
    }
}

#[test]
fn metrics_are_openmetrics() {
    let (http, _) = http(&[], false);
    let answer = get(&http, "/metrics");
    assert_eq!((answer.route, answer.status), (HttpRoute::Metrics, 200));
    assert!(
        answer.head.contains("Content-Type: application/openmetrics-text; version=1.0.0"),
        "{}",
        answer.head
    );
    assert!(answer.body.ends_with("# EOF\n"));
}

#[test]
fn who_accepts_text_and_not_openmetrics_gets_the_format_of_prometheus() {
    let (http, _) = http(&[], false);
    let request = |wants_prometheus_text| {
        let request =
            HttpRequest { method: HttpMethod::Get, path: "/metrics".to_owned(), wants_prometheus_text };
        ask_for(&http, &request, Instant::now())
    };
    let (text, openmetrics) = (request(true), request(false));
    assert!(text.head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8"), "{}", text.head);
    assert!(text.body.contains("\n# TYPE ws_sends_total counter\n") && !text.body.contains("# EOF"));
    let samples = |body: &str| -> Vec<String> {
        body.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    assert_eq!(samples(&text.body), samples(&openmetrics.body));
}

#[test]
fn pages_of_a_main_thread_that_hangs_are_not_believed_but_its_numbers_are_shown() {
    let (http, shared) = http(&[], true);
    running(&shared);
    render(&http, &shared, &[], false);
    let later = Instant::now() + crate::limits::PAGES_AGE_MAX + std::time::Duration::from_secs(1);
    let at = |path: &str, now| {
        let path = path.to_owned();
        ask_for(&http, &HttpRequest { method: HttpMethod::Get, path, wants_prometheus_text: false }, now)
    };
    for (path, soon, late) in [
        ("/health", 200, 503),
        ("/health/ready", 200, 503),
        ("/health/live", 200, 503),
        ("/metrics", 200, 200),
    ] {
        assert_eq!((at(path, Instant::now()).status, at(path, later).status), (soon, late), "{path}");
    }
    let body: Value = serde_json::from_str(&at("/health", later).body).unwrap();
    assert_eq!((&body["status"], &body["healthy"]), (&"unhealthy".into(), &false.into()), "{body}");
    assert!(body["errors"][0].as_str().unwrap().contains("main thread"), "{body}");
}

#[test]
fn before_the_first_pages_nothing_is_ready() {
    let config = config(&[], true);
    let http = Http::new(&config, Arc::default());
    for path in ["/health", "/health/ready", "/metrics"] {
        assert_eq!(get(&http, path).status, 503, "{path}");
    }
    assert_eq!(get(&http, "/health/live").status, 200);
}
