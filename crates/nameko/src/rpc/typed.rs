//! Clients with methods: what `#[rpc_client]` writes, and what it calls.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use serde::{
    Serialize, Serializer,
    de::DeserializeOwned,
    ser::{SerializeMap, SerializeSeq},
};

use super::proxy::ServiceProxy;
use crate::{
    error::{Error, Result},
    serialization::Payload,
};

/// A client of one service, with a method for each of the service's.
///
/// Written by [`#[rpc_client("name")]`](macro@crate::rpc_client) beside the trait with the methods. A client of a service that
/// has another name than the trait says is made `from` a proxy of that one.
pub trait RpcClient: From<ServiceProxy> + Clone + Send + Sync + 'static {
    /// The name of the service.
    const SERVICE: &'static str;
}

/// What a client's methods call: the service, or a mock in its place.
#[derive(Clone)]
pub enum Target {
    /// The service.
    Service(ServiceProxy),
    /// A mock, behind a trait that the client knows.
    Mock(Arc<dyn Any + Send + Sync>),
}

impl Target {
    /// A mock, as the value that [`as_mock`](Self::as_mock) gives back.
    pub fn mock<M: Send + Sync + 'static>(mock: M) -> Self {
        Self::Mock(Arc::new(mock))
    }

    /// The mock, if that is what is called.
    pub fn as_mock<M: 'static>(&self) -> Option<&M> {
        match self {
            Self::Service(_) => None,
            Self::Mock(mock) => mock.downcast_ref(),
        }
    }

    /// The same with another timeout, `None` for none.
    pub fn with_timeout(&self, timeout: impl Into<Option<Duration>>) -> Self {
        match self {
            Self::Service(proxy) => Self::Service(proxy.with_timeout(timeout)),
            Self::Mock(mock) => Self::Mock(mock.clone()),
        }
    }

    /// Calls a method of the service, and returns its result unread.
    pub async fn ask(&self, method: &str, arguments: impl Serialize) -> Result<Payload> {
        match self {
            Self::Service(proxy) => proxy.ask(method, arguments).await,
            // Clients ask for their mock first, and with the type that they gave.
            Self::Mock(_) => Err(Error::UnknownService("a mock".to_owned())),
        }
    }
}

impl Target {
    /// Reads the result of a call of `method`.
    pub(crate) fn read<T: DeserializeOwned>(&self, method: &str, result: &Payload) -> Result<T> {
        match self {
            Self::Service(proxy) => proxy.read(method, result),
            Self::Mock(_) => Ok(result.read()?),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(proxy) => proxy.fmt(f),
            Self::Mock(_) => f.write_str("<mock>"),
        }
    }
}

/// The arguments of one call, by name: a map. Those that are left out are not in it.
#[derive(Debug)]
pub struct ByName<A>(pub A);

/// The arguments of one call, in their order: a list. Those that are left out at its end are not in it, others are null.
#[derive(Debug)]
pub struct ByPosition<A>(pub A);

/// The value of an argument.
#[derive(Debug)]
pub struct Given<T> {
    pub(crate) value: T,
    /// Whether the caller gave it: one that was not may be left out.
    pub(crate) is_given: bool,
}

/// An argument after those before it.
#[derive(Debug)]
pub struct Argument<A, T> {
    before: A,
    name: &'static str,
    given: Given<T>,
}

/// Arguments, from the first to the last: `()`, or an argument and those before it.
pub trait ArgumentList: Sized {
    /// Adds an argument.
    fn with<T: Serialize>(self, name: &'static str, given: Given<T>) -> Argument<Self, T> {
        Argument {
            before: self,
            name,
            given,
        }
    }

    /// How many are given.
    fn given(&self) -> usize;

    /// How many there are, and how many up to the last that is given.
    fn extent(&self) -> (usize, usize);

    /// Writes those that are given.
    fn write_named<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error>;

    /// Writes the first so many; returns how many there are.
    fn write_listed<L: SerializeSeq>(&self, list: &mut L, count: usize) -> Result<usize, L::Error>;
}

impl ArgumentList for () {
    fn given(&self) -> usize {
        0
    }

    fn extent(&self) -> (usize, usize) {
        (0, 0)
    }

    fn write_named<M: SerializeMap>(&self, _: &mut M) -> Result<(), M::Error> {
        Ok(())
    }

    fn write_listed<L: SerializeSeq>(&self, _: &mut L, _: usize) -> Result<usize, L::Error> {
        Ok(0)
    }
}

impl<A: ArgumentList, T: Serialize> ArgumentList for Argument<A, T> {
    fn given(&self) -> usize {
        self.before.given() + usize::from(self.given.is_given)
    }

    fn extent(&self) -> (usize, usize) {
        let (count, last) = self.before.extent();
        match self.given.is_given {
            true => (count + 1, count + 1),
            false => (count + 1, last),
        }
    }

    fn write_named<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        self.before.write_named(map)?;
        match self.given.is_given {
            true => map.serialize_entry(self.name, &self.given.value),
            false => Ok(()),
        }
    }

    fn write_listed<L: SerializeSeq>(&self, list: &mut L, count: usize) -> Result<usize, L::Error> {
        let index = self.before.write_listed(list, count)?;
        if index < count {
            list.serialize_element(&self.given.value)?;
        }
        Ok(index + 1)
    }
}

impl<A: ArgumentList> Serialize for ByName<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.given()))?;
        self.0.write_named(&mut map)?;
        map.end()
    }
}

impl<A: ArgumentList> Serialize for ByPosition<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (_, count) = self.0.extent();
        let mut list = serializer.serialize_seq(Some(count))?;
        self.0.write_listed(&mut list, count)?;
        list.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn given<T>(value: T) -> Given<T> {
        Given {
            value,
            is_given: true,
        }
    }

    fn maybe(value: Option<u8>) -> Given<Option<u8>> {
        Given {
            is_given: value.is_some(),
            value,
        }
    }

    #[test]
    fn named_arguments_are_those_that_are_given() {
        let written = |b: Option<u8>| {
            let arguments = ().with("a", given("x")).with("b", maybe(b));
            json!(ByName(arguments.with("c", given(1))))
        };
        assert_eq!(written(Some(2)), json!({"a": "x", "b": 2, "c": 1}));
        assert_eq!(written(None), json!({"a": "x", "c": 1}));
        assert_eq!(json!(ByName(())), json!({}));
    }

    #[test]
    fn positional_arguments_end_with_the_last_that_is_given() {
        let written = |b: Option<u8>, c: Option<u8>, d: Option<u8>| {
            let arguments = ().with("a", given("x")).with("b", maybe(b));
            json!(ByPosition(
                arguments.with("c", maybe(c)).with("d", maybe(d))
            ))
        };
        assert_eq!(written(Some(2), Some(3), Some(4)), json!(["x", 2, 3, 4]));
        assert_eq!(written(None, Some(3), None), json!(["x", null, 3]));
        assert_eq!(written(None, None, None), json!(["x"]));
        assert_eq!(json!(ByPosition(())), json!([]));
    }
}
