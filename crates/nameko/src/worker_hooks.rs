//! The hooks of a provider for one worker.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{
    error::Result,
    reply::Outcome,
    stateful_provider::{StatefulProvider, WorkerEnd},
    worker::WorkerContext,
};

/// The hooks of a type-erased [`StatefulProvider`] for one worker, with the state of the worker.
pub(crate) trait WorkerHooks: Send {
    fn set_up<'a>(&'a mut self, ctx: &'a WorkerContext) -> BoxFuture<'a, Result<()>>;
    fn before_reply<'a>(
        &'a mut self,
        ctx: &'a WorkerContext,
        outcome: &'a mut Outcome,
    ) -> BoxFuture<'a, Result<()>>;
    fn result<'a>(
        &'a mut self,
        ctx: &'a WorkerContext,
        outcome: &'a Outcome,
    ) -> BoxFuture<'a, Result<()>>;
    fn tear_down<'a>(
        self: Box<Self>,
        ctx: &'a WorkerContext,
        end: WorkerEnd<'a>,
    ) -> BoxFuture<'a, Result<()>>;
}

/// A provider whose `get_dependency` succeeded.
pub(crate) struct Injected<P: StatefulProvider> {
    pub(crate) provider: Arc<P>,
    pub(crate) state: P::State,
}

impl<P: StatefulProvider> WorkerHooks for Injected<P> {
    fn set_up<'a>(&'a mut self, ctx: &'a WorkerContext) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.provider.worker_setup(ctx, &mut self.state))
    }

    fn before_reply<'a>(
        &'a mut self,
        ctx: &'a WorkerContext,
        outcome: &'a mut Outcome,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.provider.before_reply(ctx, &mut self.state, outcome))
    }

    fn result<'a>(
        &'a mut self,
        ctx: &'a WorkerContext,
        outcome: &'a Outcome,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.provider.worker_result(ctx, &mut self.state, outcome))
    }

    fn tear_down<'a>(
        self: Box<Self>,
        ctx: &'a WorkerContext,
        end: WorkerEnd<'a>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Self { provider, state } = *self;
            provider.worker_teardown(ctx, state, end).await
        })
    }
}
