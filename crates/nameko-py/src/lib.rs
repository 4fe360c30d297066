//! nameko-py
