//! `#[cron]`: selection of instances and scheduled times, with a test clock.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use nameko::{
    Clock, Container, Cron,
    amqp::{Channel, Connection},
    prelude::*,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    proxy::Proxy,
    support::{self, TestBroker, within},
};

/// A clock that only moves when set.
#[derive(Debug, Clone)]
struct SetClock {
    now: Arc<watch::Sender<SystemTime>>,
    /// The deadline of the latest sleep.
    awaited: Arc<watch::Sender<SystemTime>>,
}

impl SetClock {
    /// Creates a clock at midnight.
    fn new() -> Self {
        Self {
            now: Arc::new(watch::Sender::new(midnight())),
            awaited: Arc::new(watch::Sender::new(midnight())),
        }
    }

    /// Sets the clock to a time after that midnight.
    fn set(&self, hours: u64, minutes: u64) {
        self.now.send_replace(after_midnight(hours, minutes));
    }

    /// Waits until a sleep has this deadline.
    async fn is_awaited(&self, hours: u64, minutes: u64) {
        let mut awaited = self.awaited.subscribe();
        let time = after_midnight(hours, minutes);
        within("the wait", awaited.wait_for(|deadline| *deadline == time))
            .await
            .unwrap();
    }
}

fn after_midnight(hours: u64, minutes: u64) -> SystemTime {
    midnight() + Duration::from_secs(hours * 3600 + minutes * 60)
}

fn midnight() -> SystemTime {
    let midnight: jiff::Timestamp = "2026-03-02T00:00:00Z".parse().unwrap();
    midnight.into()
}

impl Clock for SetClock {
    fn now(&self) -> SystemTime {
        *self.now.borrow()
    }

    fn sleep(&self, duration: Duration) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut clock = self.now.subscribe();
        let begun = *clock.borrow();
        let until = begun + duration;
        self.awaited.send_replace(until);
        Box::pin(async move {
            let _ = clock.wait_for(|now| *now >= until || *now < begun).await;
        })
    }
}

/// A run of the method in one instance, which lasts until the test ends it.
#[derive(Debug)]
struct Run {
    instance: i64,
    time: String,
    end: Option<oneshot::Sender<()>>,
}

impl Run {
    fn end(mut self) -> (i64, String) {
        let _ = self.end.take().unwrap().send(());
        (self.instance, self.time)
    }
}

/// State shared by the instances of a test.
#[derive(Debug, Clone)]
struct Place {
    runs: mpsc::UnboundedSender<Run>,
}

/// States by test name; the service's configuration holds the name.
static PLACES: Mutex<Option<HashMap<String, Place>>> = Mutex::new(None);

/// The instances of one service on one broker.
struct Fleet {
    broker: TestBroker,
    test: String,
    clock: SetClock,
    runs: mpsc::UnboundedReceiver<Run>,
}

impl Fleet {
    async fn new() -> Self {
        let (sender, runs) = mpsc::unbounded_channel();
        let fleet = Self {
            broker: support::broker().await,
            test: support::unique("cron"),
            clock: SetClock::new(),
            runs,
        };
        let place = Place { runs: sender };
        let mut places = PLACES.lock().unwrap();
        places
            .get_or_insert_default()
            .insert(fleet.test.clone(), place);
        fleet
    }

    /// Starts an instance.
    async fn start<S: Service>(&self, instance: i64) -> Container {
        self.start_with::<S>(instance, self.broker.config()).await
    }

    /// Starts an instance that connects through `proxy`.
    async fn start_through<S: Service>(&self, instance: i64, proxy: &Proxy) -> Container {
        let options = proxy.options(&self.broker.options());
        let uri = &options.uris[0];
        let uri = format!(
            "amqp://{}:{}@{}:{}/{}",
            uri.user,
            uri.password,
            uri.host,
            uri.port,
            uri.vhost.replace('/', "%2F")
        );
        let config = Config::default().with("AMQP_URI", uri).with("HEARTBEAT", 1);
        self.start_with::<S>(instance, config).await
    }

    async fn start_with<S: Service>(&self, instance: i64, config: Config) -> Container {
        let config = config
            .with("TEST", self.test.as_str())
            .with("INSTANCE", instance);
        CLOCK.set(Some(self.clock.clone()));
        let container = Container::new::<S>(config).unwrap();
        within("the start", container.start()).await.unwrap();
        container
    }

    /// Opens a separate channel.
    async fn channel(&self) -> Channel {
        let connection = Connection::open(&self.broker.options()).await.unwrap();
        connection.channel().await.unwrap()
    }

    /// Waits for the next run.
    async fn run(&mut self) -> Run {
        within("a run", self.runs.recv()).await.unwrap()
    }

    /// Asserts that there are no further runs.
    fn nothing_more(&mut self) {
        if let Ok(run) = self.runs.try_recv() {
            panic!("{run:?}");
        }
    }
}

