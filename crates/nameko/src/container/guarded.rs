//! Tasks whose panic kills the container.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;

use super::WeakContainer;
use crate::{error::Error, protocol::Fault};

/// A task whose panic kills the container.
pub(super) struct Guarded {
    pub(super) task: BoxFuture<'static, ()>,
    pub(super) container: WeakContainer,
}

impl Future for Guarded {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let poll = AssertUnwindSafe(|| self.task.as_mut().poll(context));
        catch_unwind(poll).unwrap_or_else(|panic| {
            if let Some(container) = self.container.upgrade() {
                container.kill(Error::raised(Fault::panic(panic.as_ref())));
            }
            Poll::Ready(())
        })
    }
}
