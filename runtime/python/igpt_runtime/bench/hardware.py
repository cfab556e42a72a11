"""The machine this process runs on, and the memory it takes. What a system does not tell is None, never an error."""

import contextlib
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_PROC = Path("/proc")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Machine:
    """What a measurement depends on besides the bundle."""

    cpu: str  # the model's name, or at least the architecture's
    physical_cores: int | None  # that this process may use
    memory: int | None  # bytes of the whole machine
    system: str  # name, release and architecture
    python: str  # this and the following are versions
    onnxruntime: str
    numpy: str
    igpt_onnx: str


@dataclass(frozen=True)
class Resident:
    """The memory of a process now, by what stands behind it."""

    anonymous: int  # bytes the process filled itself
    file: int  # bytes of mapped files (libraries, weights), which the system can drop and other processes share


def machine() -> Machine:
    """Describe this machine and the versions in use. Raises DeviceError when onnxruntime is not usable."""
    import importlib.metadata  # slow to import, and not wanted where a start is timed

    import numpy as np

    from igpt_runtime.engine.session import import_onnxruntime

    try:
        own_version = importlib.metadata.version("igpt-onnx")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        own_version = "unknown"
    return Machine(
        cpu=cpu_model(),
        physical_cores=physical_cores(),
        memory=_memory(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        onnxruntime=str(import_onnxruntime().__version__),
        numpy=np.__version__,
        igpt_onnx=own_version,
    )


def default_threads() -> int:
    """Threads that ONNX Runtime uses inside an operator when not told: one per physical core."""
    return physical_cores() or os.cpu_count() or 1


def physical_cores() -> int | None:
    """Physical cores that this process may run on."""
    told = sysctl("hw.physicalcpu")
    if told is not None:
        return int(told)
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = set()
    for cpu in os.sched_getaffinity(0):
        place = tuple(_text(_CPUS / f"cpu{cpu}/topology/{name}") for name in ("physical_package_id", "core_id"))
        if None in place:
            return None
        cores.add(place)
    return len(cores)


def last_level_cache() -> int | None:
    """Bytes of the largest cache of the first CPU."""
    sizes = [_text(path) for path in _CPUS.glob("cpu0/cache/index*/size")]
    known = [int(size[:-1]) * _UNITS[size[-1]] for size in sizes if size and size[:-1].isdigit() and size[-1] in _UNITS]
    return max(known, default=None)


def peak_memory() -> int | None:
    """The most bytes of memory this process has had, mapped files included."""
    status = _status()
    if "VmHWM" in status:  # of this program; getrusage's figure also counts what the process was before it started it
        return status["VmHWM"]
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def resident_memory() -> Resident | None:
    """The memory this process has now, split in two."""
    status = _status()
    if not {"RssAnon", "RssFile"} <= status.keys():
        return None
    return Resident(status["RssAnon"], status["RssFile"] + status.get("RssShmem", 0))


def _status() -> dict[str, int]:
    """The sizes in /proc/self/status, in bytes."""
    lines = (line.split() for line in (_text(_PROC / "self/status") or "").splitlines())
    return {words[0].rstrip(":"): int(words[1]) << 10 for words in lines if len(words) == 3 and words[2] == "kB"}


def cpu_model() -> str:
    """Its name, or at least the architecture's."""
    for line in (_text(_PROC / "cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine() or "unknown"


def _memory() -> int | None:
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def sysctl(name: str) -> str | None:
    """A figure of macOS."""
    if platform.system() != "Darwin":
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=True).stdout.strip() or None
    return None


def _text(path: Path) -> str | None:
    """Content of a small file of the system, without its last newline."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip()
    return None
