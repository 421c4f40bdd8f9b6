//! What the routes answer, byte by byte where it matters.

use serde_json::Value;

use super::*;

fn http(variables: &[(&str, &str)], dev: bool) -> (Http, Arc<Shared>) {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let brokers = (!dev).then(|| ("KAFKA_BROKERS".to_owned(), "broker:9092".to_owned()));
    let config = Config::from_pairs(variables.chain(brokers), dev).unwrap();
    let shared = Arc::new(Shared::new(config.shards.count, dev.then(|| "127.0.0.1:1234".to_owned())));
    (Http::new(Arc::new(config), Arc::clone(&shared)), shared)
}

fn running(shared: &Shared) {
    shared.kafka.update(|status| {
        status.assigned = true;
        status.warm = true;
        status.connected = true;
    });
    shared.pulses.iter().for_each(|pulse| pulse.turn(Instant::now()));
}

/// A response, taken apart.
struct Response {
    route: HttpRoute,
    status: u16,
    head: String,
    body: String,
}

fn ask_while(http: &Http, method: HttpMethod, path: &str, is_draining: bool) -> Response {
    let request = HttpRequest { method, path: path.to_owned() };
    let (route, bytes) = http.respond(&request, is_draining);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
    Response { route, status, head: head.to_owned(), body: body.to_owned() }
}

fn get(http: &Http, path: &str) -> Response {
    ask_while(http, HttpMethod::Get, path, false)
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
        // The metrics' length moves with the clock.
        let without_length =
            |head: &str| head.lines().filter(|it| !it.starts_with("Content-Length")).collect::<String>();
        let (get, head) = (get(&http, path), ask_while(&http, HttpMethod::Head, path, false));
        assert_eq!((head.route, head.status, head.body.as_str()), (route, get.status, ""), "{path}");
        assert_eq!(without_length(&head.head), without_length(&get.head), "{path}");
    }
}

#[test]
fn pages_of_any_site_may_read_the_health_but_nothing_else() {
    let (http, _) = http(&[("WS_CONSOLE", "on")], false);
    for (path, route) in PATHS {
        for method in [HttpMethod::Get, HttpMethod::Options] {
            let any_origin =
                ask_while(&http, method, path, false).head.contains("Access-Control-Allow-Origin: *");
            assert_eq!(any_origin, route == HttpRoute::Health, "{method:?} {path}");
        }
    }
}

#[test]
fn options_names_the_methods_of_what_there_is() {
    let (http, _) = http(&[("WS_CONSOLE", "on")], false);
    for (path, route) in PATHS {
        let answer = ask_while(&http, HttpMethod::Options, path, false);
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
    let (http, _) = http(&[], false);
    let answer = ask_while(&http, HttpMethod::Get, "/health/live", true);
    assert_eq!((answer.status, answer.body.trim_end()), (200, r#"{"status":"alive"}"#));
    assert_eq!(get(&http, "/health/ready").status, 503);
    assert_eq!(get(&http, "/health").status, 503);
}

#[test]
fn health_and_readiness_follow_what_the_threads_share() {
    let (http, shared) = http(&[], true);
    running(&shared);
    let answer = get(&http, "/health");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, &body["status"]), (200, &"healthy".into()), "{body}");
    assert_eq!(body["dev"]["brokers"], "127.0.0.1:1234");
    assert_eq!(get(&http, "/health/ready").body.trim_end(), r#"{"status":"ready"}"#);
    for path in ["/health", "/health/ready"] {
        let answer = ask_while(&http, HttpMethod::Get, path, true);
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
