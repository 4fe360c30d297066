//! Requests that reach a method without a connection, for `testing::EntrypointHook`.

use http::Method;
use tokio::sync::oneshot;

use super::{
    entrypoint::{Http, work},
    request::Request,
    response::Response,
    server::{self, WebServer},
};
use crate::{
    amqp::Table,
    arguments::Arguments,
    container::{Container, MethodHandle},
    error::Result,
    tasks::TaskHandle,
};

impl Http {
    /// Returns the request with its path parameters if it matches this entrypoint of `owner`.
    pub(crate) fn accept(&self, owner: &str, request: &Request) -> Option<Request> {
        let (methods, template) = server::parse(&self.methods, &self.path, owner).ok()?;
        let asks_head = request.method() == Method::HEAD && methods.contains(&Method::GET);
        if !asks_head && !methods.contains(request.method()) {
            return None;
        }
        let values = template.values(request.uri().path())?;
        Some(request.with_path_params(template.names(), values))
    }

    /// Runs the method for an [accepted](Self::accept) request in a task of the container, with
    /// `context_data`.
    pub(crate) fn answer(
        &self,
        container: &Container,
        method: &MethodHandle,
        request: Request,
        context_data: Table,
    ) -> Result<(TaskHandle, oneshot::Receiver<Response>)> {
        let limits = self.limits(WebServer::of(container)?.limits())?;
        let (reply, response) = oneshot::channel();
        let task = container.spawn(work(
            container.downgrade(),
            method.clone(),
            Arguments::from_origin(request),
            context_data,
            limits,
            reply,
        ));
        Ok((task, response))
    }
}
