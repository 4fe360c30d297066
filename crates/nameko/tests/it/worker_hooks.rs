//! The hooks of a worker: their order for every kind of entrypoint, hooks that fail, panic or hang
//! at each step, and the teardown of workers that are dropped before their end.

use std::{
    collections::VecDeque,
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt, future::join_all};
use nameko::{
    Container, EventHandler, Outcome, StandaloneDispatcher, StatefulProvider, WorkerEnd,
    amqp::{Connection, Queue},
    prelude::*,
    testing::{Dummy, Once, Recorder, entrypoint_hook, entrypoint_waiter},
    web,
};
use tokio::sync::{Notify, Semaphore};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::{
    http_client::{Client, serve},
    support::{self, broker, no_broker, within},
};

/// The order of all steps, one test per kind of entrypoint on one service.
mod order {
    use super::*;

    /// The steps of all workers, with the method.
    static STEPS: Mutex<Vec<(&'static str, String)>> = Mutex::new(Vec::new());
    /// Holds `worker_result` until the test has received the reply.
    static REPLIED: Semaphore = Semaphore::const_new(0);

    fn record(ctx: &WorkerContext, step: impl Into<String>) {
        STEPS.lock().unwrap().push((ctx.method_name(), step.into()));
    }

    /// A provider without a state, first in the list.
    struct First;

    impl DependencyProvider for First {
        type Dependency = ();

        async fn get_dependency(&self, ctx: &WorkerContext) -> Result<()> {
            record(ctx, "first get_dependency");
            Ok(())
        }

        async fn worker_setup(&self, ctx: &WorkerContext) -> Result<()> {
            record(ctx, "first worker_setup");
            Ok(())
        }

        async fn before_reply(&self, ctx: &WorkerContext, outcome: &mut Outcome) -> Result<()> {
            record(ctx, "first before_reply");
            match ctx.method_name() {
                "get" => Err(web::Error::not_found("no such order").into()),
                "consume" => Err(Error::raise("Conflict", "the commit failed")),
                _ => {
                    let text = json_of(outcome);
                    *outcome = Ok(Box::new(format!("{text}, replaced")));
                    Ok(())
                }
            }
        }

        async fn worker_result(&self, ctx: &WorkerContext, outcome: &Outcome) -> Result<()> {
            REPLIED.acquire().await.unwrap().forget();
            record(ctx, format!("first worker_result {}", json_of(outcome)));
            Ok(())
        }

        async fn worker_teardown(&self, ctx: &WorkerContext) -> Result<()> {
            record(ctx, "first worker_teardown");
            Ok(())
        }
    }

    /// A provider with a state: the steps of this worker.
    struct Second;

    impl StatefulProvider for Second {
        type Dependency = ();
        type State = Vec<&'static str>;

        async fn get_dependency(&self, ctx: &WorkerContext) -> Result<((), Self::State)> {
            record(ctx, "second get_dependency");
            Ok(((), vec!["made"]))
        }

        async fn worker_setup(&self, ctx: &WorkerContext, state: &mut Self::State) -> Result<()> {
            state.push("set up");
            record(ctx, "second worker_setup");
            Ok(())
        }

        async fn before_reply(
            &self,
            ctx: &WorkerContext,
            state: &mut Self::State,
            outcome: &mut Outcome,
        ) -> Result<()> {
            state.push(if outcome.is_ok() { "ok" } else { "error" });
            record(ctx, "second before_reply");
            Ok(())
        }

        async fn worker_result(
            &self,
            ctx: &WorkerContext,
            state: &mut Self::State,
            _: &Outcome,
        ) -> Result<()> {
            state.push("result");
            record(ctx, "second worker_result");
            Ok(())
        }

        async fn worker_teardown(
            &self,
            ctx: &WorkerContext,
            state: Self::State,
            end: WorkerEnd<'_>,
        ) -> Result<()> {
            let state = state.join(", ");
            record(ctx, format!("second worker_teardown {end:?} after {state}"));
            Ok(())
        }
    }

    fn json_of(outcome: &Outcome) -> String {
        match outcome {
            Ok(value) => String::from_utf8(value.to_json().unwrap()).unwrap(),
            Err(fault) => fault.to_string(),
        }
    }

    #[derive(Dependencies)]
    struct Ordered {
        #[dependency(First)]
        _first: (),
        #[dependency(Second)]
        _second: (),
        #[dependency(CurrentWorker)]
        worker: WorkerContext,
    }

    impl Ordered {
        fn work(&self) -> Result<u8> {
            record(&self.worker, "method");
            Ok(7)
        }
    }

    #[service("ordered")]
    impl Ordered {
        #[rpc]
        async fn call(&self) -> Result<u8> {
            self.work()
        }

        #[entrypoint(EventHandler::new("shop", "sold"))]
        async fn event(&self, _data: u8) -> Result<u8> {
            self.work()
        }

        #[consume(Queue::new("orders").dead_letter("", "dead"), reject_on_error)]
        async fn consume(&self, _order: u8) -> Result<u8> {
            self.work()
        }

        #[timer(interval = 3600, eager = true)]
        async fn tick(&self) -> Result<u8> {
            self.work()
        }

        #[cron("* * * * * *")]
        async fn schedule(&self) -> Result<u8> {
            self.work()
        }

        #[http(GET, "/")]
        async fn get(&self) -> Result<String> {
            self.work().map(|number| number.to_string())
        }

        #[websocket_rpc]
        async fn socket(&self, _socket_id: String) -> Result<u8> {
            self.work()
        }

        #[entrypoint(Once::new(()))]
        async fn custom(&self) -> Result<u8> {
            self.work()
        }
    }

    #[tokio::test]
    async fn each_kind_of_entrypoint_has_the_same_order_of_hooks() {
        let broker = broker().await;
        let methods = [
            "call", "event", "consume", "tick", "schedule", "get", "socket", "custom",
        ];
        let config = broker.config().with("WEB_SERVER_ADDRESS", "127.0.0.1:0");
        let container = Container::new::<Ordered>(config).unwrap();
        let mut waiters = methods.map(|method| entrypoint_waiter(&container, method));
        container.start().await.unwrap();
        let address = web::address(&container).unwrap();
        let connection = Connection::open(&broker.options()).await.unwrap();
        let channel = connection.channel().await.unwrap();
        channel.queue_declare(&Queue::new("dead")).await.unwrap();
        let mut dead = support::consume(&channel, "dead").await;

        let cluster = nameko::Cluster::connect(&broker.config()).await.unwrap();
        let dispatcher = StandaloneDispatcher::new(&broker.config()).unwrap();
        let mut client = Client::connect(address).await;
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut socket, _) = client_async("ws://localhost/ws", stream).await.unwrap();
        let connected = within("the event", socket.next()).await.unwrap().unwrap();
        assert!(
            connected.to_text().unwrap().contains("connected"),
            "{connected}"
        );

        for (method, ended) in methods.into_iter().zip(&mut waiters) {
            // The reply, or the dead letter, arrives while `worker_result` is held.
            let mut outcome = "7, replaced";
            match method {
                "call" => {
                    let reply = cluster.service("ordered").call::<String>("call", ()).await;
                    assert_eq!(reply.unwrap(), outcome);
                }
                "event" => dispatcher.dispatch("shop", "sold", &1).await.unwrap(),
                "consume" => {
                    support::put(&channel, "orders", "application/json", b"1").await;
                    assert_eq!(&dead.next().await.body[..], b"1");
                    outcome = "the commit failed";
                }
                "get" => {
                    let answer = client.get("/").await;
                    assert_eq!(answer.short(), (404, "Error: NotFound: no such order\n"));
                    outcome = "no such order";
                }
                "socket" => {
                    let request = r#"{"method": "socket", "data": {}}"#;
                    socket.send(Message::text(request)).await.unwrap();
                    let reply = within("a reply", socket.next()).await.unwrap().unwrap();
                    assert!(reply.to_text().unwrap().contains(outcome), "{reply}");
                }
                _ => {}
            }
            // Also for the timer, the schedule and the custom entrypoint, which fire by themselves.
            REPLIED.add_permits(10);
            within(method, ended.next()).await.unwrap();
            let (ends, json) = match outcome {
                "7, replaced" => (
                    "Completed(Ok) after made, set up, ok, result",
                    r#""7, replaced""#,
                ),
                error => ("Completed(Err) after made, set up, error, result", error),
            };
            let expected = [
                "first get_dependency".to_owned(),
                "second get_dependency".to_owned(),
                "first worker_setup".to_owned(),
                "second worker_setup".to_owned(),
                "method".to_owned(),
                "first before_reply".to_owned(),
                "second before_reply".to_owned(),
                format!("first worker_result {json}"),
                "second worker_result".to_owned(),
                "first worker_teardown".to_owned(),
                format!("second worker_teardown {ends}"),
            ];
            let steps: Vec<_> = STEPS.lock().unwrap().clone();
            let steps = steps.into_iter().filter(|step| step.0 == method);
            let steps: Vec<_> = steps.map(|step| step.1).take(expected.len()).collect();
            assert_eq!(steps, expected, "{method}");
            // The next reply arrives before `worker_result` again.
            while let Ok(permit) = REPLIED.try_acquire() {
                permit.forget();
            }
        }
        // The schedule may be running.
        REPLIED.add_permits(100);
        cluster.stop().await;
        container.stop().await;
    }
}

