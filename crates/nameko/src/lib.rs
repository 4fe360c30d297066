//! nameko
