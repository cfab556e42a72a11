#![doc = include_str!("../README.md")]

mod builder;
mod cache;
mod error;
mod generate;
mod image;
mod library;
mod metadata;
mod options;
pub mod random;
mod session;
mod source;

pub use builder::{Provider, SessionBuilder};
pub use generate::{Completion, Run, Step};
pub use session::{Cancel, Session};
pub use {error::Error, error::Result, image::Image, library::environment, metadata::Info, options::Options, ort};
