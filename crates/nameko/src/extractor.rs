//! Parameters that are extracted from the origin of a call.

use std::{any::Any, fmt};

use crate::error::Result;

/// A parameter that is extracted from the [origin](crate::Args::origin) of a call by its type, such
/// as that of an `#[http]` method.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "for requests"))]
#[doc(hidden)]
pub struct Extractor {
    pub(crate) name: &'static str,
    /// Whether the parameter streams the body of the origin.
    pub(crate) streams: bool,
    /// Extracts the parameter before the body of the origin is read, if it does not need that.
    pub(crate) early: fn(&mut dyn Any, &'static str) -> Result<()>,
}

impl fmt::Debug for Extractor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extractor")
            .field("name", &self.name)
            .field("streams", &self.streams)
            .finish_non_exhaustive()
    }
}
