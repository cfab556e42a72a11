"""Uniform draws from a counter-based generator, so that a draw depends on nothing but (seed, sample, position).

Threefry-2x32 with 20 rounds: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), also in JAX.
It needs only 32-bit additions, shifts and xors, so every language computes the same bits.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

UInt32 = npt.NDArray[np.uint32]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def threefry2x32(key: tuple[int, int], counter: tuple[UInt32, UInt32]) -> tuple[UInt32, UInt32]:
    """Encrypt two arrays of 32-bit counters (of one shape) under a 64-bit key; returns two arrays of 32-bit words."""
    words = (np.uint32(key[0]), np.uint32(key[1]), np.uint32(key[0] ^ key[1] ^ _PARITY))
    x0, x1 = counter[0] + words[0], counter[1] + words[1]
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            x0 = x0 + x1
            x1 = (x1 << np.uint32(rotation)) | (x1 >> np.uint32(32 - rotation))
            x1 = x1 ^ x0
        x0 = x0 + words[(block + 1) % 3]
        x1 = x1 + words[(block + 2) % 3] + np.uint32(block + 1)
    return x0, x1


def uniforms(seed: int, samples: Sequence[int], positions: Sequence[int]) -> npt.NDArray[np.float32]:
    """Draws in [0, 1) for every sample (row) and position (column), float32 [samples, positions].

    Key (seed's high word, seed's low word), counter (sample, position), top 24 bits of the first word over 2**24.
    """
    rows = np.asarray(samples, np.uint32)[:, None]
    columns = np.asarray(positions, np.uint32)[None, :]
    counter = (np.broadcast_to(rows, (rows.size, columns.size)), np.broadcast_to(columns, (rows.size, columns.size)))
    first, _ = threefry2x32((seed >> 32, seed & 0xFFFFFFFF), counter)
    return (first >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
