"""What pictures of a model's own kind cost it, for the manifest."""

from pathlib import Path

import numpy as np

from igpt_export.checkpoint.checkpoint import Checkpoint
from igpt_export.precision.picture_source import PictureSource, as_tokens
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import Likelihood
from igpt_runtime.engine.generate import nats
from igpt_runtime.engine.session import open_session
from igpt_runtime.progress import Progress
from igpt_runtime.tasks.features import behind_sos

_TOKENS = 1 << 17  # of the pictures, about
_WORK = 5e12  # tokens times weights: a few minutes on a few cores, whatever the size of the model
_BATCH = 8
_QUANTILES = (0.05, 0.5, 0.95)


def measure_likelihood(
    directory: Path, checkpoint: Checkpoint, source: PictureSource, progress: Progress
) -> Likelihood | None:
    """The quantiles of held-out pictures' costs, by the bundle's own prefill graph.

    None without a language-model head, or if the pictures are not of the model's kind.
    """
    session = open_session(directory, device="cpu")
    if not source.is_own or graph_io.DECODE not in session.manifest.graphs:
        return None
    config, form = checkpoint.config, checkpoint.image_format
    weights = config.n_layer * config.n_embd * (4 * config.n_embd + 2 * config.inner_dim)
    tokens = as_tokens(source.held_out(max(1, int(min(_TOKENS, _WORK / weights)) // config.n_positions)), form)
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
    return Likelihood(f"{len(tokens)} held-out {source.kind}", tuple(zip(low, median, high, strict=True)))
