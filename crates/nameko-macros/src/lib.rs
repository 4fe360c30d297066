//! nameko-macros
