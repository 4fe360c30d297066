//! Methods on the I/O thread: which run there, and what they do to others if they block it.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use nameko::{Cluster, Config, Runner, ServiceProxy, Services, prelude::*, services};
use tokio::{runtime::Handle, task::JoinSet};

use crate::support::{self, TestBroker, within};

const IO_THREAD: &str = "nameko-io";

fn thread_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

/// A latch that methods wait for with their thread.
struct Latch(Mutex<Option<mpsc::Receiver<()>>>);

impl Latch {
    const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Closes the latch until the sender is dropped.
    fn close(&self) -> mpsc::Sender<()> {
        let (sender, receiver) = mpsc::channel();
        *self.0.lock().unwrap() = Some(receiver);
        sender
    }

    /// Blocks the thread until the latch is open.
    fn wait(&self) {
        let receiver = self.0.lock().unwrap();
        if let Some(receiver) = &*receiver {
            let _ = receiver.recv();
        }
    }
}

/// Starts services on a broker that drops connections after two seconds without a heartbeat.
async fn start(services: &Services, broker: &TestBroker) -> (Runner, Cluster) {
    let config: Config = broker.config().with("HEARTBEAT", 1);
    let runner = Runner::new::<&str>(services, &[], &config).unwrap();
    within("the start", runner.start()).await.unwrap();
    let cluster = within("the client", Cluster::connect(&config))
        .await
        .unwrap();
    (runner, cluster)
}

async fn stop(runner: &Runner, cluster: &Cluster) {
    within("the client", cluster.stop()).await;
    within("the stop", runner.stop()).await;
}

/// Calls `method`, which returns the name of its thread, until that is the I/O thread.
async fn reach_io_thread(service: &ServiceProxy, method: &str) {
    within("a call on the I/O thread", async {
        while service.call::<String>(method, ()).await.unwrap() != IO_THREAD {}
    })
    .await;
}

/// A service beside the one under test, whose second method needs the runtime.
#[derive(Dependencies)]
struct Neighbour;

#[service("neighbour")]
impl Neighbour {
    #[rpc]
    async fn echo(&self, value: u32) -> Result<u32> {
        Ok(value)
    }

    #[rpc]
    async fn wait(&self, value: u32) -> Result<u32> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(value)
    }
}

/// Calls both methods of the neighbour until `duration` is over.
async fn call_neighbour(cluster: &Cluster, duration: Duration) {
    let neighbour = cluster.service("neighbour");
    let start = Instant::now();
    for number in 0.. {
        for method in ["echo", "wait"] {
            let call = neighbour.call::<u32>(method, (number,));
            assert_eq!(within("a neighbour", call).await.unwrap(), number);
        }
        if start.elapsed() >= duration {
            break;
        }
    }
}

static SUDDEN: Latch = Latch::new();
static SUDDEN_BLOCKS: AtomicU32 = AtomicU32::new(0);

#[derive(Dependencies)]
struct Sudden;

#[service("sudden")]
impl Sudden {
    #[rpc]
    async fn turn(&self) -> Result<String> {
        Ok(thread_name())
    }

