"""The demo's own classifier: a linear probe of every layer by both protocols, fitted on augmented pictures."""

from dataclasses import dataclass

import digits
import numpy as np
import torch
from likelihood import prepend_sos
from torch import Tensor

from igpt_export.model.model import ImageGPT, pooled
from igpt_export.probe.fit import Fit, Labelled, better, fit_linear
from igpt_runtime.bundle.config import PROTOCOLS

_BATCH = 60
_COPIES = 3  # augmented renderings of every training and validation digit, crisp and softened each
_CLASSES = 10


@dataclass(frozen=True, eq=False)
class Pictures:
    """Labelled token sequences."""

    tokens: Tensor  # int64 [n, 256]
    labels: digits.Ints  # [n]


def augmented_pictures(part: digits.Part, clusters: digits.Floats, seed: int) -> Pictures:
    """Augmented renderings of a part's digits in random inks, each crisp and softened."""
    scans, labels = np.tile(part.scans, (_COPIES, 1, 1)), np.tile(part.labels, _COPIES)
    crisp = digits.render(scans, digits.Augmentation(), seed)
    coverage = np.concatenate([crisp, digits.soften(crisp)])
    tokens = digits.token_sequences(coverage, digits.random_inks(len(coverage), seed), clusters)
    return Pictures(torch.from_numpy(tokens).long(), np.tile(labels, 2))


@torch.inference_mode()
def pooled_states(model: ImageGPT, tokens: Tensor, protocol: str) -> digits.Floats:
    """Features by a protocol, float32 [n, n_layer + 1, n_embd]."""
    rules = PROTOCOLS[protocol]
    inputs = prepend_sos(tokens, model.config.sos) if rules.sos else tokens
    runs = (model(chunk) for chunk in inputs.split(_BATCH))
    result: digits.Floats = torch.cat([pooled(run.normed if rules.normed else run.hidden) for run in runs]).numpy()
    return result


def fit_probe(
    model: ImageGPT, train: Pictures, validation: Pictures, held_out: Pictures, softened: Pictures
) -> tuple[Fit, str, dict[str, object]]:
    """Fit every layer by both protocols; validation chooses, held-out (and softened) pictures only measure.

    Returns the chosen fit, its protocol, and the table of figures.
    """
    best: tuple[Fit, str] | None = None
    rows: list[dict[str, object]] = []
    for protocol in PROTOCOLS:
        states = [pooled_states(model, part.tokens, protocol) for part in (train, validation, held_out, softened)]
        for layer in range(model.config.n_layer + 1):
            parts = (
                Labelled(state[:, layer], part.labels) for state, part in zip(states, (train, validation), strict=False)
            )
            fit = fit_linear(*parts, _CLASSES, [layer])
            measured = [fit.linear.accuracy(part[:, layer], held_out.labels) for part in states[2:]]
            rows.append(
                {
                    "protocol": protocol,
                    **fit.record(),
                    "held_out_accuracy": measured[0],
                    "held_out_accuracy_softened": measured[1],
                }
            )
            if best is None or better(best[0], fit) is fit:
                best, chosen = (fit, protocol), rows[-1]
    assert best is not None
    return *best, {"chosen": chosen, "layers": rows}
