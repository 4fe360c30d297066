//! A service of a mixed fleet with a format other than JSON. `formats.py` implements it in Python.
//!
//! The configuration selects the format: `msgpack`, or `hex-json`, which this program registers.

use std::collections::BTreeMap;

use nameko::{
    prelude::*,
    serialization::{self, Compression, DynSerialize, Error as FormatError, Payload, Serializer},
};
use serde_bytes::ByteBuf;
use serde_json::Value;

/// JSON in hexadecimal digits.
struct HexJson;

impl Serializer for HexJson {
    fn name(&self) -> &str {
        "hex-json"
    }

    fn content_type(&self) -> &str {
        "application/x-hex-json"
    }

    fn encode(&self, value: &dyn DynSerialize) -> Result<Vec<u8>, FormatError> {
        Ok(to_hex(&serialization::to_vec(value)?).into_bytes())
    }

    fn decode(&self, body: &[u8]) -> Result<Payload, FormatError> {
        let digits = std::str::from_utf8(body).map_err(FormatError::read)?;
        serialization::from_slice(&from_hex(digits).map_err(FormatError::read)?)
    }
}

#[derive(Dependencies)]
struct Formats {
    #[dependency(RpcProxy::new("rust_formats"))]
    rust: ServiceProxy,
    #[dependency(RpcProxy::new("python_formats"))]
    python: ServiceProxy,
    #[dependency(RpcProxy::new("upstream_formats"))]
    upstream: ServiceProxy,
}

#[service("rust_formats")]
impl Formats {
    #[rpc]
    async fn echo(&self, value: Payload) -> Result<Payload> {
        Ok(value)
    }

    #[rpc]
    async fn fail(&self) -> Result<()> {
        Err(Error::raise("ValueError", "bad"))
    }

    #[rpc]
    async fn backwards(&self, data: Vec<u8>) -> Result<ByteBuf> {
        Ok(data.into_iter().rev().collect::<Vec<_>>().into())
    }

    #[rpc]
    async fn numbered(&self, names: BTreeMap<i64, String>) -> Result<BTreeMap<String, i64>> {
        Ok(names.into_iter().map(|(k, v)| (v, k)).collect())
    }

    /// Returns the value as another service echoes it.
    #[rpc]
    async fn relay(&self, next: String, value: Value) -> Result<Value> {
        self.proxy(&next)?.call("echo", (value,)).await
    }

    #[rpc]
    async fn relay_compressed(&self, next: String, value: Value) -> Result<Value> {
        let compression = match next.as_str() {
            "upstream" => Compression::Bzip2,
            _ => Compression::Gzip,
        };
        let proxy = self.proxy(&next)?.with_compression(compression);
        proxy.call("echo", (value,)).await
    }

    #[rpc]
    async fn relay_failure(&self, next: String) -> Result<()> {
        self.proxy(&next)?.call("fail", ()).await
    }

    #[rpc]
    async fn relay_bytes(&self, next: String, digits: String) -> Result<String> {
        let data = ByteBuf::from(from_hex(&digits)?);
        let backwards: ByteBuf = self.proxy(&next)?.call("backwards", (data,)).await?;
        Ok(to_hex(&backwards))
    }

    #[rpc]
    async fn relay_numbered(&self, next: String) -> Result<BTreeMap<String, i64>> {
        let names = BTreeMap::from([(7, "seven"), (-1, "minus one")]);
        self.proxy(&next)?.call("numbered", (names,)).await
    }

    #[rpc]
    async fn relay_numbers(&self, next: String) -> Result<Vec<String>> {
        type Numbers = (f64, f64, f64, u64, i64, f64);
        let numbers = (
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            u64::MAX,
            i64::MIN,
            -0.0,
        );
        let echo: Numbers = self.proxy(&next)?.call("echo", (numbers,)).await?;
        let (nan, infinity, minus_infinity, most, least, minus_zero) = echo;
        Ok(vec![
            nan.to_string().to_lowercase(),
            infinity.to_string(),
            minus_infinity.to_string(),
            most.to_string(),
            least.to_string(),
            format!("{minus_zero:?}"),
        ])
    }
}

impl Formats {
    fn proxy(&self, name: &str) -> Result<&ServiceProxy> {
        match name {
            "rust" => Ok(&self.rust),
            "python" => Ok(&self.python),
            "upstream" => Ok(&self.upstream),
            _ => Err(Error::raise("KeyError", name)),
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(digits: &str) -> Result<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}

fn main() -> ExitCode {
    serialization::register(HexJson);
    nameko::main(services![Formats])
}
