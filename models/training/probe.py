"""A model's own classifier: a linear probe, chosen among all layers and both protocols."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from igpt_export.model.model import ImageGPT, pooled
from igpt_export.probe.fit import Fit, Labelled, better, fit_linear
from igpt_runtime.bundle.config import PROTOCOLS
from models.training.loop import prepend_sos

_BATCH = 32

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Labelled token sequences."""

    tokens: Tensor  # int64 [n, n_positions]
    labels: Ints  # [n], from 0


@torch.inference_mode()
def pooled_states(model: ImageGPT, tokens: Tensor, protocol: str) -> Floats:
    """Features by a protocol, float32 [n, n_layer + 1, n_embd]."""
    rules = PROTOCOLS[protocol]
    inputs = prepend_sos(tokens, model.config.sos) if rules.sos else tokens
    runs = (model(chunk) for chunk in inputs.split(_BATCH))
    result: Floats = torch.cat([pooled(run.normed if rules.normed else run.hidden) for run in runs]).numpy()
    return result


def fit_probe(
    model: ImageGPT, train: Pictures, validation: Pictures, held_out: Mapping[str, Pictures], classes: int
) -> tuple[Fit, str, dict[str, object]]:
    """Fit every layer by both protocols; validation chooses, held-out pictures only measure.

    Returns the chosen fit, its protocol, and the table of figures: accuracies by the names of `held_out`.
    """
    best: tuple[Fit, str] | None = None
    rows: list[dict[str, object]] = []
    for protocol in PROTOCOLS:
        fitted, chosen_by = (pooled_states(model, part.tokens, protocol) for part in (train, validation))
        measured = {name: pooled_states(model, part.tokens, protocol) for name, part in held_out.items()}
        for layer in range(model.config.n_layer + 1):
            fit = fit_linear(
                Labelled(fitted[:, layer], train.labels), Labelled(chosen_by[:, layer], validation.labels),
                classes, [layer],
            )  # fmt: skip
            accuracies = {
                name: fit.linear.accuracy(states[:, layer], held_out[name].labels) for name, states in measured.items()
            }
            rows.append({"protocol": protocol, **fit.record(), "held_out": accuracies})
            if best is None or better(best[0], fit) is fit:
                best, chosen = (fit, protocol), rows[-1]
    assert best is not None
    return *best, {"chosen": chosen, "layers": rows}