    /// Blocks the I/O thread. Returns whether it did.
    #[rpc]
    async fn block(&self) -> Result<bool> {
        let blocks = thread_name() == IO_THREAD;
        if blocks {
            SUDDEN_BLOCKS.fetch_add(1, Ordering::SeqCst);
            SUDDEN.wait();
        }
        Ok(blocks)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_method_that_suddenly_blocks_delays_neither_heartbeats_nor_other_calls() {
    let broker = support::broker().await;
    let (runner, cluster) = start(&services![Sudden, Neighbour], &broker).await;
    let sudden = cluster.service("sudden");
    let hold = SUDDEN.close();
    let blocked = tokio::spawn({
        let sudden = sudden.clone();
        async move { while !sudden.call::<bool>("block", ()).await.unwrap() {} }
    });
    within("the blocked call", async {
        while SUDDEN_BLOCKS.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Longer than a broker waits for a heartbeat.
    call_neighbour(&cluster, Duration::from_secs(4)).await;
    // Short methods run on the next I/O thread.
    reach_io_thread(&sudden, "turn").await;
    drop(hold);
    within("the reply", blocked).await.unwrap();
    let blocks = SUDDEN_BLOCKS.load(Ordering::SeqCst);
    assert_eq!(blocks, 1, "the method ran once");
    stop(&runner, &cluster).await;
}

static SLOW: Latch = Latch::new();
static SLOW_BEGUN: AtomicU32 = AtomicU32::new(0);

#[derive(Dependencies)]
struct Slow;

#[service("slow")]
impl Slow {
    #[rpc]
    async fn block(&self, short: Option<bool>) -> Result<String> {
        SLOW_BEGUN.fetch_add(1, Ordering::SeqCst);
        match short {
            Some(true) => thread::sleep(Duration::from_millis(300)),
            _ => SLOW.wait(),
        }
        Ok(thread_name())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_of_a_method_known_to_block_leave_all_threads_of_the_runtime_to_others() {
    let broker = support::broker().await;
    let (runner, cluster) = start(&services![Slow, Neighbour], &broker).await;
    let slow = cluster.service("slow");
    let first = within("the first call", slow.call::<String>("block", (true,))).await;
    assert_ne!(first.unwrap(), IO_THREAD, "an unknown method");
    let hold = SLOW.close();
    let mut blocked = JoinSet::new();
    for _ in 0..4 {
        let slow = slow.clone();
        blocked.spawn(async move { slow.call::<String>("block", ()).await });
    }
    within("the blocked calls", async {
        while SLOW_BEGUN.load(Ordering::SeqCst) < 5 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    call_neighbour(&cluster, Duration::from_secs(4)).await;
    drop(hold);
    let replies = within("the replies", blocked.join_all()).await;
    assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    assert_eq!(SLOW_BEGUN.load(Ordering::SeqCst), 5, "each ran once");
    stop(&runner, &cluster).await;
}

#[derive(Dependencies)]
struct Various;

#[service("various")]
impl Various {
    #[rpc]
    async fn fail(&self, fail: Option<bool>) -> Result<String> {
        assert_ne!(fail, Some(true), "on {}", thread_name());
        Ok(thread_name())
    }

    #[rpc]
    async fn use_runtime(&self) -> Result<String> {
        let runtime = Handle::current().id();
        let inner = tokio::spawn(async move { Handle::current().id() == runtime });
        let blocked = tokio::task::block_in_place(thread_name);
        assert!(inner.await.unwrap());
        Ok(blocked)
    }

    #[rpc]
    async fn runtime(&self) -> Result<String> {
        Ok(format!("{:?} {:?}", thread_name(), Handle::current().id()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_on_the_io_thread_is_the_error_of_its_call_alone() {
    let broker = support::broker().await;
    let (runner, cluster) = start(&services![Various, Neighbour], &broker).await;
    let various = cluster.service("various");
    within("a panic on the I/O thread", async {
        loop {
            reach_io_thread(&various, "fail").await;
            let error = various.call::<String>("fail", (true,)).await.unwrap_err();
            if error.to_string().contains(&format!("on {IO_THREAD}")) {
                break;
            }
        }
    })
    .await;
    reach_io_thread(&various, "fail").await;
    call_neighbour(&cluster, Duration::ZERO).await;
    stop(&runner, &cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_on_the_io_thread_belong_to_the_runtime_of_the_program() {
    let broker = support::broker().await;
    let (runner, cluster) = start(&services![Various], &broker).await;
    let various = cluster.service("various");
    reach_io_thread(&various, "use_runtime").await;
    let here = Handle::current().id();
    let expected = format!("{IO_THREAD:?} {here:?}");
    within("a call on the I/O thread", async {
        while various.call::<String>("runtime", ()).await.unwrap() != expected {}
    })
    .await;
    stop(&runner, &cluster).await;
}