/// Hooks that fail, panic or hang at each step.
mod failing {
    use super::*;

    /// The steps of `Fragile`, which misbehaves in the step named by the context data.
    type Journal = Recorder<String>;

    /// Records the teardown, and fails on request.
    struct Fragile {
        journal: Journal,
        name: &'static str,
    }

    impl Fragile {
        async fn step(&self, ctx: &WorkerContext, step: &str) -> Result<()> {
            let asked = |key| {
                ctx.get(key)
                    .is_some_and(|value| value.as_str() == Some(step))
            };
            if self.name == "good" {
                return Ok(());
            }
            if asked("fail") {
                return Err(Error::raise("Broken", format!("{step} failed")));
            }
            if asked("kill") {
                return Err(Error::fatal(format!("{step} is fatal")));
            }
            assert!(!asked("panic"), "{step} panicked");
            if asked("hang") {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    }

    impl StatefulProvider for Fragile {
        type Dependency = Journal;
        type State = ();

        async fn stop(&self) {
            self.journal.record(format!("{} stops", self.name));
        }

        async fn get_dependency(&self, ctx: &WorkerContext) -> Result<(Journal, ())> {
            self.step(ctx, "get_dependency").await?;
            Ok((self.journal.clone(), ()))
        }

        async fn worker_setup(&self, ctx: &WorkerContext, (): &mut ()) -> Result<()> {
            self.step(ctx, "worker_setup").await
        }

        async fn before_reply(
            &self,
            ctx: &WorkerContext,
            (): &mut (),
            _: &mut Outcome,
        ) -> Result<()> {
            self.step(ctx, "before_reply").await
        }

        async fn worker_result(
            &self,
            ctx: &WorkerContext,
            (): &mut (),
            outcome: &Outcome,
        ) -> Result<()> {
            self.journal.record(match outcome {
                Ok(_) => format!("{} result ok", self.name),
                Err(fault) => format!("{} result {fault}", self.name),
            });
            self.step(ctx, "worker_result").await
        }

        async fn worker_teardown(
            &self,
            ctx: &WorkerContext,
            (): (),
            end: WorkerEnd<'_>,
        ) -> Result<()> {
            self.journal.record(format!("{} {end:?}", self.name));
            self.step(ctx, "worker_teardown").await
        }
    }

    fn unused(name: &'static str) -> Fragile {
        let journal = Journal::default();
        Fragile { journal, name }
    }

    #[derive(Dependencies)]
    struct Porcelain {
        #[dependency(unused("good"))]
        journal: Journal,
        #[dependency(unused("bad"))]
        _bad: Journal,
    }

    #[service("porcelain")]
    impl Porcelain {
        #[entrypoint(Dummy)]
        async fn work(&self) -> Result<u8> {
            self.journal.record("method".to_owned());
            Ok(7)
        }

        #[entrypoint(Dummy)]
        async fn hang(&self) -> Result<u8> {
            std::future::pending().await
        }
    }

    async fn started(config: Config) -> (Container, Journal) {
        let journal = Journal::default();
        let fragile = |name| Fragile {
            journal: journal.clone(),
            name,
        };
        let container = Container::builder::<Porcelain>(config)
            .replace_provider("journal", fragile("good"))
            .replace_provider("_bad", fragile("bad"))
            .build()
            .unwrap();
        container.start().await.unwrap();
        (container, journal)
    }

    #[tokio::test]
    async fn a_failed_hook_before_the_reply_is_the_outcome_of_its_call_only() {
        let (container, journal) = started(no_broker()).await;
        let work = entrypoint_hook(&container, "work");
        for (step, how) in ["get_dependency", "worker_setup", "before_reply"]
            .into_iter()
            .flat_map(|step| [(step, "fail"), (step, "panic")])
        {
            let error = work.clone().context(how, step).call::<u8>(()).await;
            let text = format!("{step} {how}ed").replace("panic", "panick");
            assert_eq!(error.unwrap_err().to_string(), text);
            let method = (step == "before_reply").then_some("method".to_owned());
            let injected = ["good", "bad"];
            let injected = &injected[..if step == "get_dependency" { 1 } else { 2 }];
            let results = injected.iter().map(|name| format!("{name} result {text}"));
            let ends = injected.iter().map(|name| format!("{name} Completed(Err)"));
            let expected: Vec<_> = method.into_iter().chain(results).chain(ends).collect();
            assert_eq!(journal.take(), expected, "{step} {how}");
        }
        assert_eq!(work.call::<u8>(()).await.unwrap(), 7);
        container.stop().await;
        container.wait().await.unwrap();
    }

    #[tokio::test]
    async fn a_failed_hook_after_the_reply_changes_nothing() {
        let (container, journal) = started(no_broker()).await;
        let work = entrypoint_hook(&container, "work");
        for (step, how) in ["worker_result", "worker_teardown"]
            .into_iter()
            .flat_map(|step| [(step, "fail"), (step, "panic")])
        {
            let number: u8 = work.clone().context(how, step).call(()).await.unwrap();
            assert_eq!(number, 7);
            assert_eq!(
                journal.take(),
                [
                    "method",
                    "good result ok",
                    "bad result ok",
                    "good Completed(Ok)",
                    "bad Completed(Ok)"
                ],
                "{step} {how}"
            );
        }
        container.stop().await;
        container.wait().await.unwrap();
    }

    #[tokio::test]
    async fn only_a_fatal_error_kills_the_container() {
        for step in [
            "get_dependency",
            "worker_setup",
            "before_reply",
            "worker_result",
            "worker_teardown",
        ] {
            let (container, journal) = started(no_broker()).await;
            let work = entrypoint_hook(&container, "work").context("kill", step);
            let error = work.call::<u8>(()).await.unwrap_err();
            let text = format!("porcelain was killed: {step} is fatal");
            assert_eq!(error.to_string(), text);
            within("the end", container.wait()).await.unwrap_err();
            let torn_down = |entry: &String| entry.contains("good ") && !entry.contains("result");
            assert!(journal.take().iter().any(torn_down), "{step}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_teardown_runs_if_a_worker_is_aborted_at_any_step() {
        let (container, journal) = started(no_broker()).await;
        let work = entrypoint_hook(&container, "work").timeout(Duration::from_secs(1));
        for step in [
            "get_dependency",
            "worker_setup",
            "before_reply",
            "worker_result",
            "worker_teardown",
        ] {
            let error = work.clone().context("hang", step).call::<u8>(()).await;
            assert!(error.unwrap_err().is_timeout(), "{step}");
            // Torn down in a task of the container. A hanging teardown is cancelled.
            let end = match step {
                "worker_result" | "worker_teardown" => "Completed(Ok)",
                _ => "Cancelled",
            };
            let mut expected = vec![format!("good {end}")];
            if step != "get_dependency" {
                expected.push(format!("bad {end}"));
            }
            let torn_down = || {
                let mut ends = journal.items();
                ends.retain(|step| step.contains("C"));
                ends
            };
            while torn_down().len() < expected.len() {
                tokio::task::yield_now().await;
            }
            assert_eq!(torn_down(), expected, "{step}");
            journal.take();
        }
        assert_eq!(work.call::<u8>(()).await.unwrap(), 7);
        container.stop().await;
        container.wait().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_the_teardown_of_aborted_workers() {
        let (container, journal) = started(no_broker().with("stop_timeout", 1)).await;
        let hang = entrypoint_hook(&container, "hang");
        let call = tokio::spawn(async move { hang.call::<u8>(()).await });
        tokio::task::yield_now().await;
        within("the stop", container.stop()).await;
        assert_eq!(
            journal.take(),
            ["good Cancelled", "bad Cancelled", "good stops", "bad stops"]
        );
        call.await.unwrap().unwrap_err();
    }

    #[tokio::test]
    async fn a_kill_tears_workers_down() {
        let (container, journal) = started(no_broker()).await;
        let hang = entrypoint_hook(&container, "hang");
        let call = tokio::spawn(async move { hang.call::<u8>(()).await });
        tokio::task::yield_now().await;
        container.kill(Error::raise("Killed", "by the test"));
        within("the end", container.wait()).await.unwrap_err();
        assert_eq!(journal.take(), ["good Killed", "bad Killed"]);
        call.await.unwrap().unwrap_err();
    }
}

/// A pool whose members must come back.
mod pool {
    use super::*;

    static POOL: LazyLock<Mutex<VecDeque<u8>>> = LazyLock::new(|| Mutex::new((0..10).collect()));
    /// Notified when the tenth worker hangs.
    static ALL_HANG: Notify = Notify::const_new();
    static HANGING: AtomicUsize = AtomicUsize::new(0);

    struct Pool;

    impl StatefulProvider for Pool {
        type Dependency = u8;
        type State = u8;

        async fn get_dependency(&self, _: &WorkerContext) -> Result<(u8, u8)> {
            let member = POOL.lock().unwrap().pop_front();
            let member = member.ok_or_else(|| Error::raise("Empty", "the pool is empty"))?;
            Ok((member, member))
        }

        async fn worker_teardown(
            &self,
            _: &WorkerContext,
            member: u8,
            end: WorkerEnd<'_>,
        ) -> Result<()> {
            if matches!(end, WorkerEnd::Cancelled) {
                // Slow, to show that the worker keeps its slot meanwhile.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            POOL.lock().unwrap().push_back(member);
            Ok(())
        }
    }

    #[derive(Dependencies)]
    struct Borrower {
        #[dependency(Pool)]
        member: u8,
    }

    #[service("borrower")]
    impl Borrower {
        #[http(GET, "/hang")]
        async fn hang(&self) -> Result<String> {
            if HANGING.fetch_add(1, Ordering::SeqCst) % 10 == 9 {
                ALL_HANG.notify_one();
            }
            std::future::pending().await
        }

        #[http(GET, "/work")]
        async fn work(&self) -> Result<String> {
            Ok(format!("{}", self.member < 10))
        }
    }

    #[tokio::test]
    async fn ten_timeouts_leave_a_pool_of_ten_whole() {
        let config = no_broker()
            .with("WEB_SERVER_TIMEOUT", 0.2)
            .with("max_workers", 10);
        let (container, address) = serve::<Borrower>(config).await;
        let get = async |path: &str| Client::connect(address).await.get(path).await.status;
        for _ in 0..2 {
            let hanging = join_all((0..10).map(|_| get("/hang")));
            let (statuses, ()) = tokio::join!(hanging, ALL_HANG.notified());
            assert_eq!(statuses, [503; 10]);
            let statuses = join_all((0..20).map(|_| get("/work"))).await;
            assert_eq!(statuses, [200; 20]);
        }
        container.stop().await;
        assert_eq!(POOL.lock().unwrap().len(), 10);
    }
}
