//! Ui
