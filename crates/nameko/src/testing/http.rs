//! HTTP requests to a method, without a connection.

use super::hook::EntrypointHook;
use crate::{
    error::{Error, Result},
    extension::Entrypoint,
    web::{Http, Request, Response},
};

impl EntrypointHook {
    /// Passes a request to an `#[http]` method and returns the response that a client would
    /// receive.
    ///
    /// Returns after the worker has ended, also if the method fails or the request's arguments do
    /// not match. No connection is made, but the service still listens: configure port 0.
    ///
    /// ```
    /// use nameko::{prelude::*, testing::entrypoint_hook, web::{self, http, Bytes, Json}};
    ///
    /// #[derive(Dependencies)]
    /// struct Shop;
    ///
    /// #[service("shop")]
    /// impl Shop {
    ///     #[http(GET, "/orders/{id}")]
    ///     async fn order(&self, id: u64) -> Result<Json<u64>> {
    ///         if id > 9 {
    ///             return Err(web::Error::not_found(format!("no order {id}")).into());
    ///         }
    ///         Ok(Json(id))
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let config = Config::new().with("WEB_SERVER_ADDRESS", "127.0.0.1:0");
    /// let shop = Container::new::<Shop>(config)?;
    /// shop.start().await?;
    /// let order = entrypoint_hook(&shop, "order");
    /// let get = |path| http::Request::get(path).body(Bytes::new()).unwrap();
    /// let response = order.request(get("/orders/7")).await?;
    /// assert_eq!((response.status_code().as_u16(), response.body()), (200, Some(&b"7"[..])));
    /// let response = order.request(get("/orders/17")).await?;
    /// assert_eq!(response.status_code(), 404);
    /// shop.stop().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::IncorrectSignature`] if the method has no `#[http]` for the request.
    /// [`Error::ExtensionNotFound`], [`Error::Timeout`], [`Error::Killed`] and
    /// [`Error::ContainerStopping`] as for [`call`](Self::call).
    pub async fn request(&self, request: impl Into<Request>) -> Result<Response> {
        self.find()?;
        let request = request.into();
        let owner = format!("{}.{}", self.container.service_name(), self.method);
        let entrypoints = || self.container.entrypoints_of::<Http>(&self.method);
        let accepts = |(entrypoint, method)| {
            let entrypoint: &Http = entrypoint;
            Some((entrypoint, method, entrypoint.accept(&owner, &request)?))
        };
        let Some((entrypoint, method, accepted)) = entrypoints().find_map(accepts) else {
            let served: Vec<_> = entrypoints()
                .map(|(entrypoint, _)| entrypoint.describe())
                .collect();
            return Err(Error::IncorrectSignature(format!(
                "{}() does not handle {} {}; it handles {}",
                self.method,
                request.method(),
                request.uri().path(),
                if served.is_empty() {
                    "no #[http]".to_owned()
                } else {
                    served.join(", ")
                },
            )));
        };
        let context_data = self.context_data.clone();
        let (worker, response) =
            entrypoint.answer(&self.container, method, accepted, context_data)?;
        self.wait(worker).await?;
        response.await.map_err(|_| self.stopping())
    }
}
