//! The listen address, `WEB_SERVER_ADDRESS`.

use std::net::SocketAddr;

use crate::config::{Config, ConfigError};

/// Config key of the listen address.
pub(super) const KEY: &str = "WEB_SERVER_ADDRESS";
/// Default listen address. Source: Nameko 2.14.1.
const DEFAULT: &str = "0.0.0.0:8000";

/// The configured listen address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BindAddress {
    host: String,
    port: u16,
}

impl BindAddress {
    /// Reads the address from the configuration. A number is a port.
    pub(super) fn from_config(config: &Config) -> Result<Self, ConfigError> {
        let text = match config.get(KEY) {
            Some(serde_json::Value::Number(port)) => port.to_string(),
            _ => config.str(KEY)?.unwrap_or(DEFAULT).to_owned(),
        };
        Self::parse(&text).ok_or_else(|| {
            config.invalid(
                KEY,
                format!(
                    "must be `[host:]port`, such as `8000`, `127.0.0.1:8000` or `[::1]:8000`, not `{text}`"
                ),
            )
        })
    }

    /// Parses `[host:]port`, with brackets around an IPv6 host.
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':').unwrap_or(("0.0.0.0", text));
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').filter(|host| host.contains(':'))?,
            None if host.contains(':') => return None,
            None => host,
        };
        let plain = !host.is_empty() && !host.contains(|it: char| it.is_whitespace() || it == '/');
        // `parse` accepts `+80`.
        let digits = !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit());
        if !plain || !digits {
            return None;
        }
        Some(Self {
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }

    /// Resolves the host name to its first socket address.
    pub(super) async fn resolve(&self, config: &Config) -> Result<SocketAddr, ConfigError> {
        let wrong =
            |reason: String| config.invalid(KEY, format!("has the host `{}`, {reason}", self.host));
        let mut found = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|error| wrong(format!("which cannot be resolved: {error}")))?;
        found
            .next()
            .ok_or_else(|| wrong("which has no address".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Option<(String, u16)> {
        BindAddress::parse(text).map(|address| (address.host, address.port))
    }

    #[test]
    fn host_and_port_are_parsed() {
        for (text, host, port) in [
            ("8000", "0.0.0.0", 8000),
            ("127.0.0.1:80", "127.0.0.1", 80),
            ("localhost:0", "localhost", 0),
            ("[::]:8000", "::", 8000),
            ("[::1]:65535", "::1", 65535),
        ] {
            assert_eq!(parsed(text), Some((host.to_owned(), port)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_rejected() {
        for text in [
            "",
            ":",
            ":80",
            "foo",
            "foo:",
            "foo:bar",
            "1.2.3.4:65536",
            "::1:80",
            "[::1]",
            "[]:80",
            "[a]:80",
            "a b:80",
            "http://x:80",
            "80:",
            "+80",
            "a:-1",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn the_default_is_upstreams_and_an_invalid_address_is_an_error() {
        let address = |config: Config| BindAddress::from_config(&config);
        assert_eq!(address(Config::default()).unwrap().port, 8000);
        assert_eq!(address(Config::default().with(KEY, 81)).unwrap().port, 81);
        let error = address(Config::default().with(KEY, "foo")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "WEB_SERVER_ADDRESS must be `[host:]port`, such as `8000`, `127.0.0.1:8000` or `[::1]:8000`, not `foo`"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = BindAddress::parse(&text);
        }
    }
}
