//! ONNX Runtime's shared library: found, checked and loaded once a process.

use std::env::{consts::DLL_PREFIX, consts::DLL_SUFFIX, var_os};
use std::sync::{Arc, Mutex, PoisonError};
use std::{ffi::CStr, path::Path, path::PathBuf};

use ort::{environment::Environment, logging::LogLevel};

use crate::{Error, Result};

const VARIABLES: [&str; 2] = ["IGPT_ORT_LIBRARY", "ORT_DYLIB_PATH"];

#[derive(Clone)]
pub(crate) struct Library {
    path: PathBuf,
    version: String,
    pub environment: Environment,
}

/// ort keeps one library and one environment for the whole process, so this must, too.
static LOADED: Mutex<Option<Library>> = Mutex::new(None);

/// The library of this process; the first call loads it.
pub(crate) fn load(given: Option<&Path>) -> Result<Library> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if loaded.is_none() {
        let by_name = || PathBuf::from(format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}"));
        let set = || VARIABLES.iter().filter_map(var_os).find(|path| !path.is_empty()).map(PathBuf::from);
        let path = given.map(Path::to_path_buf).or_else(set);
        *loaded = Some(open(path.unwrap_or_else(by_name))?);
    }
    let library = loaded.clone().expect("it is there");
    if given.is_some_and(|path| path != library.path) {
        let words = format!("a process can load one ONNX Runtime only, and {:?} is loaded", library.path);
        return Err(Error::Runtime(format!("{words}; leave the library out")));
    }
    Ok(library)
}

/// ONNX Runtime's environment, for a program that runs other models with [`ort`], too.
///
/// A process has one. So such a program must take it from here, and not make it itself. It logs nothing. `library` is
/// as in [`SessionBuilder`](crate::SessionBuilder).
///
/// # Errors
/// [`Error::Runtime`] if the library is missing or too old.
pub fn environment(library: Option<&Path>) -> Result<Environment> {
    load(library).map(|library| library.environment)
}

fn open(path: PathBuf) -> Result<Library> {
    let version = version_of(&path).map_err(|why| {
        let hint = format!("give the path of libonnxruntime, or set {}", VARIABLES[0]);
        Error::Runtime(format!("{path:?} cannot be loaded as ONNX Runtime: {}; {hint}", why.replace('\n', " ")))
    })?;
    let builder = ort::init_from(&path).map_err(|error| Error::Runtime(format!("{error}; update ONNX Runtime")))?;
    let builder = builder.with_name("igpt").with_telemetry(false).with_logger(Arc::new(|_, _, _, _, _| {}));
    let environment = builder.build()?;
    environment.set_log_level(LogLevel::Fatal); // what fails is in the errors
    Ok(Library { path, version, environment })
}

impl Library {
    /// Refuses a bundle that needs a newer release, given as `MAJOR.MINOR`.
    pub fn check(&self, minimum: &str) -> Result<()> {
        let parts = |text: &str| text.split('.').take(2).map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>();
        if parts(&self.version) >= parts(minimum) {
            return Ok(());
        }
        let words = format!("and {:?} is {}; update it", self.path, self.version);
        Err(Error::Runtime(format!("the bundle needs ONNX Runtime {minimum} or newer, {words}")))
    }
}

/// The library's own word on its version, such as `1.32.0`. ort reads it, but does not tell it.
#[allow(unsafe_code)]
fn version_of(path: &Path) -> Result<String, String> {
    let words = |error: libloading::Error| std::error::Error::source(&error).unwrap_or(&error).to_string();
    // SAFETY: ONNX Runtime's initialisers have no requirements, and neither has its entry point, which is declared as
    // in its header. It returns null or a static table, whose functions all releases have, and the version is a static
    // text with a zero at its end. The copy is made before the library is closed.
    unsafe {
        let library = libloading::Library::new(path).map_err(words)?;
        let entry: libloading::Symbol<unsafe extern "system" fn() -> *const ort::sys::OrtApiBase> =
            library.get(b"OrtGetApiBase\0").map_err(words)?;
        let table = entry().as_ref().ok_or("its table of functions is empty")?;
        Ok(CStr::from_ptr((table.GetVersionString)()).to_string_lossy().into_owned())
    }
}
