"""Memory traffic of a decode step at batch 1, against what this machine can read."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from igpt_runtime import names
from igpt_runtime.bundle import Bundle
from igpt_runtime.errors import BundleError
from igpt_runtime.hardware import last_level_cache, read_bandwidth
from igpt_runtime.manifest import WEIGHTS_FILE, Manifest

_TABLES = ("wte.weight", "wpe.weight")  # of which a step reads one row each
_UNREAD = ("classifier.", "probe.")  # what only the prefill graph reads


@dataclass(frozen=True)
class Traffic:
    """What a decode step at batch 1 reads, and how fast."""

    weight_bytes: int  # that a step reads
    cache_bytes: int  # that a step reads, on average
    effective: float  # bytes/s: both over the median step
    ceiling: float  # bytes/s, measured with as many threads
    share: float  # effective / ceiling; the ceiling binds only what the processor's cache does not hold
    in_cache: bool | None  # whether both fit the last-level cache; None if its size is not known


def measure_traffic(bundle: Bundle, slots: float, seconds: float, threads: int) -> Traffic:
    """Measure the ceiling and relate a step to it.

    slots: filled cache slots that a step reads, on average; seconds: of a step.

    Raises:
        BundleError: the weights file cannot be understood.
    """
    weights = weight_bytes(bundle.path / WEIGHTS_FILE)
    cache = round(slots * slot_bytes(bundle.manifest))
    effective, ceiling = (weights + cache) / seconds, read_bandwidth(threads)
    fits = last_level_cache()
    in_cache = None if fits is None else weights + cache <= fits
    return Traffic(weights, cache, effective, ceiling, effective / ceiling, in_cache)


def slot_bytes(manifest: Manifest) -> int:
    """Bytes of one slot of one row of the decode graph's cache, all layers together."""
    specs = {spec.name: spec for spec in manifest.graphs[names.DECODE].inputs}
    past = [specs[name] for name in names.past_names(manifest.config)]
    # [batch, n_head, n_positions, head_dim]
    return sum(int(spec.shape[1]) * int(spec.shape[3]) * np.dtype(spec.dtype).itemsize for spec in past)


def cache_dtype(manifest: Manifest) -> str:
    """NumPy's name of the type of the decode graph's cache."""
    (dtype,) = {
        spec.dtype for spec in manifest.graphs[names.DECODE].inputs if spec.name in names.past_names(manifest.config)
    }
    return dtype


def weight_bytes(path: Path) -> int:
    """Bytes of a safetensors file that a decode step of one token reads: all but the classifier and unused embeddings.

    Raises:
        BundleError: it is not a safetensors file.
    """
    total = 0
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, path.stat().st_size)))
        for name, tensor in header.items():
            if name == "__metadata__" or name.startswith(_UNREAD):
                continue
            begin, end = tensor["data_offsets"]
            total += (end - begin) // (tensor["shape"][0] if name in _TABLES else 1)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError, ZeroDivisionError) as error:
        raise BundleError(f"{path} is not a safetensors file ({error}); export the bundle again") from error
    return total
