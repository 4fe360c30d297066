//! What the extensions of one container share.

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

/// The shared extensions of a container, each made when first asked for.
#[derive(Default)]
pub(super) struct SharedExtensions {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// One per type. Locked while its extension is made, so that whoever else asks waits for it.
    slots: HashMap<TypeId, Slot>,
    /// In the order in which they were made: what one needs comes before it.
    made: Vec<Made>,
    phase: Phase,
}

type Slot = Arc<Mutex<Option<Arc<dyn Any + Send + Sync>>>>;

#[derive(Clone)]
pub(super) struct Made {
    pub(super) name: &'static str,
    pub(super) extension: Arc<dyn DynShared>,
}

/// Whether more may be made. Only grows.
#[derive(Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    #[default]
    Open,
    /// They are started: one that is made now would not be.
    Started,
    /// They are stopped: one that is made now would not be.
    Ended,
}

impl SharedExtensions {
    /// All that there are, to be started. From now on no more are made.
    pub(super) fn started(&self) -> Vec<Made> {
        self.advance(Phase::Started)
    }

    /// All that there are, to be stopped or killed. From now on no more are made.
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
    /// The extension `T` of this container, made by `make` when first asked for; whoever asks at the same time waits
    /// for that one. To be called in `setup`: shared extensions are started after all others, and none is added then.
    /// `make` may ask for others, not for `T` itself.
    ///
    /// # Errors
    /// What `make` failed with. [`Error::ContainerStopping`] when the container was stopped meanwhile, and an error
    /// that says so when it was started: nobody would stop or start what is made now.
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
        if let Some(known) = slot.clone().and_then(|it| it.downcast().ok()) {
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
                    "{} has started: ask for the shared extension `{}` in `setup`",
                    self.service_name(),
                    type_name::<T>()
                ),
            )),
            Phase::Ended => Err(self.stopping()),
        }
    }
}