thread_local! {
    /// The clock of the container under construction: an entrypoint expression has no access to the
    /// configuration.
    static CLOCK: RefCell<Option<SetClock>> = const { RefCell::new(None) };
}

fn clock() -> SetClock {
    CLOCK.with_borrow(|clock| clock.clone()).unwrap()
}

/// A service whose method runs every hour and reports to the test.
macro_rules! hourly {
    ($service:ident, $cron:expr) => {
        #[derive(Dependencies)]
        struct $service {
            #[dependency(CurrentWorker)]
            worker: WorkerContext,
        }

        #[service("hourly")]
        impl $service {
            #[entrypoint($cron)]
            async fn hourly(&self, time: String) -> Result<()> {
                let config = self.worker.config();
                let test = config.str("TEST")?.unwrap().to_owned();
                let instance = config.int("INSTANCE")?.unwrap();
                let runs = PLACES.lock().unwrap().as_ref().unwrap()[&test].runs.clone();
                let (end, ended) = oneshot::channel();
                runs.send(Run {
                    instance,
                    time,
                    end: Some(end),
                })
                .unwrap();
                // Dropping the run ends it too.
                let _ = ended.await;
                Ok(())
            }
        }
    };
}

hourly!(Everywhere, Cron::new("0 * * * *").clock(clock()));
hourly!(Once, Cron::new("0 * * * *").once("fleet").clock(clock()));

#[tokio::test]
async fn every_instance_runs_every_time_by_default() {
    let mut fleet = Fleet::new().await;
    let one = fleet.start::<Everywhere>(1).await;
    let two = fleet.start::<Everywhere>(2).await;
    for hour in 1..4 {
        fleet.clock.set(hour, 0);
        let mut ran = [fleet.run().await.end(), fleet.run().await.end()];
        ran.sort();
        let time = format!("2026-03-02T0{hour}:00:00Z");
        assert_eq!(ran, [(1, time.clone()), (2, time)]);
    }
    one.stop().await;
    two.stop().await;
    fleet.nothing_more();
}

#[tokio::test]
async fn after_a_long_run_only_the_latest_missed_time_runs_unless_it_is_too_old() {
    let mut fleet = Fleet::new().await;
    let container = fleet.start::<Everywhere>(1).await;
    fleet.clock.set(1, 0);
    let slow = fleet.run().await;
    fleet.clock.set(5, 10);
    slow.end();
    let latest = fleet.run().await;
    assert_eq!(latest.time, "2026-03-02T05:00:00Z");
    fleet.clock.set(7, 59);
    latest.end();
    // 07:00 is 59 minutes ago.
    assert_eq!(fleet.run().await.end().1, "2026-03-02T07:00:00Z");
    container.stop().await;
    fleet.nothing_more();
}

#[tokio::test]
async fn a_corrected_clock_runs_the_following_times() {
    let mut fleet = Fleet::new().await;
    let container = fleet.start::<Everywhere>(1).await;
    fleet.clock.set(20, 0);
    assert_eq!(fleet.run().await.end().1, "2026-03-02T20:00:00Z");
    fleet.clock.is_awaited(21, 0).await;
    fleet.clock.set(9, 30);
    for hour in 10..=12 {
        fleet.clock.is_awaited(hour, 0).await;
        fleet.clock.set(hour, 0);
        let time = format!("2026-03-02T{hour}:00:00Z");
        assert_eq!(fleet.run().await.end().1, time);
    }
    container.stop().await;
    fleet.nothing_more();
}

#[tokio::test]
async fn an_instance_with_a_wrong_clock_does_not_block_the_fleet() {
    let mut fleet = Fleet::new().await;
    let wrong = fleet.start::<Once>(1).await;
    fleet.clock.set(20, 0);
    assert_eq!(fleet.run().await.end().1, "2026-03-02T20:00:00Z");
    wrong.stop().await;

    fleet.clock = SetClock::new();
    fleet.clock.set(9, 30);
    let right = fleet.start::<Once>(2).await;
    fleet.clock.is_awaited(10, 0).await;
    fleet.clock.set(10, 0);
    assert_eq!(
        fleet.run().await.end(),
        (2, "2026-03-02T10:00:00Z".to_owned())
    );
    right.stop().await;

    // Completed times are known again.
    let next = fleet.start::<Once>(3).await;
    fleet.clock.is_awaited(11, 0).await;
    fleet.clock.set(11, 0);
    assert_eq!(
        fleet.run().await.end(),
        (3, "2026-03-02T11:00:00Z".to_owned())
    );
    // Also if the clock of the leader is corrected.
    fleet.clock.is_awaited(12, 0).await;
    fleet.clock.set(6, 30);
    fleet.clock.is_awaited(7, 0).await;
    fleet.clock.set(7, 0);
    assert_eq!(
        fleet.run().await.end(),
        (3, "2026-03-02T07:00:00Z".to_owned())
    );
    next.stop().await;
    fleet.nothing_more();
}

