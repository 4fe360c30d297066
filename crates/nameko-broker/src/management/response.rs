//! What the API answers: a status, and mostly JSON.

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

/// An answer.
#[derive(Debug)]
pub(super) struct ApiResponse {
    status: StatusCode,
    json: Option<Value>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// What a request comes to; the error is an answer, too.
pub(super) type Result<T = ApiResponse> = std::result::Result<T, ApiResponse>;

/// A body that is all there.
#[derive(Debug)]
pub(super) struct FullBody(Option<Bytes>);

impl ApiResponse {
    /// 200, with this.
    pub(super) fn json(json: Value) -> Self {
        Self {
            status: StatusCode::OK,
            json: Some(json),
            header: None,
        }
    }

    /// 201 for what is new, 204 for what was there.
    pub(super) fn created_or_updated(new: bool) -> Self {
        Self::empty(match new {
            true => StatusCode::CREATED,
            false => StatusCode::NO_CONTENT,
        })
    }

    /// 204.
    pub(super) fn no_content() -> Self {
        Self::empty(StatusCode::NO_CONTENT)
    }

    /// 404 for what is not there.
    pub(super) fn not_found() -> Self {
        Self::refused(
            StatusCode::NOT_FOUND,
            "Object Not Found",
            json!("Not Found"),
        )
    }

    /// 404 for what should be made where there is no such virtual host.
    pub(super) fn no_vhost() -> Self {
        Self::refused(StatusCode::NOT_FOUND, "not_found", json!("vhost_not_found"))
    }

    /// 400 with a reason.
    pub(super) fn bad_request(reason: impl Into<Value>) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, "bad_request", reason.into())
    }

    /// 401 for what nobody may do.
    pub(super) fn access_refused() -> Self {
        Self::refused(
            StatusCode::UNAUTHORIZED,
            "not_authorised",
            json!("Access refused."),
        )
    }

    /// 401 for who is not known; without a reason for who did not say who it is.
    pub(super) fn unauthorized(refused: bool) -> Self {
        let challenge = HeaderValue::from_static("Basic realm=\"RabbitMQ Management\"");
        Self {
            status: StatusCode::UNAUTHORIZED,
            json: refused.then(|| json!({"error": "not_authorized", "reason": "Login failed"})),
            header: Some(Box::new((header::WWW_AUTHENTICATE, challenge))),
        }
    }

    /// 200, with what may be asked.
    pub(super) fn options(methods: &'static str) -> Self {
        Self::empty(StatusCode::OK).with(header::ALLOW, HeaderValue::from_static(methods))
    }

    /// 405, with what would be allowed.
    pub(super) fn not_allowed(methods: &'static str) -> Self {
        Self::empty(StatusCode::METHOD_NOT_ALLOWED)
            .with(header::ALLOW, HeaderValue::from_static(methods))
    }

    /// 408 for who is too slow with a body.
    pub(super) fn request_timeout() -> Self {
        Self::empty(StatusCode::REQUEST_TIMEOUT)
            .with(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// A refusal by an operation on a queue, an exchange or a binding.
    pub(super) fn from_operation_error(error: AmqpError) -> Self {
        match error.code {
            Code::AccessRefused => Self::access_refused(),
            Code::NotFound => Self::refused(StatusCode::NOT_FOUND, "not_found", error.text.into()),
            _ => Self::bad_request(error.text),
        }
    }

    /// A refusal by a channel that reads.
    pub(super) fn from_get_error(error: AmqpError) -> Self {
        match error.code {
            Code::AccessRefused => Self::access_refused(),
            Code::NotFound => Self::refused(
                StatusCode::NOT_FOUND,
                "not_found",
                error.reply_text().as_str().into(),
            ),
            _ => Self::from_publish_error(error),
        }
    }

    /// A refusal by a channel that publishes.
    pub(super) fn from_publish_error(error: AmqpError) -> Self {
        Self::bad_request(format!("{} {}", error.code.id(), error.reply_text()))
    }

    /// With one more header.
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
        if let Some((name, value)) = self.header.map(|it| *it) {
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
