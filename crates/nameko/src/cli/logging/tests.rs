use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tracing::{Subscriber, field, info, info_span, subscriber::with_default};
use tracing_subscriber::{layer::SubscriberExt as _, registry};

use super::{super::arguments::LogFormat, layer::Log};

/// Returns the log lines of `program`, without the time.
fn lines(
    format: LogFormat,
    process: Option<u16>,
    colours: bool,
    program: impl FnOnce(),
) -> Vec<String> {
    let written = Arc::new(Mutex::new(Vec::new()));
    let log = Log {
        format,
        process,
        colours,
        write: {
            let written = written.clone();
            move |line: &str| written.lock().unwrap().push(line.to_owned())
        },
    };
    let subscriber: Box<dyn Subscriber + Send + Sync> = Box::new(registry().with(log));
    with_default(subscriber, program);
    let written = written.lock().unwrap();
    written
        .iter()
        .map(|line| line.strip_suffix('\n').expect("a line end").to_owned())
        .collect()
}

fn text(program: impl FnOnce()) -> Vec<String> {
    let lines = lines(LogFormat::Text, None, false, program);
    let without_time = |it: &String| {
        let (time, rest) = it.split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
        rest.to_owned()
    };
    lines.iter().map(without_time).collect()
}

fn json(program: impl FnOnce()) -> Vec<Value> {
    let lines = lines(LogFormat::Json, None, false, program);
    let without_time = |it: &String| {
        let mut line: Value = serde_json::from_str(it).unwrap();
        let time = line.as_object_mut().unwrap().shift_remove("timestamp");
        assert!(time.unwrap().as_str().unwrap().ends_with('Z'));
        line
    };
    lines.iter().map(without_time).collect()
}

/// Runs `program` inside a worker span, then logs `done` inside the ended span.
fn worker(program: impl FnOnce()) {
    let span = info_span!(
        "worker",
        service = "shop",
        method = "buy",
        call_id = "shop.buy.5d48ffd3",
        parent = None::<&str>,
        outcome = field::Empty,
        duration_ms = field::Empty,
    );
    span.in_scope(program);
    span.record("outcome", "ok").record("duration_ms", 1.5);
    span.in_scope(|| info!("done"));
}

#[test]
fn a_text_line_has_the_message_first_and_then_the_call() {
    let said = text(|| {
        worker(|| info!(target: "shop", price = 3, currency = "EUR", "sold a {}", "hat"));
    });
    assert_eq!(
        said[0],
        " INFO shop: sold a hat price=3 currency=\"EUR\" [shop.buy.5d48ffd3]"
    );
    assert!(said[1].ends_with("done [shop.buy.5d48ffd3]"), "{said:?}");
}

#[test]
fn a_span_inside_the_call_is_shown_with_its_fields() {
    let said = text(|| {
        worker(|| {
            let rows = info_span!("query", table = "hats", rows = 2);
            rows.in_scope(|| info_span!("parse").in_scope(|| info!(target: "db", "slow")));
        });
    });
    assert_eq!(
        said[0],
        " INFO db: slow [shop.buy.5d48ffd3 query{table=\"hats\" rows=2} parse]"
    );
}

#[test]
fn on_a_terminal_everything_but_the_message_is_dimmed() {
    let said = lines(LogFormat::Text, None, true, || {
        worker(|| info!(target: "shop", "sold"));
    });
    assert!(
        said[0].ends_with(
            "\x1b[32m INFO\x1b[0m \x1b[2mshop:\x1b[0m sold\x1b[2m [shop.buy.5d48ffd3\x1b[0m\x1b[2m]\x1b[0m"
        ),
        "{:?}",
        said[0]
    );
}

#[test]
fn control_characters_of_a_peer_are_escaped() {
    let evil = "\x1b]0;title\x07\u{9b}31m";
    let said = text(|| info!(name = %evil, quoted = evil, "two\nlines {evil}"));
    assert!(
        !said[0].chars().any(|c| c.is_control() && c != '\n'),
        "{said:?}"
    );
    assert!(
        said[0].contains("two\nlines \\u{1b}]0;title\\u{7}\\u{9b}31m name=\\u{1b}]0;"),
        "{said:?}"
    );
}

#[test]
fn an_error_is_shown_with_its_sources() {
    #[derive(Debug, thiserror::Error)]
    #[error("no stock")]
    struct NoStock(#[source] std::fmt::Error);

    let error = NoStock(std::fmt::Error);
    let said = text(|| info!(target: "shop", error = &error as &dyn std::error::Error, "sorry"));
    let cause = std::fmt::Error.to_string();
    assert_eq!(
        said[0],
        format!(" INFO shop: sorry error=no stock: {cause}")
    );
}

#[test]
fn a_json_line_has_the_fields_of_each_span_once() {
    let said = json(|| {
        worker(|| {
            info!(target: "shop", price = 3, paid = true, "sold");
            info_span!("query", rows = 2).in_scope(|| info!(target: "db", "slow"));
        });
    });
    let call = json!({
        "name": "worker", "service": "shop", "method": "buy", "call_id": "shop.buy.5d48ffd3",
    });
    assert_eq!(
        said[0],
        json!({
            "level": "INFO", "message": "sold", "price": 3, "paid": true, "target": "shop",
            "span": call,
        })
    );
    assert_eq!(
        said[1],
        json!({
            "level": "INFO", "message": "slow", "target": "db",
            "span": {"name": "query", "rows": 2}, "spans": [call],
        })
    );
    assert_eq!(said[2]["span"]["outcome"], "ok");
    assert_eq!(said[2]["span"]["duration_ms"], 1.5);
}

#[test]
fn keys_of_a_json_line_are_unique() {
    let lines = lines(LogFormat::Json, None, false, || {
        let span = info_span!("greet", name = "ada", tries = 1);
        span.record("tries", 2);
        span.in_scope(|| info!(level = 7, r#type = "x", "hello"));
    });
    let line = &lines[0];
    for key in ["level", "level_", "type", "name", "name_", "tries"] {
        assert_eq!(line.matches(&format!("\"{key}\":")).count(), 1, "{line}");
    }
    assert!(line.contains("\"level_\":7") && line.contains("\"tries\":2"));
}

#[test]
fn non_finite_numbers_keep_the_line_valid() {
    let said = json(|| info!(nan = f64::NAN, large = u128::MAX, "odd"));
    assert_eq!(said[0]["nan"], Value::Null);
    assert_eq!(said[0]["large"], u128::MAX.to_string());
}

#[test]
fn a_line_has_the_number_of_its_process() {
    let text = lines(LogFormat::Text, Some(2), false, || info!("up"));
    assert!(text[0].starts_with("[2] 20"), "{text:?}");
    let json = lines(LogFormat::Json, Some(2), false, || info!("up"));
    assert!(
        json[0].starts_with(r#"{"process":2,"timestamp":""#),
        "{json:?}"
    );
}
