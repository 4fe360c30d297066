//! JSON bodies.

/// A JSON body of a request or a response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);
