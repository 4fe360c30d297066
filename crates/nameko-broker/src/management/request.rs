//! Requests: authentication, path and body.

use std::{future::poll_fn, pin::Pin, time::Duration};

use bytes::BytesMut;
use data_encoding::BASE64;
use http::{HeaderMap, Method, header};
use hyper::body::{Body, Incoming};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;

use super::{
    body::Fields,
    response::{ApiResponse, Result},
};
use crate::{auth::Credentials, broker_state::BrokerState};

/// Maximum size of a body, as in RabbitMQ.
const MAX_BODY_BYTES: usize = 20_000_000;
/// Time limit for receiving a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// An authenticated request.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) broker: &'a BrokerState,
    pub(super) user: &'a str,
    pub(super) method: Method,
    /// The query of the URI, without `?`.
    query: &'a str,
    headers: &'a HeaderMap,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    pub(super) fn new(
        broker: &'a BrokerState,
        user: &'a str,
        method: Method,
        query: &'a str,
        headers: &'a HeaderMap,
        body: &'a [u8],
    ) -> Self {
        Self {
            broker,
            user,
            method,
            query,
            headers,
            body,
        }
    }

    /// Parses the body.
    pub(super) fn fields(&self) -> Result<Fields> {
        Fields::read(self.body)
    }

    /// Returns whether a query parameter is `true`.
    pub(super) fn query_flag(&self, name: &str) -> bool {
        self.query
            .split('&')
            .any(|pair| pair.split_once('=') == Some((name, "true")))
    }

    /// Returns the value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Authenticates a request and returns the user.
pub(super) fn authenticate<'a>(headers: &HeaderMap, broker: &'a BrokerState) -> Result<&'a str> {
    let Some(given) = headers.get(header::AUTHORIZATION) else {
        return Err(ApiResponse::credentials_required());
    };
    let user = credentials(given.as_bytes()).and_then(|given| broker.settings.authenticate(&given));
    user.ok_or_else(ApiResponse::credentials_refused)
}

/// Parses `Authorization: Basic ...`.
fn credentials(header: &[u8]) -> Option<Credentials> {
    let (scheme, rest) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let plain = BASE64.decode(rest.trim_ascii()).ok()?;
    let colon = plain.iter().position(|byte| *byte == b':')?;
    let (user, password) = plain.split_at_checked(colon)?;
    Some(Credentials {
        user: user.to_vec(),
        password: password.get(1..)?.to_vec(),
    })
}

/// Returns the decoded path segments after `/api/`.
pub(super) fn path_segments(path: &str) -> Result<Vec<String>> {
    let rest = path
        .strip_prefix("/api")
        .ok_or_else(ApiResponse::not_found)?;
    // RabbitMQ ignores a trailing slash.
    rest.strip_suffix('/')
        .unwrap_or(rest)
        .split('/')
        .skip(1)
        .map(|part| {
            let decoded = percent_decode_str(part).decode_utf8();
            decoded
                .map(String::from)
                .map_err(|_| ApiResponse::bad_request("a name in the path is not UTF-8"))
        })
        .collect()
}

/// Receives the body of a request, within the limits of size and time.
pub(super) async fn read_body(body: Incoming) -> Result<BytesMut> {
    timeout(BODY_TIMEOUT, collect(body))
        .await
        .unwrap_or_else(|_| Err(ApiResponse::request_timeout()))
}

async fn collect(mut body: Incoming) -> Result<BytesMut> {
    let mut whole = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|_| ApiResponse::bad_request("the body ended too early"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if whole.len().saturating_add(data.len()) > MAX_BODY_BYTES {
            return Err(ApiResponse::bad_request(format!(
                "Exceeded HTTP request body size limit of {MAX_BODY_BYTES} bytes"
            )));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_split_before_decoding() {
        let parts = |path| path_segments(path).map_err(|_| ());
        assert_eq!(
            parts("/api/queues/%2F/a%20b%2Fc"),
            Ok(vec!["queues".into(), "/".into(), "a b/c".into()])
        );
        assert_eq!(parts("/api/queues/"), Ok(vec!["queues".into()]));
        assert_eq!(parts("/api"), Ok(vec![]));
        for wrong in ["/", "/queues", "/api/queues/%ff"] {
            assert_eq!(parts(wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn passwords_may_contain_colons() {
        let given = credentials(b"Basic Z3Vlc3Q6YTpi").unwrap();
        assert_eq!(
            (&given.user[..], &given.password[..]),
            (&b"guest"[..], &b"a:b"[..])
        );
        for wrong in [
            &b"Bearer x"[..],
            b"Basic",
            b"Basic !!",
            b"Basic Z3Vlc3Q=",
            b"",
        ] {
            assert!(credentials(wrong).is_none(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn random_paths_and_headers_never_panic(path in ".*", header in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = path_segments(&path);
            let _ = path_segments(&format!("/api/{path}"));
            let _ = credentials(&header);
            let _ = credentials(&[b"Basic ", &header[..]].concat());
        }
    }
}
