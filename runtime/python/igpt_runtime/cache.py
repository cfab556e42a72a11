"""The static-capacity key/value cache: one buffer per tensor, past and present at once."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from igpt_runtime.config import ImageGPTConfig

# Key and value of block 0, key and value of block 1, ...; each float32 [rows, n_head, n_positions, head_dim].
Cache = list[npt.NDArray[np.float32]]


def cache_bytes(config: ImageGPTConfig, rows: int) -> int:
    """Size of a cache in bytes."""
    return 2 * config.n_layer * rows * config.n_positions * config.n_embd * np.dtype(np.float32).itemsize


def new_cache(config: ImageGPTConfig, rows: int) -> Cache:
    """An empty cache. Zeros, because portable attention multiplies empty slots by zero, which must not meet a NaN."""
    shape = (rows, config.n_head, config.n_positions, config.head_dim)
    return [np.zeros(shape, np.float32) for _ in range(2 * config.n_layer)]


def fork_cache(cache: Sequence[npt.NDArray[np.float32]], config: ImageGPTConfig, rows: int, length: int) -> Cache:
    """A cache of `rows` rows, each starting with the first `length` slots of the single row of `cache`."""
    forked = new_cache(config, rows)
    for source, target in zip(cache, forked, strict=True):
        target[:, :, :length] = source[:, :, :length]
    return forked
