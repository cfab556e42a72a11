"""The memory a decode step must read, against how fast this machine can read: what bounds drawing one picture."""

import json
import math
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from igpt_runtime.bench.hardware import default_threads, last_level_cache
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.bundle import Bundle
from igpt_runtime.bundle.directory import WEIGHTS_FILE
from igpt_runtime.bundle.manifest import Manifest

_PAST = "past_key_values."
# A step looks up a row or two of the embeddings, and has no use for the classifier.
_NOT_READ = ("wte.", "wpe.", "classifier.", "score.", "probe.")
_MIN_BYTES, _MAX_BYTES = 512 << 20, 2 << 30  # of the array that is read to find the ceiling
_PASSES = 12


@dataclass(frozen=True)
class Traffic:
    """Reading by decode steps at batch 1, on average over the steps."""

    weights: int  # bytes a step must read
    cache: int  # bytes a step must read
    reached: float  # bytes/s: both over the median time of a step
    ceiling: float  # bytes/s: the fastest that NumPy read a large array here, with one thread per physical core
    share: float  # reached over ceiling
    fits_cache: bool | None  # weights and cache fit the CPU's last-level cache, so memory is no bound; None if unknown


@dataclass(frozen=True)
class IdealMemory:
    """The least host memory that drawing takes."""

    weights: int  # bytes of the weights file, once
    cache: int  # bytes of the keys and values: the given part's once, and each row's own


def measure_traffic(bundle: Bundle, slots: float, step: float) -> Traffic:
    """Compare decode steps at batch 1 with the read bandwidth of this machine, which is measured here.

    slots: filled cache slots that a step attends to, on average; step: its median seconds.
    """
    weights, cache = step_weights(bundle), round(slots * slot_bytes(bundle.manifest))
    reached, ceiling, llc = (weights + cache) / step, read_bandwidth(default_threads()), last_level_cache()
    fits = None if llc is None else weights + cache <= llc
    return Traffic(weights, cache, reached, ceiling, reached / ceiling, fits)


def ideal_memory(bundle: Bundle, rows: int, kept: int) -> IdealMemory:
    """What `rows` completions of `kept` given tokens, drawn at once, must hold."""
    positions = kept + rows * (bundle.manifest.config.n_positions - kept)
    return IdealMemory(bundle.manifest.files[WEIGHTS_FILE].size, positions * slot_bytes(bundle.manifest))


def cache_dtype(manifest: Manifest) -> str:
    """NumPy's name of the type that cached keys and values are stored in. A bundle without a decode graph has none."""
    return next((spec.dtype for spec in _past(manifest)), "none")


def slot_bytes(manifest: Manifest) -> int:
    """Bytes of the cache that one position of one row takes, over all layers."""
    total = 0
    for spec in _past(manifest):
        fixed = [size for size in spec.shape if isinstance(size, int)]
        total += math.prod(fixed) // manifest.config.n_positions * np.dtype(spec.dtype).itemsize
    return total


def _past(manifest: Manifest) -> list[graph_io.TensorSpec]:
    graph = manifest.graphs.get(graph_io.DECODE)
    return [spec for spec in graph.inputs if spec.name.startswith(_PAST)] if graph else []


def step_weights(bundle: Bundle) -> int:
    """Bytes of the weights that every decode step reads in full, from the header of the weights file."""
    with (bundle.path / WEIGHTS_FILE).open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        tensors: dict[str, Any] = json.loads(file.read(length))
    spans = (tensor["data_offsets"] for name, tensor in tensors.items() if _is_read(name))
    return sum(end - begin for begin, end in spans)


def _is_read(tensor: str) -> bool:
    return tensor != "__metadata__" and not tensor.removeprefix("transformer.").startswith(_NOT_READ)


def read_bandwidth(threads: int, size: int | None = None) -> float:
    """The fastest that `threads` threads read an array of `size` bytes (None: much larger than the caches), bytes/s.

    Of several passes of two kernels the best one counts: disturbances only ever make reading slower, and which kernel
    is faster differs between machines.
    """
    size = size or min(max(_MIN_BYTES, 4 * (last_level_cache() or 0)), _MAX_BYTES)
    array = np.ones(size // 8 * 2, np.float32)  # not zeros, for which the system may keep a single page
    parts = np.array_split(array, threads)
    kernels: tuple[Callable[[npt.NDArray[np.float32]], object], ...] = (_dot, _sum)
    fastest = math.inf
    with ThreadPoolExecutor(threads) as pool:
        for kernel in kernels:
            for _ in range(_PASSES):
                begin = time.perf_counter()
                list(pool.map(kernel, parts))
                fastest = min(fastest, time.perf_counter() - begin)
    return array.nbytes / fastest


def _dot(part: npt.NDArray[np.float32]) -> object:
    return np.dot(part, part)


def _sum(part: npt.NDArray[np.float32]) -> object:
    return np.add.reduce(part[: part.size // 2 * 2].view(np.int64))  # as integers, which NumPy adds faster
