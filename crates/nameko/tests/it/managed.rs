//! Managed tasks and workers of a container.

use std::{
    future::pending,
    sync::{Arc, Weak},
};

use nameko::{Arguments, TaskHandle, amqp::Table, prelude::*, testing::Dummy};

use crate::support::{no_broker, within};

#[derive(Dependencies)]
struct Idle;

#[service("idle")]
impl Idle {
    #[entrypoint(Dummy)]
    async fn nothing(&self) -> Result<()> {
        Ok(())
    }
}

fn idle() -> Container {
    Container::new::<Idle>(no_broker()).unwrap()
}

#[tokio::test]
async fn an_ended_or_aborted_task_is_not_a_failure() {
    let container = idle();
    let mut done = container.spawn_managed("done", async { Ok::<(), Error>(()) });
    within("its end", done.wait()).await;
    assert!(done.is_finished());
    let mut hangs = container.spawn_managed("hangs", pending::<Result<()>>());
    assert!(!hangs.is_finished());
    hangs.abort();
    within("its end", hangs.wait()).await;
    container.start().await.unwrap();
    container.stop().await;
    container.wait().await.unwrap();
}

#[tokio::test]
async fn tasks_end_with_their_container_and_none_start_afterwards() {
    let container = idle();
    let held = Arc::new(());
    let watch = Arc::downgrade(&held);
    let task = container.spawn_managed("holds", async move {
        pending::<()>().await;
        drop(held);
        Ok::<(), Error>(())
    });
    container.start().await.unwrap();
    container.stop().await;
    assert!(task.is_finished());
    assert_eq!(Weak::strong_count(&watch), 0);
    let late: TaskHandle = container.spawn_managed("late", async {
        Err::<(), _>(std::io::Error::other("never happens"))
    });
    assert!(late.is_finished());
    container.wait().await.unwrap();
}

#[tokio::test]
async fn a_custom_error_is_the_reason_of_the_kill() {
    let container = idle();
    container.start().await.unwrap();
    container.spawn_managed("disk", async { Err(std::io::Error::other("disk is full")) });
    let error = within("the end", container.wait()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "idle was killed: task `disk` failed: disk is full"
    );
}

#[tokio::test]
async fn a_panicking_task_kills_the_container() {
    let container = idle();
    container.start().await.unwrap();
    container.spawn(async { panic!("lost my marbles") });
    let error = within("the end", container.wait()).await.unwrap_err();
    assert!(error.to_string().ends_with("lost my marbles"), "{error}");
}

#[tokio::test]
async fn a_failed_result_handler_kills_the_container() {
    let container = idle();
    container.start().await.unwrap();
    let method = container.method("nothing").unwrap();
    container.spawn_worker(&method, Arguments::new(), Table::new(), |_| async {
        panic!("no way to reply")
    });
    let error = within("the end", container.wait()).await.unwrap_err();
    assert!(error.to_string().ends_with("no way to reply"), "{error}");
}
