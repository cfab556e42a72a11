"""The static-capacity key/value cache: one buffer per tensor, past and present at once."""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.manifest import Manifest

_SHARED_ROWS = 6  # from so many rows on, sharing the prefix is faster than a copy for each
_SHARED_PREFIX = 16  # from so many given tokens on

# Key and value of block 0, key and value of block 1, ...
Slots = list[npt.NDArray[np.generic]]


@dataclass(frozen=True)
class AlikeRows:
    """A tensor of a cache whose rows all begin alike. It is made where it is used, so that a device is sent one row."""

    shape: tuple[int, ...]  # [rows, n_head, capacity, head_dim]
    begin: npt.NDArray[np.generic]  # [1, n_head, length, head_dim]; what follows is zeros

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Its size in bytes, once it is made."""
        return math.prod(self.shape) * self.begin.itemsize


@dataclass
class Cache:
    """The cache of some rows: all their tokens' slots, or a prefix that all rows share and the slots of their own."""

    # Each [rows, n_head, capacity, channels], float32, int8 or float16.
    own: "Slots | list[AlikeRows]"
    # Keys [1, n_head, prefix, head_dim] and values [1, n_head, head_dim, prefix].
    prefix: list[npt.NDArray[np.float32]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many pictures it is for."""
        return len(self.own[0])

    @property
    def graph(self) -> str:
        """The graph that continues it."""
        return graph_io.DECODE_SHARED if self.prefix else graph_io.DECODE


def new_cache(manifest: Manifest, rows: int, slots: Slots | None = None) -> Cache:
    """A cache of `rows` rows that each begin with `slots` (of one row, [1, n_head, length, head_dim])."""
    parts = slots or itertools.repeat(None, 2 * manifest.config.n_layer)
    return Cache([new_slots(manifest, rows, part) for part in parts])


def alike_cache(manifest: Manifest, rows: int, slots: Slots | None = None) -> Cache:
    """The same cache, for a device, which makes it."""
    config = manifest.config
    shape = rows, config.n_head, config.n_positions, config.head_dim
    nothing = np.zeros((1, config.n_head, 1, config.head_dim), manifest.cache_dtype)
    return Cache([AlikeRows(shape, begin) for begin in slots or [nothing] * (2 * config.n_layer)])


def new_slots(manifest: Manifest, rows: int, begin: npt.NDArray[np.generic] | None = None) -> npt.NDArray[np.generic]:
    """One tensor of such a cache, which begins with these slots.

    Empty slots are zeros: portable attention multiplies them by zero, which must not meet a NaN.
    """
    config = manifest.config
    slots = np.zeros((rows, config.n_head, config.n_positions, config.head_dim), manifest.cache_dtype)
    if begin is not None:
        slots[:, :, : begin.shape[2]] = begin
    return slots


def share_prefix(manifest: Manifest, rows: int, slots: Slots) -> Cache:
    """A cache of `rows` rows that share `slots` (of one row, [1, n_head, length, head_dim]), stored once."""
    prefix = prefix_of(slots)
    return Cache([new_own_slots(manifest, rows, prefix[0].shape[2]) for _ in prefix], prefix)


def prefix_of(slots: Slots) -> list[npt.NDArray[np.float32]]:
    """The slots of one row as the prefix of `Cache`."""
    columns = (part.swapaxes(2, 3) if i % 2 else part for i, part in enumerate(slots))
    # Copies, since what a graph returned keeps all the memory in use that the graph took.
    return [np.array(part, np.float32, order="C") for part in columns]


def new_own_slots(manifest: Manifest, rows: int, prefix: int) -> npt.NDArray[np.generic]:
    """One tensor of the rows' own tokens after a prefix of that length: empty but for the sentinel."""
    config = manifest.config
    capacity = config.n_positions - prefix + 1  # and the sentinel
    slots = np.zeros((rows, config.n_head, capacity, config.head_dim + graph_io.SHARED_CHANNELS), manifest.cache_dtype)
    slots[:, :, 0, config.head_dim] = graph_io.SENTINEL[manifest.cache_dtype]
    return slots


def shares_prefix(manifest: Manifest, rows: int, length: int) -> bool:
    """Whether `rows` rows store the `length` slots they have in common once."""
    # Where activations or slots are rounded to int8, the two decode graphs may round differently. One of them for any
    # number of rows gives the same pictures however many are drawn. (4-bit kernels round by batch anyway.)
    rounds = manifest.precision == "int8" or (manifest.precision == "fp32" and manifest.kv_cache == "int8")
    worthwhile = rounds or rows >= _SHARED_ROWS
    return graph_io.DECODE_SHARED in manifest.graphs and worthwhile and length >= _SHARED_PREFIX


def cache_bytes(manifest: Manifest, rows: int, length: int) -> int:
    """Size in bytes of a cache of `rows` rows that have `length` slots in common, shared or not."""
    config = manifest.config
    prefix = length if shares_prefix(manifest, rows, length) else 0
    width, own = config.head_dim, config.n_positions
    if prefix:
        width, own = config.head_dim + graph_io.SHARED_CHANNELS, config.n_positions - prefix + 1
    tensors = 2 * config.n_layer * config.n_head
    shared = tensors * prefix * config.head_dim * np.dtype(np.float32).itemsize
    return shared + tensors * rows * own * width * np.dtype(manifest.cache_dtype).itemsize