#[tokio::test]
async fn one_instance_of_the_fleet_runs_each_time() {
    let mut fleet = Fleet::new().await;
    let mut instances = Vec::new();
    for number in 1..=4 {
        instances.push(fleet.start::<Once>(number).await);
    }
    for hour in 1..=5 {
        fleet.clock.set(hour, 0);
        let (_, time) = fleet.run().await.end();
        assert_eq!(time, format!("2026-03-02T0{hour}:00:00Z"));
    }
    for container in &instances {
        container.stop().await;
    }
    fleet.nothing_more();
}

#[tokio::test]
async fn after_the_leader_stops_another_instance_takes_over() {
    let mut fleet = Fleet::new().await;
    let mut instances = HashMap::new();
    for number in 1..=3 {
        instances.insert(number, fleet.start::<Once>(number).await);
    }
    for hour in 1..=3 {
        fleet.clock.set(hour, 0);
        let run = fleet.run().await;
        assert_eq!(run.time, format!("2026-03-02T0{hour}:00:00Z"));
        // Stopped during a run: the run completes and counts.
        let leader = instances.remove(&run.instance).unwrap();
        let stop = tokio::spawn(async move { leader.stop().await });
        run.end();
        within("the stop", stop).await.unwrap();
    }
    fleet.nothing_more();
}

#[tokio::test]
async fn after_the_leader_dies_during_a_run_another_instance_repeats_it() {
    let mut fleet = Fleet::new().await;
    let mut instances = HashMap::new();
    for number in 1..=3 {
        instances.insert(number, fleet.start::<Once>(number).await);
    }
    fleet.clock.set(1, 0);
    let run = fleet.run().await;
    let died = run.instance;
    kill(&instances.remove(&died).unwrap()).await;
    let again = fleet.run().await;
    assert_eq!(again.time, run.time);
    assert_ne!(again.instance, died);
    again.end();
    fleet.clock.set(2, 0);
    assert_eq!(fleet.run().await.end().1, "2026-03-02T02:00:00Z");
    for container in instances.values() {
        container.stop().await;
    }
    fleet.nothing_more();
}

#[tokio::test]
async fn a_run_that_kills_every_instance_is_abandoned() {
    let mut fleet = Fleet::new().await;
    let mut instances = HashMap::new();
    for number in 1..=4 {
        instances.insert(number, fleet.start::<Once>(number).await);
    }
    fleet.clock.set(1, 0);
    for _ in 0..3 {
        let run = fleet.run().await;
        assert_eq!(run.time, "2026-03-02T01:00:00Z");
        kill(&instances.remove(&run.instance).unwrap()).await;
    }
    // The last instance has not run it before the next time is due.
    fleet.clock.set(2, 0);
    let run = fleet.run().await;
    assert_eq!(run.time, "2026-03-02T02:00:00Z");
    let last = instances.remove(&run.instance).unwrap();
    run.end();
    last.stop().await;
    fleet.nothing_more();
}

#[tokio::test]
async fn a_reconnected_leader_repeats_no_run() {
    let mut fleet = Fleet::new().await;
    let mut proxy = Proxy::start(fleet.broker.addr()).await;
    let one = fleet.start_through::<Once>(1, &proxy).await;
    fleet.clock.set(1, 0);
    assert_eq!(fleet.run().await.end().1, "2026-03-02T01:00:00Z");
    let two = fleet.start::<Once>(2).await;
    for hour in 2..=4 {
        proxy.cut().await;
        fleet.clock.set(hour, 0);
        let (_, time) = fleet.run().await.end();
        assert_eq!(time, format!("2026-03-02T0{hour}:00:00Z"));
    }
    one.stop().await;
    two.stop().await;
    fleet.nothing_more();
}

#[tokio::test]
async fn a_leader_partitioned_from_the_broker_runs_nothing() {
    let mut fleet = Fleet::new().await;
    let proxy = Proxy::start(fleet.broker.addr()).await;
    let cut_off = fleet.start_through::<Once>(1, &proxy).await;
    fleet.clock.set(1, 0);
    assert_eq!(
        fleet.run().await.end(),
        (1, "2026-03-02T01:00:00Z".to_owned())
    );
    let other = fleet.start::<Once>(2).await;
    proxy.freeze();
    fleet.clock.set(2, 0);
    // After the broker has missed its heartbeats.
    assert_eq!(
        fleet.run().await.end(),
        (2, "2026-03-02T02:00:00Z".to_owned())
    );
    cut_off.kill(Error::raise("Killed", "by the test"));
    fleet.clock.set(3, 0);
    assert_eq!(
        fleet.run().await.end(),
        (2, "2026-03-02T03:00:00Z".to_owned())
    );
    other.stop().await;
    fleet.nothing_more();
}

