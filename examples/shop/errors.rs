//! Errors that all services of the shop know, in both languages.

use nameko::{
    Error, Exception, Fault,
    web::{self, StatusCode},
};

#[derive(Debug, thiserror::Error, Exception)]
pub(crate) enum ShopError {
    /// An order or a product that does not exist.
    #[error("{0}")]
    #[exception("examples.shop.errors.NotFound")]
    NotFound(String),
    /// Fewer items available than ordered.
    #[error("{0}")]
    #[exception("examples.shop.errors.OutOfStock")]
    OutOfStock(String),
    /// An argument that cannot be read.
    #[error("{0}")]
    #[exception("builtins.ValueError")]
    Invalid(String),
    #[error(transparent)]
    #[exception(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    #[exception(transparent)]
    Other(Error),
}

/// Keeps the type of an error that another service has sent.
impl From<Error> for ShopError {
    fn from(error: Error) -> Self {
        error.downcast().unwrap_or_else(Self::Other)
    }
}

/// The response of the gateway.
impl From<ShopError> for web::Error {
    fn from(error: ShopError) -> Self {
        let status = match &error {
            ShopError::NotFound(_) => StatusCode::NOT_FOUND,
            ShopError::OutOfStock(_) => StatusCode::CONFLICT,
            ShopError::Other(Error::UnknownService(_)) => StatusCode::SERVICE_UNAVAILABLE,
            ShopError::Other(Error::Timeout { .. }) => StatusCode::GATEWAY_TIMEOUT,
            _ => return Error::from(error).into(),
        };
        let fault = Fault::of(&error);
        Self::new(status, fault.value).exc_type(fault.exc_type)
    }
}
