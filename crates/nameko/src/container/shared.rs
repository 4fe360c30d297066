//! Extensions shared by the other extensions of a container.

use std::{
    any::{Any, TypeId, type_name},
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use super::Container;
use crate::{
    error::{Error, Result},
    extension::{DynShared, SharedExtension},
    sync::lock,
};

/// Lazily created shared extensions of a container.
#[derive(Default)]
pub(super) struct SharedExtensions {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// One slot per type, locked during creation so that concurrent callers wait for it.
    slots: HashMap<TypeId, Slot>,
    /// In the order of creation: dependencies come first.
    made: Vec<Made>,
    phase: Phase,
}

type Slot = Arc<Mutex<Option<Arc<dyn Any + Send + Sync>>>>;

#[derive(Clone)]
pub(super) struct Made {
    pub(super) name: &'static str,
    pub(super) extension: Arc<dyn DynShared>,
}

/// Whether extensions can still be created. Only advances.
#[derive(Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    #[default]
    Open,
    /// Existing extensions have been collected for their start.
    Started,
    /// Existing extensions have been collected for their stop.
    Ended,
}

impl SharedExtensions {
    /// Returns all extensions so far, in the order of their creation.
    pub(super) fn known(&self) -> Vec<Made> {
        self.lock().made.clone()
    }

    /// Returns all extensions for their start. No more are created afterwards.
    pub(super) fn started(&self) -> Vec<Made> {
        self.advance(Phase::Started)
    }

    /// Returns all extensions for their stop or kill. No more are created afterwards.
    pub(super) fn ended(&self) -> Vec<Made> {
        self.advance(Phase::Ended)
    }

    fn advance(&self, phase: Phase) -> Vec<Made> {
        let mut state = self.lock();
        state.phase = state.phase.max(phase);
        state.made.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Container {
    /// Returns the shared extension `T` of this container; creates it with `make` on the first
    /// call, while concurrent callers wait.
    ///
    /// To be called in `setup`: shared extensions start after all others, and none can be created
    /// afterwards. `make` may request other shared extensions, but not `T`.
    ///
    /// # Errors
    /// The error of `make`. [`Error::Raised`] with a `ContainerError` if the shared extensions have
    /// started already, [`Error::ContainerStopping`] if the container was stopped: a new extension
    /// would not be started or stopped.
    pub fn shared<T: SharedExtension>(
        &self,
        make: impl FnOnce(&Container) -> Result<T>,
    ) -> Result<Arc<T>> {
        let shared = &self.inner.shared;
        let slot = shared
            .lock()
            .slots
            .entry(TypeId::of::<T>())
            .or_default()
            .clone();
        let mut slot = lock(&slot);
        if let Some(known) = slot.clone().and_then(|extension| extension.downcast().ok()) {
            return Ok(known);
        }
        self.may_share::<T>(shared.lock().phase)?;
        let extension = Arc::new(make(self)?);
        let mut state = shared.lock();
        self.may_share::<T>(state.phase)?;
        state.made.push(Made {
            name: type_name::<T>(),
            extension: extension.clone(),
        });
        *slot = Some(extension.clone());
        Ok(extension)
    }

    fn may_share<T>(&self, phase: Phase) -> Result<()> {
        match phase {
            Phase::Open => Ok(()),
            Phase::Started => Err(Error::raise(
                "ContainerError",
                format!(
                    "{} has started already; request the shared extension `{}` in `setup`",
                    self.service_name(),
                    type_name::<T>()
                ),
            )),
            Phase::Ended => Err(self.stopping()),
        }
    }
}
