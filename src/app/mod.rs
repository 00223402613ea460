//! The programs: what `attestry run` and `attestry demo` start, in which order, and how they end.
//!
//! The only place that knows both the configuration and the parts that it configures.

mod admin;
mod data_path;
mod demo;
mod descriptors;
mod life;
mod run;

pub use demo::demo;
pub use run::{Running, run};