#[tokio::test]
async fn a_time_missed_while_no_instance_ran_is_run_once_by_the_first_to_start() {
    let mut fleet = Fleet::new().await;
    let before = fleet.start::<Once>(1).await;
    fleet.clock.set(1, 0);
    fleet.run().await.end();
    before.stop().await;

    fleet.clock.set(4, 30);
    let one = fleet.start::<Once>(2).await;
    let two = fleet.start::<Once>(3).await;
    assert_eq!(fleet.run().await.end().1, "2026-03-02T04:00:00Z");
    fleet.clock.set(5, 0);
    assert_eq!(fleet.run().await.end().1, "2026-03-02T05:00:00Z");
    one.stop().await;
    two.stop().await;

    // Completed runs are remembered.
    let after = fleet.start::<Once>(4).await;
    fleet.clock.set(6, 0);
    assert_eq!(fleet.run().await.end().1, "2026-03-02T06:00:00Z");
    after.stop().await;
    fleet.nothing_more();
}

#[tokio::test]
async fn a_deleted_queue_is_redeclared() {
    let mut fleet = Fleet::new().await;
    let one = fleet.start::<Once>(1).await;
    let two = fleet.start::<Once>(2).await;
    let channel = fleet.channel().await;
    let mut ran = Vec::new();
    for hour in 1..24 {
        fleet.clock.set(hour, 0);
        // A time due while the queue is missing is lost; one of the following runs is the first.
        let run = tokio::time::timeout(Duration::from_millis(500), fleet.runs.recv()).await;
        let Ok(Some(run)) = run else { continue };
        ran.push(run.end().1);
        if ran.len() == 3 {
            break;
        }
        channel
            .queue_delete("cron-hourly.hourly--0_*_*_*_*--UTC")
            .await
            .unwrap();
    }
    assert_eq!(ran.len(), 3);
    assert!(ran.is_sorted_by(|one, other| one < other), "{ran:?}");
    one.stop().await;
    two.stop().await;
    fleet.nothing_more();
}

#[tokio::test]
async fn an_invalid_leader_token_is_dropped() {
    let mut fleet = Fleet::new().await;
    let container = fleet.start::<Once>(1).await;
    let channel = fleet.channel().await;
    for body in [
        "",
        "{",
        "null",
        "{\"member\": 1}",
        "{\"member\":\"x\",\"serial\":1,\"last\":\"soon\",\"running\":null}",
    ] {
        let message = nameko::amqp::Publish {
            routing_key: "cron-hourly.hourly--0_*_*_*_*--UTC".to_owned(),
            body: body.into(),
            ..Default::default()
        };
        channel.publish(&message).await.unwrap().await.unwrap();
    }
    fleet.clock.set(1, 0);
    assert_eq!(fleet.run().await.end().1, "2026-03-02T01:00:00Z");
    container.stop().await;
    fleet.nothing_more();
}

/// Kills an instance.
async fn kill(container: &Container) {
    container.kill(Error::raise("Killed", "by the test"));
    within("the end", container.wait()).await.unwrap_err();
}

macro_rules! rejected {
    ($test:ident, $cron:expr, $error:literal) => {
        #[test]
        fn $test() {
            #[derive(Dependencies)]
            struct Wrong;

            #[service("wrong")]
            impl Wrong {
                #[entrypoint($cron)]
                async fn nightly(&self) -> Result<()> {
                    Ok(())
                }
            }

            let error = Container::new::<Wrong>(Config::default()).unwrap_err();
            assert_eq!(
                error.to_string(),
                concat!("wrong cannot start: entrypoint `cron ", $error)
            );
        }
    };
}

rejected!(
    an_invalid_expression_is_an_error_at_construction,
    Cron::new("61 * * * *"),
    "61 * * * * UTC` of the method `nightly`: invalid cron expression `61 * * * *`: `61` is not a valid minute"
);
rejected!(
    an_unknown_time_zone_is_an_error_at_construction,
    Cron::new("0 3 * * *").tz("Europe/Londn"),
    "0 3 * * * Europe/Londn` of the method `nightly`: unknown time zone `Europe/Londn`: use an IANA name such as `Europe/London`"
);
rejected!(
    a_date_that_never_occurs_is_an_error_at_construction,
    Cron::new("0 3 31 4 *"),
    "0 3 31 4 * UTC` of the method `nightly`: the cron expression `0 3 31 4 *` never matches a date"
);
rejected!(
    an_invalid_scope_is_an_error_at_construction,
    Cron::new("0 3 * * *").once("city"),
    "0 3 * * * UTC, once in the fleet` of the method `nightly`: `once` must be \"fleet\", not \"city\""
);
