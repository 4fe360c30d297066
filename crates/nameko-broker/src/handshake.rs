//! The handshake, from the protocol header to `connection.open`.

use std::time::{Duration, SystemTime};

use amq_protocol::{
    protocol::connection as protocol,
    types::{AMQPValue, FieldTable},
};

use crate::{
    auth::{self, ExternalLogin},
    connection::{Connection, INITIAL_FRAME_MAX, Phase},
    connection_info::VHostSession,
    error::{AmqpError, Result},
    settings::{PURPOSE, Settings},
};

/// Protocol header; also the reply to a peer that sends another one.
const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\0\0\x09\x01";

/// The first bytes of a TLS client: a record of type handshake, of version 3.x.
const TLS_HANDSHAKE: &[u8] = &[22, 3];

impl Connection {
    /// Processes the protocol header. Returns `None` while it is incomplete.
    pub(crate) fn on_protocol_header(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        let received = bytes.get(..8).unwrap_or(bytes);
        if !PROTOCOL_HEADER.starts_with(received) {
            if received.starts_with(TLS_HANDSHAKE) && !self.tls {
                tracing::warn!(
                    peer = self.broker.peer(self.send_buffer.connection),
                    "a client speaks TLS on the port without TLS; use the TLS port, or amqp:// in place of amqps://"
                );
            } else {
                tracing::debug!(bytes = ?received, "peer does not speak AMQP 0-9-1; closing");
            }
            self.send_buffer.write(|buffer| buffer.raw(PROTOCOL_HEADER));
            self.phase = Phase::Closed;
            return Ok(Some(received.len()));
        }
        if received.len() < PROTOCOL_HEADER.len() {
            return Ok(None);
        }
        let start = protocol::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: server_properties(),
            mechanisms: auth::mechanisms(self.external.as_ref()).into(),
            locales: "en_US".into(),
        };
        self.send(protocol::AMQPMethod::Start(start));
        self.phase = Phase::Starting;
        Ok(Some(PROTOCOL_HEADER.len()))
    }

    /// Authenticates the client.
    pub(crate) fn on_start_ok(&mut self, ok: &protocol::StartOk) -> Result<()> {
        if let Some(AMQPValue::FieldTable(capabilities)) =
            ok.client_properties.inner().get("capabilities")
        {
            let has =
                |name: &str| capabilities.inner().get(name) == Some(&AMQPValue::Boolean(true));
            self.cancel_notify = has("consumer_cancel_notify");
            self.auth_failure_close = has("authentication_failure_close");
        }
        let mechanism = ok.mechanism.as_str();
        let settings = &self.broker.settings;
        let user = match &self.external {
            Some(external) if mechanism == "EXTERNAL" => external_user(settings, external),
            _ => password_user(settings, mechanism, ok.response.as_bytes())?,
        };
        let Some(user) = user else {
            // Like RabbitMQ, names no method here.
            self.fail(&AmqpError::access_refused(format!(
                "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
            )));
            return Ok(());
        };
        self.user = user.to_owned();
        self.mechanism = mechanism.to_owned();
        self.client_properties = ok.client_properties.clone();
        let tune = protocol::Tune {
            channel_max: settings.channel_max,
            frame_max: settings.frame_max,
            heartbeat: settings.heartbeat,
        };
        self.send(protocol::AMQPMethod::Tune(tune));
        self.phase = Phase::Tuning;
        Ok(())
    }

    /// Validates and stores the negotiated limits.
    pub(crate) fn on_tune_ok(&mut self, ok: &protocol::TuneOk) -> Result<()> {
        let settings = &self.broker.settings;
        check_tuned(
            "frame_max",
            INITIAL_FRAME_MAX as u32,
            settings.frame_max,
            ok.frame_max,
        )?;
        check_tuned(
            "channel_max",
            1,
            settings.channel_max.into(),
            ok.channel_max.into(),
        )?;
        self.frame_max = ok.frame_max as usize;
        self.channel_max = ok.channel_max;
        self.heartbeat = Duration::from_secs(ok.heartbeat.into());
        self.send_buffer.set_frame_max(self.frame_max);
        self.phase = Phase::Opening;
        Ok(())
    }

    /// Enters a virtual host.
    pub(crate) fn on_open(&mut self, name: &str) -> Result<()> {
        let session = VHostSession {
            vhost: name.to_owned(),
            user: self.user.clone(),
            mechanism: std::mem::take(&mut self.mechanism),
            properties: std::mem::take(&mut self.client_properties),
            opened_at: SystemTime::now(),
            frame_max: self.frame_max,
            channel_max: self.channel_max,
            heartbeat: self.heartbeat.as_secs(),
        };
        let vhost = self
            .broker
            .enter_vhost(self.send_buffer.connection, session)
            .ok_or_else(|| AmqpError::not_allowed(format!("vhost {name} not found")))?;
        self.vhost = Some(vhost);
        self.send(protocol::AMQPMethod::OpenOk(protocol::OpenOk {}));
        self.phase = Phase::Running;
        Ok(())
    }
}

/// Returns the user with the name and password of a SASL response.
fn password_user<'a>(
    settings: &'a Settings,
    mechanism: &str,
    response: &[u8],
) -> Result<Option<&'a str>> {
    let credentials = auth::parse_credentials(mechanism, response)?;
    let user = settings.authenticate(&credentials);
    if user.is_none() {
        tracing::warn!(
            user = %String::from_utf8_lossy(&credentials.user),
            "login refused: unknown user or wrong password"
        );
    }
    Ok(user)
}

/// Returns the user named by the client's certificate.
fn external_user<'a>(settings: &'a Settings, external: &ExternalLogin) -> Option<&'a str> {
    let Some(name) = external.common_name.as_deref() else {
        tracing::warn!("login refused: EXTERNAL needs a client certificate with a common name");
        return None;
    };
    let user = settings.user(name);
    if user.is_none() {
        tracing::warn!(
            user = name,
            "login refused: the common name of the client certificate is no user"
        );
    }
    user
}

/// Validates a value of `connection.tune-ok` against the server's offer; 0 is unlimited.
fn check_tuned(field: &str, minimum: u32, offered: u32, agreed: u32) -> Result<()> {
    let (comparison, bound, limit) = if agreed != 0 && agreed < minimum {
        ("lower", "minimum", minimum)
    } else if offered != 0 && (agreed == 0 || agreed > offered) {
        ("higher", "maximum", offered)
    } else {
        return Ok(());
    };
    let no_limit = if field == "channel_max" && agreed == 0 {
        " (no limit)"
    } else {
        ""
    };
    Err(AmqpError::not_allowed(format!(
        "negotiated {field} = {agreed}{no_limit} is {comparison} than the {bound} allowed value ({limit})"
    ))
    .in_method((10, 30)))
}

/// Returns the server properties of `connection.start`, with the supported capabilities.
fn server_properties() -> FieldTable {
    let mut capabilities = FieldTable::default();
    for name in [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "authentication_failure_close",
        "per_consumer_qos",
    ] {
        capabilities.insert(name.into(), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    for (name, value) in [
        ("product", env!("CARGO_PKG_NAME")),
        ("version", env!("CARGO_PKG_VERSION")),
        ("platform", "Rust"),
        ("information", PURPOSE),
    ] {
        properties.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    properties
}
