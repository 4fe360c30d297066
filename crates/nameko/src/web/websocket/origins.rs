//! Allowed origins of handshakes.
//!
//! Browsers let a page open a WebSocket to any other site, and send the cookies of that site. The
//! handshake's header `Origin` names the site of the page; the server must check it. Source: RFC
//! 6455, section 10.2.

use std::sync::Arc;

use http::{HeaderMap, StatusCode, Uri, header};

use super::super::error::Error;
use crate::config::{Config, ConfigError};

/// Config key of the allowed origins.
const KEY: &str = "WEBSOCKET_ORIGINS";
/// List entry for the server's own origin.
const OWN: &str = "self";

/// The allowed origins, `WEBSOCKET_ORIGINS`. Unset allows all.
#[derive(Debug, Clone, Default)]
pub struct Origins(Option<Arc<[Allowed]>>);

#[derive(Debug)]
enum Allowed {
    /// The host and port of the handshake.
    Own,
    /// An origin as sent by browsers: `https://shop.example`, in lower case.
    Site(String),
}

impl Origins {
    /// Reads the key: a string or a list of strings.
    ///
    /// # Errors
    /// If the value has another type, or is not an origin.
    pub fn from_config(config: &Config) -> Result<Self, ConfigError> {
        let listed = match config.get(KEY) {
            None | Some(serde_json::Value::Null) => return Ok(Self::default()),
            Some(serde_json::Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let allowed = listed.iter().map(|entry| {
            entry.as_str().and_then(Allowed::parse).ok_or_else(|| {
                let example = "such as `https://shop.example` or `http://localhost:8080`";
                let text = format!("lists {entry}, which is not an origin: use a scheme and a host, {example}, or `{OWN}`");
                config.invalid(KEY, text)
            })
        });
        Ok(Self(Some(allowed.collect::<Result<_, _>>()?)))
    }

    /// Checks the origin of a handshake. Clients without `Origin` are not browsers and are allowed.
    ///
    /// # Errors
    /// `403 Forbidden` if the origin is not allowed.
    pub fn admit(&self, headers: &HeaderMap) -> Result<(), Error> {
        let Some(allowed) = &self.0 else {
            return Ok(());
        };
        let host = headers.get(header::HOST).map(|host| host.as_bytes());
        for origin in headers.get_all(header::ORIGIN) {
            let origin = origin.as_bytes();
            if !allowed.iter().any(|allowed| allowed.matches(origin, host)) {
                let origin = String::from_utf8_lossy(origin);
                return Err(Error::new(
                    StatusCode::FORBIDDEN,
                    format!("the origin {origin} is not allowed: it is not in {KEY}"),
                ));
            }
        }
        Ok(())
    }
}

impl Allowed {
    fn parse(text: &str) -> Option<Self> {
        if text == OWN {
            return Some(Self::Own);
        }
        let uri: Uri = text.trim_end_matches('/').parse().ok()?;
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
        if uri.path() != "/" || uri.query().is_some() || authority.as_str().contains('@') {
            return None;
        }
        let authority = authority.as_str();
        // Browsers omit the default port of a scheme.
        let authority = match scheme {
            "http" => authority.strip_suffix(":80"),
            "https" => authority.strip_suffix(":443"),
            _ => None,
        }
        .unwrap_or(authority);
        Some(Self::Site(
            format!("{scheme}://{authority}").to_ascii_lowercase(),
        ))
    }

    fn matches(&self, origin: &[u8], host: Option<&[u8]>) -> bool {
        match self {
            Self::Site(site) => origin.eq_ignore_ascii_case(site.as_bytes()),
            // The scheme is unknown here: a proxy may terminate TLS.
            Self::Own => {
                let authority = [&b"https://"[..], b"http://"]
                    .into_iter()
                    .find_map(|scheme| origin.strip_prefix(scheme));
                let same = |(authority, host): (&[u8], &[u8])| authority.eq_ignore_ascii_case(host);
                authority.zip(host).is_some_and(same)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn admits(listed: serde_json::Value, origin: &str) -> bool {
        let config = Config::default().with(KEY, listed);
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "shop.example:8000".parse().unwrap());
        if !origin.is_empty() {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        let origins = Origins::from_config(&config).unwrap();
        origins.admit(&headers).is_ok()
    }

    #[test]
    fn listed_origins_are_allowed() {
        let sites = json!([
            "https://Shop.example:443/",
            "http://localhost:8080",
            "app://desk"
        ]);
        let table = [
            (json!(null), "https://evil.example", true),
            (sites.clone(), "https://shop.example", true),
            (sites.clone(), "http://localhost:8080", true),
            (sites.clone(), "app://desk", true),
            (sites.clone(), "", true),
            (sites.clone(), "http://shop.example", false),
            (sites.clone(), "https://shop.example:8443", false),
            (sites.clone(), "https://shop.example.evil.example", false),
            (
                sites.clone(),
                "https://evil.example/https://shop.example",
                false,
            ),
            (sites, "null", false),
            (json!("https://shop.example"), "https://shop.example", true),
            (json!("self"), "https://shop.example:8000", true),
            (json!(["self"]), "http://shop.example:8000", true),
            (json!(["self"]), "http://shop.example", false),
            (json!(["self"]), "shop.example:8000", false),
            (json!([]), "https://shop.example", false),
            (json!([]), "", true),
        ];
        for (listed, origin, expected) in table {
            assert_eq!(
                admits(listed.clone(), origin),
                expected,
                "{listed} {origin}"
            );
        }
    }

    #[test]
    fn every_origin_header_must_be_listed_and_self_requires_a_host() {
        let config = Config::default().with(KEY, json!(["self", "https://shop.example"]));
        let origins = Origins::from_config(&config).unwrap();
        let mut headers = HeaderMap::new();
        headers.append(header::ORIGIN, "https://shop.example".parse().unwrap());
        assert!(origins.admit(&headers).is_ok());
        headers.append(header::ORIGIN, "https://evil.example".parse().unwrap());
        assert!(origins.admit(&headers).is_err());
    }

    #[test]
    fn invalid_origins_are_errors_with_an_example() {
        for wrong in [
            json!("shop.example"),
            json!(["https://shop.example/page"]),
            json!(["https://shop.example?a"]),
            json!(["https://me@shop.example"]),
            json!(["*"]),
            json!([""]),
            json!(["null"]),
            json!([17]),
            json!(true),
        ] {
            let config = Config::default().with(KEY, wrong.clone());
            let error = Origins::from_config(&config).expect_err(&wrong.to_string());
            let text = error.to_string();
            assert!(
                text.starts_with("WEBSOCKET_ORIGINS lists ")
                    && text.contains("which is not an origin: use"),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = Origins::from_config(&Config::default().with(KEY, text));
        }
    }
}
