//! Extraction of arguments from requests.

use std::{future::Future, ops::Deref};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::{
    Request,
    error::Error,
    form::{self, Wrong},
    json::Json,
};
use crate::{error::Result, worker::WorkerContext};

/// An argument type of `#[http]` methods.
///
/// | argument | value |
/// |---|---|
/// | `id: u64`, or any `Deserialize` type | the parameter `id` of the path or query |
/// | `limit: Option<u64>` | the same, optional |
/// | `tag: Vec<String>` | all parameters `tag` of the query |
/// | `order: Json<Order>` | the body, as JSON |
/// | `search: Query<Search>` | the whole query |
/// | `login: Form<Login>` | the body, as a form (`application/x-www-form-urlencoded`) |
/// | `body: Body` | the body's bytes |
/// | `headers: Headers` | the headers |
/// | `user: Extension<User>` | a value that a layer has added to the request's extensions |
/// | `request: Request` | the whole request |
/// | `body: BodyStream` | the body as a stream |
/// | `form: Multipart` | the parts of a `multipart/form-data` body (feature `multipart`) |
/// | `user: User`, a type of your own | that of its `FromRequest`, or [`AsyncFromRequest`] |
///
/// A mismatch is answered with `400 Bad Request`, without starting a worker.
///
/// Arguments that do not request the body are extracted before it is read, in the order of the
/// parameters. So an argument of your own that checks a token refuses a request before the client
/// has sent the body. To look the token up in a database, see [`AsyncFromRequest`].
///
/// ```
/// use nameko::{prelude::*, web::{self, FromRequest, Json, Request}};
///
/// struct User(String);
///
/// impl FromRequest for User {
///     const READS_PATH: bool = false;
///
///     fn from_request(request: &mut Request, _: &'static str) -> Result<Self> {
///         match request.header("authorization") {
///             Some("Bearer secret") => Ok(Self("ada".to_owned())),
///             _ => Err(web::Error::unauthorized("Bearer", "a token is required").into()),
///         }
///     }
/// }
///
/// #[derive(Dependencies)]
/// struct Shop;
///
/// #[service("shop")]
/// impl Shop {
///     #[http(POST, "/orders")]
///     async fn add(&self, order: Json<u64>, user: User) -> Result<String> {
///         Ok(format!("{} ordered {}", user.0, order.0))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "an `#[http]` method cannot take `{Self}` as an argument",
    label = "this cannot be read from a request",
    note = "take a parameter of the path or query by its name (any type with `serde::Deserialize`), or `web::Json`, `web::Query`, `web::Form`, `web::Body`, `web::Headers` or `web::Request`",
    note = "the type in `web::Json`, `web::Query` or `web::Form` must implement `serde::Deserialize`: derive it",
    note = "a type of your own implements `web::FromRequest`, or `web::AsyncFromRequest` for the service of the method"
)]
pub trait FromRequest: Sized + Send + 'static {
    /// Whether the type streams the body with [`Request::take_body_stream`]. The body is not read
    /// before the method runs then, and the other arguments cannot have it.
    const STREAMS_BODY: bool = false;

    /// Whether the type may read any parameter of the path. If no argument of a method does, the
    /// compiler checks that each parameter in the path has an argument of its name.
    const READS_PATH: bool = true;

    /// Extracts the argument for the parameter `name`.
    ///
    /// # Errors
    /// If the request does not match: a [`web::Error`](Error) with the status for the client.
    fn from_request(request: &mut Request, name: &'static str) -> Result<Self>;
}

/// An argument type of the `#[http]` methods of a service `S` that is extracted asynchronously, in
/// the worker, with the dependencies of the service: the user of a session, the record that the
/// path names.
///
/// The worker extracts its arguments after `worker_setup` of the providers, so the layers of the
/// service run around that. An error is the outcome of the worker; the method does not run.
///
/// ```
/// use nameko::{prelude::*, web::{self, AsyncFromRequest, Json, Request}};
///
/// #[derive(Dependencies)]
/// struct Shop {
///     #[dependency(RpcProxy::new("accounts"))]
///     accounts: ServiceProxy,
/// }
///
/// struct User(String);
///
/// impl AsyncFromRequest<Shop> for User {
///     const READS_PATH: bool = false;
///
///     async fn from_request(
///         request: &mut Request,
///         _: &'static str,
///         worker: &WorkerContext,
///         shop: &Shop,
///     ) -> Result<Self> {
///         let header = worker.config().str("session_header")?.unwrap_or("x-session");
///         let Some(session) = request.header(header) else {
///             return Err(web::Error::unauthorized("Session", "log in first").into());
///         };
///         let name: String = shop.accounts.call("user_of", (session,)).await?;
///         worker.set("user_id", name.as_str());
///         Ok(Self(name))
///     }
/// }
///
/// #[service("shop")]
/// impl Shop {
///     #[http(POST, "/orders")]
///     async fn add(&self, user: User, order: Json<u64>) -> Result<String> {
///         Ok(format!("{} ordered {}", user.0, order.0))
///     }
/// }
/// # fn main() {}
/// ```
///
/// Several services share an argument type that is generic over the service:
/// `impl<S: AsRef<Pool> + Sync> AsyncFromRequest<S> for User`. An impl can call another one's
/// `from_request`, such as an `Admin` that first extracts the `User`.
///
/// Arguments are extracted in the order of the parameters, those before the first
/// `AsyncFromRequest` before the worker begins. Those that need the body follow after it was read.
/// Unlike for other methods, the worker itself reads the body, so the time for that counts against
/// the method's `timeout`.
pub trait AsyncFromRequest<S>: Sized + Send + 'static {
    /// Like [`FromRequest::STREAMS_BODY`]. Extracted after all other arguments.
    const STREAMS_BODY: bool = false;

    /// Like [`FromRequest::READS_PATH`].
    const READS_PATH: bool = true;

    /// Extracts the argument for the parameter `name`. If it requests the [body](Request::body)
    /// before that is read, it is called again afterwards, so it should do so first.
    ///
    /// # Errors
    /// If the request does not match: a [`web::Error`](Error) with the status for the client. Or
    /// any other error of the call.
    fn from_request(
        request: &mut Request,
        name: &'static str,
        worker: &WorkerContext,
        service: &S,
    ) -> impl Future<Output = Result<Self>> + Send;
}

