"""Every error this project raises on purpose.

    IgptError
    +-- OptionError         an option is out of range or does not fit the bundle
    +-- ImageError          a picture cannot be read
    +-- BundleError         a bundle is missing, damaged, of an unknown version, or lacks what was asked of it
    +-- DeviceError         an execution provider, or onnxruntime itself, is not there
    +-- MemoryShortageError a request needs more memory than there is
    +-- OutputError         a file cannot be written (commands and export)
    +-- CheckpointError     a checkpoint cannot be used (export only)
    +-- VerificationError   a bundle disagrees with its checkpoint (export), or drawn tokens with their bundle (bench)

Each message is one line: a fact, where, and what to do about it. Library code raises and never prints; the command
lines turn the tree into one-line messages and exit codes in `igpt_runtime.console`.
"""

# How what is missing is installed; the name of an extra follows.
INSTALL = "in the source tree of igpt-onnx, run: pip install -c constraints.txt"


class IgptError(Exception):
    """Base of all errors a user can cause or fix."""


class OptionError(IgptError):
    """An option is out of range or does not fit the bundle."""


class ImageError(IgptError):
    """A picture cannot be read."""


class BundleError(IgptError):
    """A bundle is missing, damaged, of an unknown version, or lacks what was asked of it."""


class DeviceError(IgptError):
    """An execution provider, or onnxruntime itself, is not there."""


class MemoryShortageError(IgptError):
    """A request needs more memory than there is. It is raised before the memory is taken."""


class OutputError(IgptError):
    """A file cannot be written. Commands and the export raise it."""


class CheckpointError(IgptError):
    """A checkpoint cannot be used. Only the export raises it."""


class VerificationError(IgptError):
    """A bundle disagrees with its checkpoint (export), or drawn tokens with their bundle (`igpt-run bench`)."""
