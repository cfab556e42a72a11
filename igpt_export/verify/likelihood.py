"""What pictures of a model's own kind cost it, for the manifest."""

from pathlib import Path

import numpy as np

from igpt_export.checkpoint.checkpoint import Checkpoint
from igpt_export.precision.picture_source import PictureSource, Tokens, as_tokens, most_pictures
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import Likelihood
from igpt_runtime.engine.generate import nats
from igpt_runtime.engine.session import open_session
from igpt_runtime.progress import Progress
from igpt_runtime.tasks.features import behind_sos

_TOKENS = 1 << 17  # of the pictures, about
_BATCH = 8
_QUANTILES = (0.05, 0.5, 0.95)


def own_pictures(checkpoint: Checkpoint, source: PictureSource) -> Tokens | None:
    """Held-out pictures to measure, as tokens [pictures, n_positions].

    None without a language-model head, or if the pictures are not of the model's kind. Raises ImageError.
    """
    if not source.is_own or "lm_head.weight" not in checkpoint.tensors:
        return None
    return as_tokens(source.held_out(most_pictures(checkpoint.config, _TOKENS)), checkpoint.image_format)


def measure_likelihood(directory: Path, tokens: Tokens, kind: str, progress: Progress) -> Likelihood:
    """The quantiles of the pictures' costs, by the prefill graph of the bundle in a directory. kind: what they are."""
    session = open_session(directory, device="cpu")
    form = session.manifest.image_format
    progress.stage("measuring what its own pictures cost")
    costs = []
    with session.part(graph_io.PREFILL, [graph_io.LOGITS]) as graph:
        for first in range(0, len(tokens), _BATCH):
            batch = tokens[first : first + _BATCH]
            (logits,) = graph.run([graph_io.LOGITS], {graph_io.INPUT_IDS: behind_sos(session, batch)})
            costs += [nats(row, picture) for row, picture in zip(logits, batch, strict=True)]
            progress.count(first + len(batch), len(tokens), "pictures")
    by_row = np.stack(costs).reshape(-1, form.height, form.width).sum(2, dtype=np.float64)
    upper = by_row.cumsum(1) / (form.width * np.arange(1, form.height + 1))  # nats per token of the first rows
    low, median, high = np.quantile(upper, _QUANTILES, axis=0).round(4).tolist()
    return Likelihood(f"{len(tokens)} held-out {kind}", tuple(zip(low, median, high, strict=True)))