/// A value from the [extensions](Request::extensions) of the request, which a layer has added.
///
/// Without such a value, the client receives a 500: the layer is missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extension<T>(pub T);

/// All query parameters, as a struct or a map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Query<T>(pub T);

/// The body of an HTML form, `application/x-www-form-urlencoded`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Form<T>(pub T);

/// The body of a request as bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body(pub Bytes);

/// The headers of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub HeaderMap);

impl<T: DeserializeOwned + Send + 'static> FromRequest for T {
    const READS_PATH: bool = false;

    fn from_request(request: &mut Request, name: &'static str) -> Result<Self> {
        if let Some(value) = request.path_param(name) {
            return form::read_values(&[value])
                .map_err(|wrong| bad(format!("path parameter `{name}` {wrong}")));
        }
        let values: Vec<_> = request
            .query_pairs()
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .collect();
        form::read_values(&values).map_err(|wrong| bad(format!("query parameter `{name}` {wrong}")))
    }
}

impl<T: Clone + Send + Sync + 'static> FromRequest for Extension<T> {
    const READS_PATH: bool = false;

    fn from_request(request: &mut Request, name: &'static str) -> Result<Self> {
        request
            .extensions()
            .get()
            .cloned()
            .map(Self)
            .ok_or_else(|| {
                let kind = std::any::type_name::<T>();
                let text = format!("no layer has added a `{kind}` for `{name}` to the request");
                Error::new(StatusCode::INTERNAL_SERVER_ERROR, text).into()
            })
    }
}

impl<T: DeserializeOwned + Send + 'static> FromRequest for Json<T> {
    const READS_PATH: bool = false;

    fn from_request(request: &mut Request, name: &'static str) -> Result<Self> {
        // Requested first: the errors of a body come after those of other arguments.
        let _ = request.body();
        content_type(request, name, "application/json", |content_type| {
            content_type == "application/json" || content_type.ends_with("+json")
        })?;
        if request.body().is_empty() {
            // An empty body deserializes as `null`, for optional types.
            return serde_json::from_str("null").map(Self).map_err(|_| {
                bad(format!(
                    "`{name}` is missing: the body must be JSON but is empty"
                ))
            });
        }
        serde_json::from_slice(request.body())
            .map(Self)
            .map_err(|error| match error.is_data() {
                true => bad(format!("`{name}` is wrong: {error}")),
                false => bad(format!(
                    "`{name}` is invalid: the body is not JSON: {error}"
                )),
            })
    }
}

impl<T: DeserializeOwned + Send + 'static> FromRequest for Query<T> {
    const READS_PATH: bool = false;

    fn from_request(request: &mut Request, _: &'static str) -> Result<Self> {
        form::read(request.query_pairs())
            .map(Self)
            .map_err(|wrong| bad(field("query", wrong)))
    }
}

impl<T: DeserializeOwned + Send + 'static> FromRequest for Form<T> {
    const READS_PATH: bool = false;

    fn from_request(request: &mut Request, name: &'static str) -> Result<Self> {
        let _ = request.body();
        const FORM: &str = "application/x-www-form-urlencoded";
        content_type(request, name, FORM, |content_type| content_type == FORM)?;
        form::read(&form::pairs(request.text()?))
            .map(Self)
            .map_err(|wrong| bad(field("form", wrong)))
    }
}

impl FromRequest for Body {
    const READS_PATH: bool = false;

    fn from_request(request: &mut Request, _: &'static str) -> Result<Self> {
        Ok(Self(request.body().clone()))
    }
}

impl FromRequest for Headers {
    const READS_PATH: bool = false;

    fn from_request(request: &mut Request, _: &'static str) -> Result<Self> {
        Ok(Self(request.headers().clone()))
    }
}

impl FromRequest for Request {
    fn from_request(request: &mut Request, _: &'static str) -> Result<Self> {
        // Next to a stream of the body, it is a request without one.
        if !request.is_streamed() {
            let _ = request.body();
        }
        Ok(request.clone())
    }
}

impl Deref for Body {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.0
    }
}

impl Deref for Headers {
    type Target = HeaderMap;

    fn deref(&self) -> &HeaderMap {
        &self.0
    }
}

fn bad(text: String) -> crate::Error {
    Error::bad_request(text).into()
}

fn field(place: &str, wrong: Wrong) -> String {
    match wrong {
        Wrong::Field(text) => format!("{place} parameter {text}"),
        wrong => format!("the {place} {wrong}"),
    }
}

/// Rejects a body with another content type.
pub(super) fn content_type(
    request: &Request,
    name: &str,
    expected: &str,
    accepts: impl Fn(&str) -> bool,
) -> Result<()> {
    let Some(given) = request.headers().get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(given.as_bytes()).to_ascii_lowercase();
    let kind = text.split(';').next().unwrap_or_default().trim();
    if kind.is_empty() || accepts(kind) {
        return Ok(());
    }
    Err(Error::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        format!("`{name}` is the body: expected the content type `{expected}`, not `{kind}`"),
    )
    .into())
}
