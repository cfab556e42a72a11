"""Predicts the memory a request takes, and compares it with what there is, before any of it is taken."""

import ctypes
import os
from pathlib import Path

from igpt_runtime.bundle.directory import WEIGHTS_FILE
from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.engine.kv_cache import cache_bytes
from igpt_runtime.errors import MemoryShortageError

_MOST_ROWS = 64  # rows decoded at once: more gain nothing on a CPU
_RESERVE = 256 << 20  # bytes for all else: the interpreter, the runtime, activations
_MOST_GPU_ROWS = 256  # likewise on a GPU
# Of a GPU's free memory, what is left for all but the cache, and the share that is lost since ONNX Runtime takes memory
# in large pieces.
_GPU_RESERVE = 1 << 30
_GPU_SHARE = 0.1
_CUDA_RUNTIMES = ("libcudart.so.13", "libcudart.so.12")
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def rows_at_once(manifest: Manifest, n: int, length: int, *, loaded: bool) -> int:
    """How many of n pictures are decoded in one batch: as many as gain from it and fit, in batches of like size.

    length: slots of the cache that all rows have in common; loaded: whether the weights are in memory already.

    Raises:
        MemoryShortageError: not even one picture fits.
    """
    rows = min(n, _MOST_ROWS)
    available = available_memory()
    if available is not None:
        weights = 0 if loaded else weights_bytes(manifest)
        fixed = weights + _RESERVE
        while rows > 1 and fixed + cache_bytes(manifest, _alike(n, rows), length) > available:
            rows -= 1
        cache = cache_bytes(manifest, _alike(n, rows), length)
        needed = fixed + cache
        if needed > available:
            raise MemoryShortageError(
                f"one picture of {manifest.name} needs {needed / 1e9:.2f} GB of memory "
                f"({weights / 1e9:.2f} GB weights, {cache / 1e9:.2f} GB cache, "
                f"{_RESERVE / 1e9:.2f} GB reserve) and {available / 1e9:.2f} GB are available; "
                "free some, or export with --precision int8 or int4"
            )
    return _alike(n, rows)


def rows_at_once_on_gpu(manifest: Manifest, n: int, left: int) -> int:
    """The same for decoding on a GPU, when its graphs are open. That one picture does not fit, the GPU itself tells.

    left: bytes that are not free, but left for this request by earlier ones.
    """
    rows, free = min(n, _MOST_GPU_ROWS), free_gpu_memory()
    if free is not None:
        room = int((1 - _GPU_SHARE) * (free + left)) - _GPU_RESERVE
        rows = max(1, min(rows, room // cache_bytes(manifest, 1, 0)))
    return _alike(n, rows)


def _alike(n: int, rows: int) -> int:
    """The rows of n pictures' batches, of up to `rows`, when they are made as alike as they can be."""
    batches = -(-n // rows)
    return -(-n // batches)


def weights_bytes(manifest: Manifest) -> int:
    """Size in bytes of the weights, which an opened decode graph holds once."""
    record = manifest.files.get(WEIGHTS_FILE)
    return 0 if record is None else record.size  # opening the bundle is what reports that they are missing


def available_memory() -> int | None:
    """Bytes that can be taken without swapping, by the system and by the control group; None where neither tells."""
    found = [amount for amount in (_system_memory(), _group_memory()) if amount is not None]
    return min(found, default=None)


def free_gpu_memory() -> int | None:
    """Bytes of the first GPU's memory that nobody has taken.

    None if CUDA's runtime library is not loaded, or not known by its name (on Windows).
    """
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    for name in _CUDA_RUNTIMES:
        try:
            cuda = ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        except OSError:
            continue
        current, free, total = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_size_t()
        if cuda.cudaGetDevice(ctypes.byref(current)) or cuda.cudaSetDevice(0):
            return None
        failed = cuda.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
        cuda.cudaSetDevice(current)
        return None if failed else free.value
    return None


def _system_memory() -> int | None:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return None


def _group_memory() -> int | None:
    """What the control group (version 2) of a container leaves; file pages it holds can be given up."""
    try:
        limit, used = ((_CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        reclaimable = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return None if limit == "max" else int(limit) - int(used) + int(reclaimable.get("inactive_file", 0))
    except (OSError, ValueError):
        return None
