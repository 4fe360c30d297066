//! nameko-broker
