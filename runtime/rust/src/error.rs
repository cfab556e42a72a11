//! What can go wrong.

/// Every error of this crate. The message is one line: what, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
#[non_exhaustive]
pub enum Error {
    /// An option or argument is out of range, or does not fit the bundle.
    Option(String),
    /// An argument is no picture.
    Image(String),
    /// A bundle is missing, damaged, of an unknown version, or lacks what was asked of it.
    Bundle(String),
    /// ONNX Runtime or its provider is missing, is too old, or failed.
    Runtime(String),
    /// A request needs more memory than there is.
    Memory(String),
    /// A [`Cancel`](crate::Cancel) ended the call.
    #[error("the call was cancelled; to call again, take a new Cancel from the session")]
    Cancelled,
}

/// The result of what may fail in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

// What ONNX Runtime says, in small letters. It has no code for it.
const SHORT_OF_MEMORY: [&str; 4] = ["bad_alloc", "bad allocation", "failed to allocate", "out of memory"];

impl<R> From<ort::Error<R>> for Error {
    fn from(error: ort::Error<R>) -> Self {
        let (text, small) = (error.message(), error.message().to_ascii_lowercase());
        let line: String = text.trim().chars().take_while(|c| !c.is_control()).take(300).collect();
        if small.contains("terminate flag being set") {
            Error::Cancelled
        } else if SHORT_OF_MEMORY.iter().any(|words| small.contains(words)) {
            Error::Memory(format!("there is not enough memory ({line}); draw fewer at once"))
        } else {
            Error::Runtime(format!("ONNX Runtime failed: {line}"))
        }
    }
}
