//! `tower` layers around the web server.

use std::{
    convert::Infallible,
    fmt,
    future::poll_fn,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::body::Body;
use tower_layer::Layer;
use tower_service::Service as TowerService;

use super::{
    dispatch::{self, Exchange},
    error_format::ErrorFormat,
    request_body::{BoxError, RequestBody},
    response_body::ResponseBody,
};
use crate::{
    config::Config, container::ContainerBuilder, error::Result, runner::Services, service::Service,
};

/// The service that a [layer](HttpLayer) wraps: the next layer, or the routes.
///
/// Errors of layers have become responses here.
#[derive(Clone, Default)]
pub struct HttpService(Option<Arc<dyn DynService>>);

/// The response of a service, boxed.
type Responding = BoxFuture<'static, Result<http::Response<ResponseBody>, Infallible>>;

trait DynService: Send + Sync {
    fn call(&self, request: http::Request<RequestBody>) -> Responding;
}

/// A service made by a layer.
struct Layered<S>(S);

impl<S, B> DynService for Layered<S>
where
    S: TowerService<http::Request<RequestBody>, Response = http::Response<B>>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn call(&self, request: http::Request<RequestBody>) -> Responding {
        let mut service = self.0.clone();
        Box::pin(async move {
            let failing = dispatch::Failing::of(&request);
            let ready = poll_fn(|cx| service.poll_ready(cx).map_err(Into::into));
            let answered: Result<_, BoxError> = match ready.await {
                Ok(()) => service.call(request).await.map_err(Into::into),
                Err(error) => Err(error),
            };
            Ok(match answered {
                Ok(response) => response.map(ResponseBody::new),
                Err(error) => failing.respond(&error),
            })
        })
    }
}

impl<B> TowerService<http::Request<B>> for HttpService
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = http::Response<ResponseBody>;
    type Error = Infallible;
    type Future = Responding;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The service of a layer is awaited by its call.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Responding {
        let request = request.map(RequestBody::new);
        match &self.0 {
            Some(layered) => layered.call(request),
            None => Box::pin(async move { Ok(dispatch::routes(request).await) }),
        }
    }
}

impl fmt::Debug for HttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpService").finish_non_exhaustive()
    }
}

/// A `tower::Layer` around the web server: any layer of services from
/// `http::Request<`[`RequestBody`]`>` to `http::Response`, with any response body.
///
/// Layers see a request before its body is read, and all responses of the framework, also errors.
/// The extensions of a request contain its [`Peer`]. An error of a layer becomes a `500`, or the
/// response of a [`web::Error`](super::Error).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a layer around the web server",
    label = "not a `tower::Layer` of HTTP services",
    note = "a layer makes of a `web::HttpService` a service that is `Clone + Send + Sync + 'static`, takes `http::Request<web::RequestBody>` and returns an `http::Response`",
    note = "the layers of the crate `tower-http` are; many need a feature of that crate"
)]
pub trait HttpLayer: Send + Sync + 'static {
    /// Wraps a service.
    #[doc(hidden)]
    fn wrap(&self, inner: HttpService) -> HttpService;
}

impl<L, S, B> HttpLayer for L
where
    L: Layer<HttpService, Service = S> + Send + Sync + 'static,
    S: TowerService<http::Request<RequestBody>, Response = http::Response<B>>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn wrap(&self, inner: HttpService) -> HttpService {
        HttpService(Some(Arc::new(Layered(self.layer(inner)))))
    }
}

/// The remote address of a request's connection, an extension of requests for layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// A layer as it was set.
#[derive(Clone)]
enum SetLayer {
    Ready(Arc<dyn HttpLayer>),
    Configured(Arc<CreateLayer>),
}

/// Creates a layer from the configuration.
type CreateLayer = dyn Fn(Config) -> Result<Arc<dyn HttpLayer>> + Send + Sync;

