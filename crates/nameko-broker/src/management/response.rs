//! Responses: a status and, mostly, JSON.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::{Body, Frame, SizeHint};
use serde_json::{Value, json};

use crate::error::{AmqpError, Code};

/// A response.
#[derive(Debug)]
pub(super) struct ApiResponse {
    status: StatusCode,
    json: Option<Value>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// Result of a request; the error is a response too.
pub(super) type Result<T = ApiResponse> = std::result::Result<T, ApiResponse>;

/// A response body in one piece.
#[derive(Debug)]
pub(super) struct FullBody(Option<Bytes>);

impl ApiResponse {
    /// 200 OK with a JSON body.
    pub(super) fn json(json: Value) -> Self {
        Self {
            status: StatusCode::OK,
            json: Some(json),
            header: None,
        }
    }

    /// 201 Created for a new object, 204 No Content for an existing one.
    pub(super) fn created_or_updated(new: bool) -> Self {
        Self::empty(match new {
            true => StatusCode::CREATED,
            false => StatusCode::NO_CONTENT,
        })
    }

    /// 204 No Content.
    pub(super) fn no_content() -> Self {
        Self::empty(StatusCode::NO_CONTENT)
    }

    /// 404 Not Found.
    pub(super) fn not_found() -> Self {
        Self::refused(
            StatusCode::NOT_FOUND,
            "Object Not Found",
            json!("Not Found"),
        )
    }

    /// 404 Not Found for an operation in an unknown virtual host.
    pub(super) fn no_vhost() -> Self {
        Self::refused(StatusCode::NOT_FOUND, "not_found", json!("vhost_not_found"))
    }

    /// 400 Bad Request with a reason.
    pub(super) fn bad_request(reason: impl Into<Value>) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, "bad_request", reason.into())
    }

    /// 401 Unauthorized for an operation that no user may perform.
    pub(super) fn access_refused() -> Self {
        Self::refused(
            StatusCode::UNAUTHORIZED,
            "not_authorised",
            json!("Access refused."),
        )
    }

    /// 401 Unauthorized for a request without credentials.
    pub(super) fn credentials_required() -> Self {
        let challenge = HeaderValue::from_static("Basic realm=\"RabbitMQ Management\"");
        Self::empty(StatusCode::UNAUTHORIZED).with(header::WWW_AUTHENTICATE, challenge)
    }

    /// 401 Unauthorized for wrong credentials.
    pub(super) fn credentials_refused() -> Self {
        Self::refused(
            StatusCode::UNAUTHORIZED,
            "not_authorized",
            json!("Not_Authorized"),
        )
    }

    /// 200 OK with the allowed methods.
    pub(super) fn options(methods: &'static str) -> Self {
        Self::empty(StatusCode::OK).with(header::ALLOW, HeaderValue::from_static(methods))
    }

    /// 405 Method Not Allowed with the allowed methods.
    pub(super) fn not_allowed(methods: &'static str) -> Self {
        Self::empty(StatusCode::METHOD_NOT_ALLOWED)
            .with(header::ALLOW, HeaderValue::from_static(methods))
    }

    /// 408 Request Timeout, closing the connection.
    pub(super) fn request_timeout() -> Self {
        Self::empty(StatusCode::REQUEST_TIMEOUT)
            .with(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// Maps the error of an operation on a queue, exchange or binding.
    pub(super) fn from_operation_error(error: AmqpError) -> Self {
        match error.code {
            Code::AccessRefused => Self::access_refused(),
            Code::NotFound => Self::refused(StatusCode::NOT_FOUND, "not_found", error.text.into()),
            _ => Self::bad_request(error.text),
        }
    }

    /// Maps the error of reading a message.
    pub(super) fn from_get_error(error: AmqpError) -> Self {
        match error.code {
            Code::AccessRefused => Self::access_refused(),
            Code::NotFound => {
                Self::refused(StatusCode::NOT_FOUND, "not_found", json!("queue_not_found"))
            }
            _ => Self::from_publish_error(error),
        }
    }

    /// Maps the error of publishing a message.
    pub(super) fn from_publish_error(error: AmqpError) -> Self {
        match error.code {
            Code::NotFound => Self::refused(
                StatusCode::NOT_FOUND,
                "not_found",
                json!("exchange_not_found"),
            ),
            _ => Self::bad_request(format!("{} {}", error.code.id(), error.reply_text())),
        }
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    pub(super) fn into_response(self) -> Response<FullBody> {
        let body = self.json.map(|json| Bytes::from(json.to_string()));
        let is_json = body.is_some();
        let mut response = Response::new(FullBody(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if is_json {
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
        }
        if let Some((name, value)) = self.header.map(|header| *header) {
            headers.insert(name, value);
        }
        response
    }

    fn empty(status: StatusCode) -> Self {
        Self {
            status,
            json: None,
            header: None,
        }
    }

    fn refused(status: StatusCode, error: &str, reason: Value) -> Self {
        Self {
            status,
            json: Some(json!({"error": error, "reason": reason})),
            header: None,
        }
    }
}

impl Body for FullBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
