//! Settings of extensions that are given to the builder of a container.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    sync::Arc,
};

#[cfg(feature = "http")]
use super::Container;

/// Settings of extensions by their types: the container knows none of them.
#[derive(Clone, Default)]
#[cfg_attr(
    not(feature = "http"),
    expect(dead_code, reason = "no extension has settings")
)]
pub(crate) struct Attachments(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

#[cfg(feature = "http")]
impl Attachments {
    /// Returns the setting of type `T`.
    pub(crate) fn get<T: Any>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref()
    }

    /// Changes the setting of type `T`.
    pub(crate) fn update<T>(&mut self, change: impl FnOnce(&mut T))
    where
        T: Any + Clone + Default + Send + Sync,
    {
        let mut value = self.get::<T>().cloned().unwrap_or_default();
        change(&mut value);
        self.0.insert(TypeId::of::<T>(), Arc::new(value));
    }
}

#[cfg(feature = "http")]
impl Container {
    /// Returns a setting of an extension.
    pub(crate) fn attachment<T: Any>(&self) -> Option<&T> {
        self.inner.attachments.get()
    }
}

impl fmt::Debug for Attachments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachments").finish_non_exhaustive()
    }
}
