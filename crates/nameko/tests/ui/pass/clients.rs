//! Clients and exceptions of all shapes, with common names. Generated code is free of lints.
#![deny(
    missing_docs,
    unused,
    unreachable_pub,
    rust_2018_idioms,
    clippy::all,
    clippy::pedantic
)]

use nameko::prelude::*;

type Ok = u8;
type Option<T> = std::option::Option<T>;

/// A client for the crate.
#[rpc_client("orders")]
pub(crate) trait Orders {
    /// With names that the client or the macro have themselves, and conditions.
    #[cfg(not(any()))]
    async fn mock(
        &self,
        arguments: String,
        mock: Option<Ok>,
        #[cfg(any())] gone: Gone,
    ) -> Result<()>;
    /// Not there.
    #[cfg(any())]
    async fn gone(&self) -> Result<Gone>;
    /// As the provider.
    async fn provider(&self) -> Result<String>;
    /// Deprecated.
    #[deprecated]
    async fn old(&self, r#type: Vec<std::option::Option<String>>) -> Result<()>;
    /// Many.
    #[allow(clippy::too_many_arguments)]
    async fn many(&self, a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8)
    -> Result<[u8; 8]>;
}

#[rpc_client("empty", client = Nobody, positional)]
trait Empty: std::fmt::Debug {}

#[cfg(any())]
#[rpc_client("gone")]
trait Nowhere {
    async fn gone(&self) -> Result<Gone>;
}

/// All shapes of it.
#[derive(Debug, Exception)]
pub(crate) enum AnyError {
    /// Nothing in it.
    #[exception("Unit")]
    Unit,
    /// Two fields.
    #[exception("a.b.Tuple")]
    Tuple(u8, Vec<String>),
    /// A name that is a word of Rust's.
    #[exception("a.b.Named")]
    Named {
        /// A field.
        r#type: String,
        /// Another.
        error: Option<u8>,
    },
    /// Another error.
    #[exception(transparent)]
    Other(nameko::Error),
    /// Not there.
    #[cfg(any())]
    #[exception("a.b.Gone")]
    Gone(Gone),
}

impl std::fmt::Display for AnyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for AnyError {}

/// Takes a client or its mock.
fn empty(it: &impl Empty) -> &impl std::fmt::Debug {
    it
}

/// Inside a function.
#[test]
fn clients_can_be_anywhere() {
    #[derive(Debug, Exception)]
    #[exception(transparent)]
    struct Wrapper(AnyError);

    impl std::fmt::Display for Wrapper {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.fmt(f)
        }
    }

    impl std::error::Error for Wrapper {}

    #[rpc_client("local")]
    trait Local {
        async fn f(&self) -> Result<()>;
    }

    nameko::exceptions::register::<Wrapper>();
    let proxy = nameko::ServiceProxy::mock("any", |_, _, _| Err("text".into()));
    let (orders, local) = (
        OrdersClient::from(proxy.clone()),
        LocalClient::from(proxy.clone()),
    );
    drop((orders.mock(String::new(), None), orders.provider()));
    #[expect(deprecated, reason = "it is")]
    drop(orders.old(Vec::new()));
    drop((orders.many(1, 2, 3, 4, 5, 6, 7, 8), local.f()));
    let show = |nobody: &dyn std::fmt::Debug| format!("{nobody:?}");
    assert!(show(empty(&Nobody::from(proxy))).contains("any"));
    let _ = (
        LocalClient::provider(),
        OrdersClient::provider(),
        Nobody::provider(),
    );
    let fault = nameko::Fault::of(&Wrapper(AnyError::Tuple(1, vec!["x".to_owned()])));
    assert_eq!(fault.exc_path, "a.b.Tuple");
    let fault = nameko::Fault::of(&nameko::Error::from(AnyError::Other("text".into())));
    assert_eq!(fault.exc_type, "Error");
}
