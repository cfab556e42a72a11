//! How a bundle is opened.

use std::path::{Path, PathBuf};

use ort::{ep, logging::LogLevel, session::builder::GraphOptimizationLevel as Level};

use crate::{Error, Result, Session, library, library::Library, source::Settings, source::Source};

/// What computes the graphs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Provider {
    /// The processor.
    #[default]
    Cpu,
    /// The first NVIDIA GPU. It needs a build of ONNX Runtime for CUDA.
    Cuda,
}

/// Opens a bundle with options, which may be set before. [`Session::builder`] gives the default ones.
#[derive(Debug, Clone, Default)]
pub struct SessionBuilder {
    /// Path of ONNX Runtime's shared library. By default it is in the environment variable `IGPT_ORT_LIBRARY` or
    /// `ORT_DYLIB_PATH`, or where the system finds it. A process has one library: another path is refused later.
    pub runtime_library: Option<PathBuf>,
    /// Threads inside one operator, at most 1024. By default 0, which is ONNX Runtime's choice.
    pub threads: usize,
    /// Whether threads that wait for work keep a core busy. By default they do not.
    pub spinning: bool,
    /// What computes. By default the CPU.
    pub provider: Provider,
    /// Whether ONNX Runtime gives the CPU memory of a call back. By default it keeps it for the next call, which is
    /// faster.
    pub no_cpu_arena: bool,
}

impl SessionBuilder {
    /// Opens the bundle in a directory. Its graphs are loaded when first needed.
    ///
    /// # Errors
    /// [`Error::Bundle`] if there is none, or it is damaged or of an unknown format. [`Error::Runtime`] if ONNX Runtime
    /// is missing or too old, or has no such provider. [`Error::Option`] for too many threads. The same for the other
    /// ways to open.
    pub fn open(&self, directory: impl AsRef<Path>) -> Result<Session> {
        self.build(Source::directory(directory.as_ref()))
    }

    /// Opens one graph that holds its weights, such as the `complete.onnx` of `igpt-export --single-file`.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<Session> {
        self.build(Source::file(path.as_ref()))
    }

    /// Opens graphs in memory by their names: the content of files such as `complete.onnx`, and that of
    /// `weights.safetensors` if they do not hold their weights. What is given is copied.
    ///
    /// ```
    /// # let bundle = std::path::PathBuf::from(std::env::var("IGPT_DIGITS")?);
    /// let graph = std::fs::read(bundle.join("score.onnx"))?; // or include_bytes!
    /// let weights = std::fs::read(bundle.join("weights.safetensors"))?;
    /// let session = igpt::Session::builder().open_memory(&[("score", &graph)], Some(&weights))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_memory(&self, graphs: &[(&str, &[u8])], weights: Option<&[u8]>) -> Result<Session> {
        self.build(Source::memory(graphs, weights))
    }

    fn build(&self, source: Source) -> Result<Session> {
        Session::new(source, self.clone(), library::load(self.runtime_library.as_deref())?)
    }

    /// ONNX Runtime's options for a graph of a bundle of that precision.
    pub(crate) fn settings(&self, library: &Library, name: &str, precision: &str) -> Result<Settings> {
        if self.threads > 1024 {
            return Err(Error::Option(format!("threads must be 0 .. 1024, got {}", self.threads)));
        }
        // A graph that reads each weight once a call is as fast as it is, and straight from the file but for 4 bits.
        let as_is = self.provider == Provider::Cpu && !["complete", "decode", "decode_shared"].contains(&name);
        let mut providers = Vec::new();
        if self.provider == Provider::Cuda {
            let strict = ep::CUDA::default().with_skip_layer_norm_strict_mode(true); // in float16 norms may overflow
            providers.push(strict.build().error_on_failure());
        }
        if self.no_cpu_arena {
            providers.push(ep::CPU::default().with_arena_allocator(false).build());
        }
        Ok(ort::session::Session::builder(&library.environment)?
            .with_intra_op_spinning(self.spinning)?
            .with_inter_op_spinning(self.spinning)?
            .with_log_level(LogLevel::Fatal)?
            .with_intra_threads(self.threads)?
            .with_prepacking(!as_is || precision == "int4")?
            .with_optimization_level(if as_is { Level::Disable } else { Level::All })?
            .with_execution_providers(providers)?)
    }
}
