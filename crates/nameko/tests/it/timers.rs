//! `#[timer]` on the runtime's paused clock, without a broker.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nameko::{Container, Timer, prelude::*};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

/// A service with a timer that reports its ticks in milliseconds after the start.
macro_rules! ticking {
    ($service:ident, $timer:expr, |$tick:ident| $work:expr) => {
        static PLACE: std::sync::Mutex<Option<(Instant, mpsc::UnboundedSender<u64>)>> =
            std::sync::Mutex::new(None);
        static TICKS: AtomicU32 = AtomicU32::new(0);

        #[derive(Dependencies)]
        struct $service;

        #[service("ticking")]
        impl $service {
            #[entrypoint($timer)]
            async fn tick(&self) -> Result<()> {
                let (begun, sender) = PLACE.lock().unwrap().clone().unwrap();
                let after = begun.elapsed().as_millis() as u64;
                // Fails after the end of the test.
                let _ = sender.send(after);
                let $tick = TICKS.fetch_add(1, Ordering::Relaxed);
                $work
            }
        }

        async fn start() -> (Container, mpsc::UnboundedReceiver<u64>) {
            let (sender, receiver) = mpsc::unbounded_channel();
            let container = Container::new::<$service>(Config::default()).unwrap();
            *PLACE.lock().unwrap() = Some((Instant::now(), sender));
            container.start().await.unwrap();
            (container, receiver)
        }
    };
}

async fn ticks(receiver: &mut mpsc::UnboundedReceiver<u64>, count: usize) -> Vec<u64> {
    let mut ticks = Vec::new();
    for _ in 0..count {
        ticks.push(receiver.recv().await.unwrap());
    }
    ticks
}

async fn work(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(start_paused = true)]
async fn ticks_occur_at_multiples_of_the_interval_without_drift() {
    ticking!(Steady, Timer::new(5), |_tick| {
        work(1234).await;
        Ok(())
    });
    let (container, mut receiver) = start().await;
    assert_eq!(
        ticks(&mut receiver, 4).await,
        [5000, 10_000, 15_000, 20_000]
    );
    container.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_eager_timer_ticks_immediately() {
    ticking!(Eager, Timer::new(0.5).eager(true), |_tick| Ok(()));
    let (container, mut receiver) = start().await;
    assert_eq!(ticks(&mut receiver, 3).await, [0, 500, 1000]);
    container.stop().await;
}

/// As upstream's `test_timer_run_rapid_ticks`: ticks never overlap and none is skipped.
#[tokio::test(start_paused = true)]
async fn missed_ticks_run_after_a_slow_worker_until_caught_up() {
    ticking!(Slow, Timer::new(Duration::from_secs(1)), |tick| {
        work(if tick == 0 { 3500 } else { 100 }).await;
        Ok(())
    });
    let (container, mut receiver) = start().await;
    assert_eq!(
        ticks(&mut receiver, 6).await,
        [1000, 4500, 4600, 4700, 5000, 6000]
    );
    container.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_or_panicking_method_does_not_stop_its_timer() {
    ticking!(Failing, Timer::new(1), |tick| {
        match tick {
            0 => Err(nameko::Error::raise("Failure", "no luck")),
            1 => panic!("out of cheese"),
            _ => Ok(()),
        }
    });
    let (container, mut receiver) = start().await;
    assert_eq!(ticks(&mut receiver, 3).await, [1000, 2000, 3000]);
    container.stop().await;
    container.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_the_worker_but_not_for_the_interval() {
    static DONE: AtomicU32 = AtomicU32::new(0);
    static LET_GO: Notify = Notify::const_new();
    ticking!(Stopped, Timer::new(3600).eager(true), |_tick| {
        LET_GO.notified().await;
        DONE.fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    let (container, mut receiver) = start().await;
    ticks(&mut receiver, 1).await;
    let stop = tokio::spawn({
        let container = container.clone();
        async move { container.stop().await }
    });
    tokio::task::yield_now().await;
    assert!(!stop.is_finished());
    let before = Instant::now();
    LET_GO.notify_one();
    stop.await.unwrap();
    assert_eq!(DONE.load(Ordering::Relaxed), 1);
    assert!(before.elapsed() < Duration::from_secs(1));
    assert!(receiver.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_kill_ends_the_worker() {
    ticking!(Killed, Timer::new(1), |_tick| std::future::pending().await);
    let (container, mut receiver) = start().await;
    ticks(&mut receiver, 1).await;
    container.kill(nameko::Error::raise("Killed", "enough"));
    container.wait().await.unwrap_err();
    container.stop().await;
    assert!(receiver.try_recv().is_err());
}

/// Dropping the last handle of a container ends it and its timers.
#[tokio::test(start_paused = true)]
async fn a_dropped_container_stops_ticking() {
    ticking!(Dropped, Timer::new(1), |_tick| Ok(()));
    let (container, mut receiver) = start().await;
    drop(container);
    PLACE.lock().unwrap().take();
    assert_eq!(receiver.recv().await, None);
}

#[test]
fn a_zero_interval_is_an_error_at_construction() {
    #[derive(Dependencies)]
    struct Hasty;

    #[service("hasty")]
    impl Hasty {
        #[entrypoint(Timer::new(INTERVAL))]
        async fn tick(&self) -> Result<()> {
            Ok(())
        }
    }
    const INTERVAL: u64 = 0;

    let error = Container::new::<Hasty>(Config::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "hasty cannot start: entrypoint `timer every 0 s` of the method `tick`: the interval of a timer must be greater than 0 seconds, not 0 s"
    );
}

#[test]
fn a_timer_method_with_parameters_is_an_error_at_construction() {
    #[derive(Dependencies)]
    struct Wanting;

    #[service("wanting")]
    impl Wanting {
        #[entrypoint(Timer::new(1))]
        async fn tick(&self, count: u32) -> Result<u32> {
            Ok(count)
        }
    }

    let error = Container::new::<Wanting>(Config::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "wanting cannot start: entrypoint `timer every 1s` of the method `tick`: the method requires the argument `count`, but a timer passes no arguments"
    );
}
