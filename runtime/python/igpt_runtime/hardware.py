"""The machine: its processor, its memory bandwidth, this process's peak memory, the versions that run."""

import datetime
import importlib.metadata
import os
import platform
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from igpt_runtime.session import import_onnxruntime

_MIN_BUFFER, _MAX_BUFFER = 256 << 20, 1 << 30  # bytes of the bandwidth test
_PASSES = 5  # of the bandwidth test; the best counts
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Machine:
    """What ran, on what, when."""

    igpt_onnx: str | None  # versions; None for igpt-onnx that is not installed
    onnxruntime: str
    numpy: str
    python: str
    platform: str  # operating system, its version, architecture
    cpu: str
    cores: int  # that this process may use
    last_level_cache: int | None  # bytes; None where the system does not tell
    date: str  # ISO 8601, UTC


def machine() -> Machine:
    """Describe this machine. Raises DeviceError when there is no usable onnxruntime."""
    try:
        own = importlib.metadata.version("igpt-onnx")
    except importlib.metadata.PackageNotFoundError:
        own = None
    return Machine(
        igpt_onnx=own,
        onnxruntime=str(import_onnxruntime().__version__),
        numpy=np.__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=cpu_model(),
        cores=usable_cores(),
        last_level_cache=last_level_cache(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def cpu_model() -> str:
    """Name of the processor, as far as the system tells."""
    found = re.search(r"^model name\s*:\s*(.+)$", _text(Path("/proc/cpuinfo")), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine() or "unknown"


def usable_cores() -> int:
    """Logical cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """Threads that ONNX Runtime takes if not told: one per physical core that this process may use."""
    blocks = _text(Path("/proc/cpuinfo")).split("\n\n")
    physical = {tuple(re.findall(r"^(?:physical id|core id)\s*:\s*(\d+)$", block, re.MULTILINE)) for block in blocks}
    physical.discard(())
    return min(len(physical), usable_cores()) if physical else usable_cores()


def last_level_cache() -> int | None:
    """Size in bytes of the largest cache of the first core; None where the system does not tell."""
    texts = [_text(path) for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    sizes = [re.fullmatch(r"(\d+)([KMG]?)\s*", text) for text in texts]
    return max((int(size[1]) * _UNITS[size[2]] for size in sizes if size), default=None)


def read_bandwidth(threads: int, buffer_bytes: int | None = None) -> float:
    """Measured bytes/s at which `threads` threads read memory: NumPy reductions over a large buffer, best of several.

    buffer_bytes: size of the buffer; None is 8 times the last-level cache, within 256 MiB .. 1 GiB.
    """
    if buffer_bytes is None:
        buffer_bytes = min(max(8 * (last_level_cache() or 0), _MIN_BUFFER), _MAX_BUFFER)
    buffer = np.ones(max(buffer_bytes // 8, threads), np.float64)  # ones, since untouched zeros are all one page
    parts = np.array_split(buffer, threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:  # NumPy's reductions release the interpreter's lock
        for reduction in (np.max, np.add.reduce) * _PASSES:
            begin = time.perf_counter()
            list(pool.map(reduction, parts))
            best = min(best, time.perf_counter() - begin)
    return buffer.nbytes / best


def peak_memory() -> int | None:
    """Largest resident size of this process so far, bytes; None where the system does not tell.

    Linux counts into `ru_maxrss` what the parent process had when it started this one, so its own record comes first.
    """
    found = re.search(r"^VmHWM:\s*(\d+) kB$", _text(Path("/proc/self/status")), re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