impl SetLayer {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ready(one), Self::Ready(other)) => Arc::ptr_eq(one, other),
            (Self::Configured(one), Self::Configured(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    fn wrap(&self, inner: HttpService, config: &Config) -> Result<HttpService> {
        match self {
            Self::Ready(layer) => Ok(layer.wrap(inner)),
            Self::Configured(create) => Ok(create(config.clone())?.wrap(inner)),
        }
    }
}

/// The layers and the error format of a container.
#[derive(Clone, Default)]
pub(super) struct HttpOptions {
    /// Outermost first.
    layers: Vec<SetLayer>,
    pub(super) errors: Option<Arc<dyn ErrorFormat>>,
}

impl HttpOptions {
    pub(super) fn has_layers(&self) -> bool {
        !self.layers.is_empty()
    }

    /// Returns `true` if the layers are the same values.
    pub(super) fn has_layers_of(&self, other: &Self) -> bool {
        let mut pairs = self.layers.iter().zip(&other.layers);
        self.layers.len() == other.layers.len() && pairs.all(|(one, other)| one.is(other))
    }

    /// Wraps the routes in the layers.
    ///
    /// # Errors
    /// That of a layer that is created from the configuration.
    pub(super) fn stack(&self, config: &Config) -> Result<HttpService> {
        let mut innermost_first = self.layers.iter().rev();
        innermost_first.try_fold(HttpService::default(), |inner, layer| {
            layer.wrap(inner, config)
        })
    }
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpOptions")
            .field("layers", &self.layers.len())
            .finish_non_exhaustive()
    }
}

impl HttpService {
    /// Passes a request through the layers.
    pub(super) async fn pass(
        &self,
        mut request: http::Request<RequestBody>,
        exchange: Exchange,
    ) -> http::Response<ResponseBody> {
        let extensions = request.extensions_mut();
        extensions.insert(Peer(exchange.peer));
        extensions.insert(exchange);
        match self.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

macro_rules! http_options {
    ($($generics:tt)*) => {
        $($generics)* {
            /// Wraps the web server in a `tower` layer, around all layers that follow.
            ///
            /// A layer sees a request before its body is read, and all responses of the framework,
            /// also errors. The listener belongs to the process: the layers are those of its
            /// address, and wrap the requests to all services there. If another service sets
            /// different layers for the same address, its start fails with an error that names
            /// both.
            #[must_use = "the layers and formats are those of the returned value"]
            pub fn http_layer(mut self, layer: impl HttpLayer) -> Self {
                self.attachments.update(|options: &mut HttpOptions| {
                    options.layers.push(SetLayer::Ready(Arc::new(layer)));
                });
                self
            }

            /// Like [`http_layer`](Self::http_layer), for a layer that is created from the
            /// configuration of the service that opens the port. An error fails its start.
            ///
            /// ```
            /// use nameko::{prelude::*, web::{HttpLayer, HeaderValue}};
            /// use tower_http::cors::CorsLayer;
            ///
            /// # #[derive(Dependencies)] struct Shop;
            /// # #[service("shop")] impl Shop {}
            /// fn cors(config: Config) -> Result<impl HttpLayer> {
            ///     let origin: String = config.read("ALLOWED_ORIGIN")?;
            ///     let origin = HeaderValue::from_str(&origin)
            ///         .map_err(|_| config.invalid("ALLOWED_ORIGIN", "must be an origin"))?;
            ///     Ok(CorsLayer::new().allow_origin(origin))
            /// }
            ///
            /// let services = services![Shop].http_layer_with(cors);
            /// ```
            #[must_use = "the layers and formats are those of the returned value"]
            pub fn http_layer_with<L: HttpLayer>(
                mut self,
                create: impl Fn(Config) -> Result<L> + Send + Sync + 'static,
            ) -> Self {
                let create = move |config: Config| -> Result<Arc<dyn HttpLayer>> {
                    Ok(Arc::new(create(config)?))
                };
                self.attachments.update(|options: &mut HttpOptions| {
                    options.layers.push(SetLayer::Configured(Arc::new(create)));
                });
                self
            }

            /// Sets the format of error responses. Requests that match no route are formatted like
            /// those of the first service at the address that has set a format.
            #[must_use = "the layers and formats are those of the returned value"]
            pub fn http_errors(mut self, format: impl ErrorFormat) -> Self {
                self.attachments.update(|options: &mut HttpOptions| {
                    options.errors = Some(Arc::new(format));
                });
                self
            }
        }
    };
}

http_options!(impl<S: Service> ContainerBuilder<S>);
http_options!(impl Services);
