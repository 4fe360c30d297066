//! State shared by the sockets of a container.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use tokio::sync::watch;

use super::{hub::WebSocketHub, origins::Origins, settings::Settings};
use crate::container::{MethodHandle, WeakContainer};

/// State shared by the sockets of a container.
pub(super) struct Shared {
    pub(super) container: WeakContainer,
    pub(super) hub: WebSocketHub,
    pub(super) settings: Settings,
    pub(super) origins: Origins,
    pub(super) methods: RwLock<Methods>,
    /// `true` once the container stops.
    pub(super) stopping: watch::Sender<bool>,
}

#[derive(Default)]
pub(super) struct Methods {
    pub(super) by_name: HashMap<&'static str, MethodHandle>,
    pub(super) handshake: Vec<MethodHandle>,
    pub(super) connect: Vec<MethodHandle>,
    pub(super) disconnect: Vec<MethodHandle>,
}

/// The trigger of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    Request,
    Handshake,
    Connect,
    Disconnect,
}

impl Shared {
    pub(super) fn method(&self, name: &str) -> Option<MethodHandle> {
        self.read().by_name.get(name).cloned()
    }

    pub(super) fn hooks(&self, occasion: Occasion) -> Vec<MethodHandle> {
        match occasion {
            Occasion::Request => Vec::new(),
            Occasion::Handshake => self.read().handshake.clone(),
            Occasion::Connect => self.read().connect.clone(),
            Occasion::Disconnect => self.read().disconnect.clone(),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Methods> {
        self.methods.read().unwrap_or_else(PoisonError::into_inner)
    }
}
