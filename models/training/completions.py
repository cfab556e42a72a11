"""Completions of many pictures, drawn by the product itself."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.export import export_bundle
from igpt_runtime import GenerationOptions, Session, generate_all, images_of, open_session
from igpt_runtime.bundle.config import SamplingDefaults

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@contextmanager
def exported(checkpoint: Path) -> Iterator[Session]:
    """A checkpoint as an fp32 bundle, on the CPU, as long as it is needed."""
    with tempfile.TemporaryDirectory() as directory:
        export_bundle(load_checkpoint(checkpoint), Path(directory) / "bundle")
        yield open_session(Path(directory) / "bundle", device="cpu")


def complete_halves(session: Session, tokens: Ints, sampling: SamplingDefaults, copies: int, seed: int) -> Ints:
    """Keep the upper half of each token sequence [n, n_positions] and draw the rest; int64 [n, copies, n_positions].

    Each picture has a seed of its own, so that they are independent.
    """
    half = tokens.shape[1] // 2
    drawn = [draw(session, row[:half], sampling, copies, seed + i) for i, row in enumerate(tokens)]
    return np.stack(drawn)


def draw(session: Session, primer: Ints, sampling: SamplingDefaults, n: int, seed: int) -> Ints:
    """What follows some first tokens, n times; int64 [n, n_positions]."""
    options = GenerationOptions(n, seed, sampling.temperature, sampling.top_k, sampling.top_p)
    return generate_all(session, primer, options)


def to_pixels(session: Session, tokens: Ints) -> Bytes:
    """Pictures uint8 [n, height, width, 3] of token sequences [n, n_positions]."""
    return np.stack([np.asarray(image) for image in images_of(session, tokens)])
