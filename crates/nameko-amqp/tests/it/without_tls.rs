//! TLS options in a build without the feature `tls`.

use nameko_amqp::{ConnectOptions, Connection, Error, Tls};

use crate::support::in_time;

#[tokio::test]
async fn tls_connections_fail_with_the_name_of_the_feature() {
    let amqps = ConnectOptions::from_uri("amqps://localhost:1").unwrap();
    let mut with_options = ConnectOptions::from_uri("amqp://localhost:1").unwrap();
    with_options.tls = Some(Tls::default());
    for options in [amqps, with_options] {
        let error = in_time(Connection::open(&options)).await.unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{error:?}");
        assert!(error.to_string().contains("feature `tls`"), "{error}");
    }
}
