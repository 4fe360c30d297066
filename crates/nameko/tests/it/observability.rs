//! What `tracing` hears of workers: spans with who, why and how it ended; logs; nothing sensitive.

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

/// A span's fields, by name.
type Fields = BTreeMap<String, String>;

/// Keeps the spans called `worker` that were closed, and the events in them as text.
#[derive(Clone, Default)]
struct Heard {
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

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Heard {
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

/// The writer of the log that a person reads.
impl io::Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Heard {
    /// Listens on this thread, which is where a test's tasks run, until the guard is dropped.
    fn listen(filter: &str) -> (Self, DefaultGuard) {
        let heard = Self::default();
        let writer = heard.clone();
        let log = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry()
            .with(EnvFilter::new(filter))
            .with(heard.clone())
            .with(log);
        (heard, tracing::subscriber::set_default(subscriber))
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
async fn a_worker_is_a_span_that_tells_who_why_and_how_it_ended() {
    let (heard, _guard) = Heard::listen("info");
    let bank = bank().await;
    let caller = WorkerContext::fake("shop", "buy");
    let stack = nameko::context_data(caller.headers());
    let stack = stack.get("call_id_stack").cloned().unwrap();
    let login = entrypoint_hook(&bank, "login").context("call_id_stack", stack);
    let call_id: String = login.call(("ada", "secret")).await.unwrap();
    bank.stop().await;

    let spans = heard.spans();
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
    // What the method logs is inside.
    let lines = heard.lines();
    let line = lines.iter().find(|it| it.contains("checking")).unwrap();
    assert!(line.contains(&call_id), "{line}");
}

#[tokio::test]
async fn failures_are_errors_and_expected_ones_warnings() {
    let (heard, _guard) = Heard::listen("info");
    let bank = bank().await;
    let fails = entrypoint_hook(&bank, "fail").call::<()>(()).await;
    fails.unwrap_err();
    let login = entrypoint_hook(&bank, "login");
    login
        .call::<String>(("nobody", "secret"))
        .await
        .unwrap_err();
    bank.stop().await;

    let spans = heard.spans();
    assert_eq!(spans[0]["outcome"], "OutOfMoney");
    assert_eq!(spans[0]["expected"], "false");
    assert_eq!(spans[1]["outcome"], "NoAccount");
    assert_eq!(spans[1]["expected"], "true");
    let lines = heard.lines();
    let line = |text: &str| lines.iter().find(|it| it.contains(text)).unwrap();
    let failure = line("error handling worker bank.fail: OutOfMoney: the vault is empty");
    assert!(failure.contains(" ERROR "), "{failure}");
    let expected = line("(expected) error handling worker bank.login: NoAccount: no account of");
    assert!(expected.contains(" WARN "), "{expected}");
}

#[tokio::test]
async fn an_answer_that_blames_the_client_is_a_warning() {
    let (heard, _guard) = Heard::listen("info");
    let bank = bank().await;
    let answer = entrypoint_hook(&bank, "answer");
    for status in [404, 503] {
        answer.call::<()>((status,)).await.unwrap_err();
    }
    bank.stop().await;

    let spans = heard.spans();
    assert_eq!(
        [&spans[0]["expected"], &spans[1]["expected"]],
        ["true", "false"]
    );
}

#[tokio::test]
async fn a_filter_that_wants_errors_only_still_hears_whose_they_are() {
    let (heard, _guard) = Heard::listen("error");
    let bank = bank().await;
    let fails = entrypoint_hook(&bank, "fail").call::<()>(()).await;
    fails.unwrap_err();
    bank.stop().await;
    assert_eq!(heard.spans(), []);
    let lines = heard.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("call_id=\"bank.fail."), "{}", lines[0]);
}

#[tokio::test]
async fn arguments_are_logged_at_trace_only_and_never_the_sensitive_ones() {
    for (filter, shown) in [("debug", false), ("trace", true)] {
        let (heard, guard) = Heard::listen(filter);
        let bank = bank().await;
        let login = entrypoint_hook(&bank, "login");
        login.call::<String>(("ada", "secret")).await.unwrap();
        // What cannot be read is quoted nowhere either.
        let error = login.call::<String>(("ada", ["secret"])).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "login() argument 'password': it is not of the type that the method takes"
        );
        login
            .call::<String>(("nobody", "secret"))
            .await
            .unwrap_err();
        bank.stop().await;
        drop(guard);
        let lines = heard.lines();
        assert!(!lines.is_empty());
        assert!(lines.iter().all(|it| !it.contains("secret")), "{lines:#?}");
        let arguments = r#"{"user":"ada","password":"********"}"#;
        let logged = lines
            .iter()
            .any(|it| it.replace('\\', "").contains(arguments));
        assert_eq!(logged, shown, "{lines:#?}");
    }
}
