//! `tracing` spans and logs of workers, without sensitive values.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use nameko::{
    prelude::*,
    testing::{Dummy, entrypoint_hook},
    web::{self, StatusCode},
};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    EnvFilter, Layer, layer::Context, layer::SubscriberExt, registry::LookupSpan,
};

/// Fields of a span, by name.
type Fields = BTreeMap<String, String>;

/// Records closed `worker` spans and the text of events in them.
#[derive(Clone, Default)]
struct Received {
    spans: Arc<Mutex<Vec<Fields>>>,
    text: Arc<Mutex<Vec<u8>>>,
}

struct Visitor<'a>(&'a mut Fields);

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let value = format!("{value:?}");
        self.0.insert(field.name().to_owned(), value);
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Received {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, ctx: Context<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Visitor(&mut fields));
        ctx.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &span::Id, record: &span::Record<'_>, ctx: Context<'_, S>) {
        let span = ctx.span(id).unwrap();
        let mut extensions = span.extensions_mut();
        record.record(&mut Visitor(extensions.get_mut().unwrap()));
    }

    fn on_close(&self, id: span::Id, ctx: Context<'_, S>) {
        let span = ctx.span(&id).unwrap();
        let fields = span.extensions().get::<Fields>().cloned().unwrap();
        self.spans.lock().unwrap().push(fields);
    }
}

/// Captures the formatted log.
impl io::Write for Received {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Received {
    /// Subscribes on this thread, where the tasks of a test run, until the guard is dropped.
    fn listen(filter: &str) -> (Self, DefaultGuard) {
        let received = Self::default();
        let writer = received.clone();
        let log = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry()
            .with(EnvFilter::new(filter))
            .with(received.clone())
            .with(log);
        (received, tracing::subscriber::set_default(subscriber))
    }

    fn spans(&self) -> Vec<Fields> {
        self.spans.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.text.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no account of {0}")]
struct NoAccount(String);

#[derive(Dependencies)]
struct Bank {
    #[dependency(CurrentWorker)]
    worker: WorkerContext,
}

#[service("bank")]
impl Bank {
    #[entrypoint(Dummy, sensitive_arguments("password"), expected_exceptions(NoAccount))]
    async fn login(&self, user: String, password: String) -> Result<String, NoAccount> {
        tracing::info!("checking the password of {user}");
        if user == "nobody" || password.is_empty() {
            return Err(NoAccount(user));
        }
        Ok(self.worker.call_id().to_owned())
    }

    #[entrypoint(Dummy)]
    async fn fail(&self) -> Result<()> {
        Err(Error::raise("OutOfMoney", "the vault is empty"))
    }

    #[entrypoint(Dummy)]
    async fn answer(&self, status: u16) -> Result<(), web::Error> {
        let status = StatusCode::from_u16(status).unwrap();
        Err(web::Error::new(status, "sorry"))
    }
}

async fn bank() -> Container {
    let container = Container::new::<Bank>(Config::new()).unwrap();
    container.start().await.unwrap();
    container
}

#[tokio::test]
async fn a_worker_span_has_the_call_the_parent_and_the_outcome() {
    let (received, _guard) = Received::listen("info");
    let bank = bank().await;
    let caller = WorkerContext::mock("shop", "buy");
    let stack = nameko::context_data(caller.headers());
    let stack = stack.get("call_id_stack").cloned().unwrap();
    let login = entrypoint_hook(&bank, "login").context("call_id_stack", stack);
    let call_id: String = login.call(("ada", "secret")).await.unwrap();
    bank.stop().await;

    let spans = received.spans();
    let [worker] = spans.as_slice() else {
        panic!("{spans:?}")
    };
    for (field, value) in [
        ("service", "bank"),
        ("method", "login"),
        ("entrypoint", "dummy"),
        ("call_id", call_id.as_str()),
        ("parent", caller.call_id()),
        ("outcome", "ok"),
    ] {
        assert_eq!(
            worker.get(field).map(String::as_str),
            Some(value),
            "{field}"
        );
    }
    let duration: f64 = worker["duration_ms"].parse().unwrap();
    assert!((0.0..60_000.0).contains(&duration), "{duration}");
    // Log events of the method are inside the span.
    let lines = received.lines();
    let line = lines.iter().find(|line| line.contains("checking")).unwrap();
    assert!(line.contains(&call_id), "{line}");
}

#[tokio::test]
async fn failures_are_errors_and_expected_exceptions_are_warnings() {
    let (received, _guard) = Received::listen("info");
    let bank = bank().await;
    let fails = entrypoint_hook(&bank, "fail").call::<()>(()).await;
    fails.unwrap_err();
    let login = entrypoint_hook(&bank, "login");
    login
        .call::<String>(("nobody", "secret"))
        .await
        .unwrap_err();
    bank.stop().await;

    let spans = received.spans();
    assert_eq!(spans[0]["outcome"], "OutOfMoney");
    assert_eq!(spans[0]["expected"], "false");
    assert_eq!(spans[1]["outcome"], "NoAccount");
    assert_eq!(spans[1]["expected"], "true");
    let lines = received.lines();
    let line = |text: &str| lines.iter().find(|line| line.contains(text)).unwrap();
    let failure = line("error handling worker bank.fail: OutOfMoney: the vault is empty");
    assert!(failure.contains(" ERROR "), "{failure}");
    let expected = line("(expected) error handling worker bank.login: NoAccount: no account of");
    assert!(expected.contains(" WARN "), "{expected}");
}

#[tokio::test]
async fn a_client_error_response_is_a_warning() {
    let (received, _guard) = Received::listen("info");
    let bank = bank().await;
    let answer = entrypoint_hook(&bank, "answer");
    for status in [404, 503] {
        answer.call::<()>((status,)).await.unwrap_err();
    }
    bank.stop().await;

    let spans = received.spans();
    assert_eq!(
        [&spans[0]["expected"], &spans[1]["expected"]],
        ["true", "false"]
    );
}

#[tokio::test]
async fn a_filter_for_errors_keeps_the_span_of_the_worker() {
    let (received, _guard) = Received::listen("error");
    let bank = bank().await;
    let fails = entrypoint_hook(&bank, "fail").call::<()>(()).await;
    fails.unwrap_err();
    bank.stop().await;
    assert_eq!(received.spans(), []);
    let lines = received.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("call_id=\"bank.fail."), "{}", lines[0]);
}

#[tokio::test]
async fn arguments_are_logged_at_trace_with_sensitive_ones_redacted() {
    for (filter, shown) in [("debug", false), ("trace", true)] {
        let (received, guard) = Received::listen(filter);
        let bank = bank().await;
        let login = entrypoint_hook(&bank, "login");
        login.call::<String>(("ada", "secret")).await.unwrap();
        // Unreadable arguments are not quoted either.
        let error = login.call::<String>(("ada", ["secret"])).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "login() argument 'password': does not have the type of the parameter"
        );
        login
            .call::<String>(("nobody", "secret"))
            .await
            .unwrap_err();
        bank.stop().await;
        drop(guard);
        let lines = received.lines();
        assert!(!lines.is_empty());
        assert!(
            lines.iter().all(|line| !line.contains("secret")),
            "{lines:#?}"
        );
        let arguments = r#"{"user":"ada","password":"********"}"#;
        let logged = lines
            .iter()
            .any(|line| line.replace('\\', "").contains(arguments));
        assert_eq!(logged, shown, "{lines:#?}");
    }
}
