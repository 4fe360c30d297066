//! The signatures that entrypoints can have.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use nameko::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Order {
    id: u64,
}

/// An error written by hand.
#[derive(Debug)]
struct OutOfStock;

impl fmt::Display for OutOfStock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of stock")
    }
}

impl std::error::Error for OutOfStock {}

type Reply = std::result::Result<Order, OutOfStock>;

#[derive(Dependencies)]
struct Signatures;

#[service("signatures")]
impl Signatures {
    #[rpc]
    async fn nothing(&self) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn mutable(&self, mut count: u64) -> Result<u64> {
        count += 1;
        Ok(count)
    }

    #[rpc]
    async fn r#match(&self, r#type: String) -> Result<String> {
        Ok(r#type)
    }

    #[rpc]
    async fn optional(&self, a: Option<u8>, b: std::option::Option<Order>) -> Result<bool> {
        Ok(a.is_none() && b.is_none())
    }

    #[rpc]
    async fn owned(&self, a: Order, b: Cow<'static, str>, c: (u8, Vec<[f64; 2]>)) -> Result<Order> {
        let _ = (b, c);
        Ok(a)
    }

    #[rpc]
    async fn borrowed_for_ever(&self) -> Result<&'static str> {
        Ok("hello")
    }

    #[rpc]
    async fn own_error(&self) -> Result<BTreeMap<String, Order>, OutOfStock> {
        Err(OutOfStock)
    }

    #[rpc]
    async fn alias(&self) -> Reply {
        Err(OutOfStock)
    }

    #[rpc]
    #[allow(clippy::needless_arbitrary_self_type)]
    async fn typed_self(self: &Self) -> Result<()> {
        Ok(())
    }

    #[rpc]
    #[allow(clippy::too_many_arguments)]
    async fn many(&self, a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8) -> Result<u8> {
        Ok(a + b + c + d + e + f + g)
    }
}

#[tokio::test]
async fn methods_are_called_without_a_container() {
    let service = Signatures;
    assert_eq!(service.mutable(1).await.unwrap(), 2);
    assert_eq!(service.r#match("a".into()).await.unwrap(), "a");
    assert!(service.optional(None, None).await.unwrap());
    assert_eq!(
        service.alias().await.unwrap_err().to_string(),
        "out of stock"
    );
    assert_eq!(
        service.own_error().await.unwrap_err().to_string(),
        "out of stock"
    );
    assert_eq!(service.borrowed_for_ever().await.unwrap(), "hello");
    assert_eq!(
        service
            .owned(Order { id: 1 }, "b".into(), (1, Vec::new()))
            .await
            .unwrap(),
        Order { id: 1 }
    );
    assert_eq!(service.many(1, 2, 3, 4, 5, 6, 7).await.unwrap(), 28);
    service.nothing().await.unwrap();
    service.typed_self().await.unwrap();
}
