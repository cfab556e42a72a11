"""The interpreter, the operating system, and the places where files are written."""

import contextlib
import os
import platform
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from igpt_runtime.doctor.finding import BROKEN, OK, WARNING, Finding

_PYTHON, _FILES = "Python", "files"
# ONNX Runtime publishes packages for these systems and architectures.
_PLATFORMS = {
    ("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64"), ("Windows", "AMD64"), ("Windows", "ARM64"),
}  # fmt: skip
_STREAMS = {"stdin": "standard input", "stdout": "standard output", "stderr": "standard error"}


def python(minimum: tuple[int, ...] | None) -> Iterator[Finding]:
    """The interpreter and the platform. minimum: the lowest version the package declares; None if it is not known."""
    version, name = platform.python_version(), platform.python_implementation()
    bits = 64 if sys.maxsize > 1 << 32 else 32
    found, remedy = f"{name} {version}, {bits}-bit", "make an environment with CPython, 64-bit"
    if minimum is not None and sys.version_info < minimum:
        needed = ".".join(map(str, minimum))
        yield Finding(_PYTHON, "version", BROKEN, found, f"{remedy}, of version {needed} or later")
    elif bits == 32 or name != "CPython":
        yield Finding(_PYTHON, "version", BROKEN, f"{found}; ONNX Runtime has no package for it", remedy)
    else:
        yield Finding(_PYTHON, "version", OK, found)
    yield Finding(_PYTHON, "environment", OK, _environment())
    yield _platform()


def _environment() -> str:
    if sys.prefix != sys.base_prefix:
        return f"virtual environment {sys.prefix}"
    if (Path(sys.prefix) / "conda-meta").is_dir():
        return f"conda environment {sys.prefix}"
    return f"no virtual environment: {sys.prefix}"


def _platform() -> Finding:
    system, machine = platform.system(), platform.machine()
    shown = f"{system} {platform.release()}, {machine}"
    remedy = "use Linux (x86_64, aarch64), macOS 14 or later (arm64), or Windows (x64, arm64)"
    if (system, machine) not in _PLATFORMS:
        return Finding(_PYTHON, "platform", WARNING, f"{shown}; ONNX Runtime publishes no package for it", remedy)
    if "musl" in str(sysconfig.get_config_var("SOABI")):
        found = f"{shown}, with the C library musl; ONNX Runtime publishes packages for glibc"
        return Finding(_PYTHON, "platform", WARNING, found, "use a distribution with glibc, such as Debian or Ubuntu")
    if system == "Darwin" and int(platform.mac_ver()[0].split(".")[0] or 0) < 14:
        return Finding(_PYTHON, "platform", WARNING, f"macOS {platform.mac_ver()[0]}; ONNX Runtime needs 14", remedy)
    return Finding(_PYTHON, "platform", OK, shown)


def files() -> Iterator[Finding]:
    """Encodings, standard streams, and the directories that must be writable."""
    encoding = sys.getfilesystemencoding().lower()
    if encoding == "utf-8":
        yield Finding(_FILES, "file names", OK, "UTF-8")
    else:
        found = f"encoded as {encoding}; names with other characters cannot be read"
        yield Finding(_FILES, "file names", WARNING, found, "set PYTHONUTF8=1")
    closed = [name for stream, name in _STREAMS.items() if getattr(sys, stream) is None]
    if closed:
        found = f"{' and '.join(closed)} closed"
        yield Finding(
            _FILES, "streams", WARNING, found, "redirect to /dev/null what is not needed, instead of closing it"
        )
    else:
        yield Finding(_FILES, "streams", OK, "standard input, output and error are open")
    yield _temporary()
    yield _directory("hub cache", _hub_cache(), "models of the Hugging Face hub are kept there", ", or set HF_HOME")
    with contextlib.suppress(ImportError):
        import click

        yield _directory("page cache", Path(click.get_app_dir("igpt-onnx")), "igpt-run web keeps files there")


def _directory(name: str, directory: Path, use: str, otherwise: str = "") -> Finding:
    problem = _problem(directory)
    if problem is None:
        return Finding(_FILES, name, OK, f"{directory} can be written")
    found = f"{directory} cannot be written ({problem}); {use}"
    return Finding(_FILES, name, WARNING, found, f"make it writable{otherwise}")


def _hub_cache() -> Path:
    """As huggingface_hub finds it, which need not be installed."""
    told = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    home = os.environ.get("HF_HOME")
    if not home:
        home = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")
    return Path(os.path.expandvars(told or str(Path(home) / "hub"))).expanduser()


def _temporary() -> Finding:
    try:
        directory = tempfile.gettempdir()
    except OSError as error:
        return Finding(_FILES, "temporary", BROKEN, str(error), "set TMPDIR to a directory that can be written")
    problem = _problem(Path(directory))
    if problem is not None:
        found = f"{directory} cannot be written ({problem})"
        return Finding(_FILES, "temporary", BROKEN, found, "free space there, or set TMPDIR to another directory")
    variable = next((name for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)), None)
    if variable is not None and Path(os.environ[variable]).resolve() != Path(directory).resolve():
        found = f"{variable} is {os.environ[variable]}, which cannot be used; {directory} is"
        return Finding(_FILES, "temporary", WARNING, found, f"make it writable, or unset {variable}")
    return Finding(_FILES, "temporary", OK, f"{directory} can be written")


def _problem(directory: Path) -> str | None:
    """Why nothing can be written to a directory, or be created where it is to be; None if that works."""
    there = next((path for path in (directory, *directory.absolute().parents) if os.path.lexists(path)), directory)
    try:
        # Not os.access: it knows nothing of full disks, and little of rights on Windows.
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"igpt-onnx")
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None
