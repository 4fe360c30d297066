//! SASL mechanisms PLAIN, AMQPLAIN and EXTERNAL.

use amq_protocol::types::{AMQPValue, parsing::parse_field_table};

use crate::{
    depth_limit::check_table,
    error::{AmqpError, Code, Result},
};

/// The login by certificate, offered to clients whose certificate is requested.
#[derive(Debug, Default)]
pub(crate) struct ExternalLogin {
    /// Common name of the client's verified certificate; `None` if it has none, or if the client
    /// presented no certificate.
    pub(crate) common_name: Option<String>,
}

/// Returns the mechanisms that `connection.start` offers.
pub(crate) fn mechanisms(external: Option<&ExternalLogin>) -> &'static str {
    match external {
        None => "PLAIN AMQPLAIN",
        Some(_) => "PLAIN AMQPLAIN EXTERNAL",
    }
}

/// User name and password from a SASL response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) user: Vec<u8>,
    pub(crate) password: Vec<u8>,
}

/// Parses the SASL response of a mechanism.
pub(crate) fn parse_credentials(mechanism: &str, response: &[u8]) -> Result<Credentials> {
    match mechanism {
        "PLAIN" => plain(response),
        "AMQPLAIN" => amqplain(response),
        other => Err(AmqpError::new(
            Code::CommandInvalid,
            format!("unknown authentication mechanism '{other}'"),
        )),
    }
}

/// Parses `\0user\0password`.
fn plain(response: &[u8]) -> Result<Credentials> {
    let mut parts = response.split(|byte| *byte == 0);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some([]), Some(user), Some(password), None) => Ok(Credentials {
            user: user.to_vec(),
            password: password.to_vec(),
        }),
        _ => Err(AmqpError::new(Code::SyntaxError, "invalid PLAIN response")),
    }
}

/// Parses a field table with LOGIN and PASSWORD, encoded without its length prefix.
fn amqplain(response: &[u8]) -> Result<Credentials> {
    let bad = || {
        AmqpError::new(
            Code::SyntaxError,
            "AMQPLAIN auth info is missing LOGIN or PASSWORD field",
        )
    };
    let length = u32::try_from(response.len()).map_err(|_| bad())?;
    let table = [&length.to_be_bytes(), response].concat();
    check_table(&table)?;
    let (_, table) = parse_field_table(&*table).map_err(|_| bad())?;
    let text = |key: &str| match table.inner().get(key) {
        Some(AMQPValue::LongString(text)) => Ok(text.as_bytes().to_vec()),
        _ => Err(bad()),
    };
    Ok(Credentials {
        user: text("LOGIN")?,
        password: text("PASSWORD")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> Credentials {
        Credentials {
            user: b"guest".to_vec(),
            password: b"secret".to_vec(),
        }
    }

    #[test]
    fn both_mechanisms_are_parsed() {
        assert_eq!(parse_credentials("PLAIN", b"\0guest\0secret"), Ok(guest()));
        let amqplain = b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x06secret";
        assert_eq!(parse_credentials("AMQPLAIN", amqplain), Ok(guest()));
    }

    #[test]
    fn malformed_responses_are_refused() {
        for (mechanism, response, code) in [
            ("PLAIN", &b"guest\0secret"[..], Code::SyntaxError),
            ("PLAIN", b"\0guest", Code::SyntaxError),
            ("PLAIN", b"\0a\0b\0c", Code::SyntaxError),
            ("AMQPLAIN", b"\x05LOGINS\0\0\0\x05guest", Code::SyntaxError),
            ("AMQPLAIN", b"\xff\xff", Code::SyntaxError),
            ("EXTERNAL", b"", Code::CommandInvalid),
        ] {
            assert_eq!(
                parse_credentials(mechanism, response).unwrap_err().code,
                code,
                "{mechanism} {response:?}"
            );
        }
    }
}
