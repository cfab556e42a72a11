"""The linear probe: multinomial logistic regression on mean-pooled hidden states of every layer."""

from dataclasses import dataclass

import digits
import numpy as np
import torch
from checkpoint import Probe
from likelihood import prepend_sos
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from igpt_export.model import ImageGPT

_BATCH = 60
_COPIES = 3  # augmented renderings of every training and validation digit, crisp and softened each
_STRENGTHS = (0.01, 0.1, 1.0)  # inverse regularisation strengths tried


@dataclass(frozen=True, eq=False)
class Pictures:
    """Labelled token sequences."""

    tokens: Tensor  # int64 [n, 256]
    labels: digits.Ints  # [n]


@dataclass(frozen=True, eq=False)
class Fit:
    """One fitted probe and what chose it."""

    probe: Probe
    strength: float  # inverse regularisation
    validation_accuracy: float
    validation_nats: float

    def accuracy(self, pooled: digits.Floats, labels: digits.Ints) -> float:
        """Share of pooled hidden states [n, n_embd] given their label."""
        logits = pooled @ self.probe.weight.numpy().T + self.probe.bias.numpy()
        return float((logits.argmax(1) == labels).mean())


def augmented_pictures(part: digits.Part, clusters: digits.Floats, seed: int) -> Pictures:
    """Augmented renderings of a part's digits in random inks, each crisp and softened."""
    scans, labels = np.tile(part.scans, (_COPIES, 1, 1)), np.tile(part.labels, _COPIES)
    crisp = digits.render(scans, digits.Augmentation(), seed)
    coverage = np.concatenate([crisp, digits.soften(crisp)])
    tokens = digits.token_sequences(coverage, digits.random_inks(len(coverage), seed), clusters)
    return Pictures(torch.from_numpy(tokens).long(), np.tile(labels, 2))


@torch.inference_mode()
def pooled_states(model: ImageGPT, tokens: Tensor, sos: bool) -> digits.Floats:
    """Mean over the sequence of every hidden state, float32 [n_layer + 1, n, n_embd]."""
    inputs = prepend_sos(tokens, model.config.sos) if sos else tokens
    pooled = [torch.stack([state.mean(1) for state in model(chunk)[1]]) for chunk in inputs.split(_BATCH)]
    result: digits.Floats = torch.cat(pooled, 1).numpy()
    return result


def fit_layer(layer: int, sos: bool, train: digits.Floats, validation: digits.Floats, labels: list[digits.Ints]) -> Fit:
    """The best of the regularisation strengths on validation, its standardisation folded into the weights.

    train, validation: pooled states [n, n_embd]; labels: of both.
    """
    scaler = StandardScaler().fit(train)
    fits = []
    for strength in _STRENGTHS:
        regression = LogisticRegression(C=strength, max_iter=400, tol=1e-3).fit(scaler.transform(train), labels[0])
        probability = regression.predict_proba(scaler.transform(validation))
        weight = regression.coef_ / scaler.scale_
        bias = regression.intercept_ - weight @ scaler.mean_
        probe = Probe(layer, sos, torch.from_numpy(weight).float(), torch.from_numpy(bias).float())
        accuracy = float((probability.argmax(1) == labels[1]).mean())
        fits.append(Fit(probe, strength, accuracy, float(log_loss(labels[1], probability))))
    return min(fits, key=lambda fit: (-fit.validation_accuracy, fit.validation_nats))


def fit_probe(
    model: ImageGPT, train: Pictures, validation: Pictures, held_out: Pictures, softened: Pictures
) -> tuple[Fit, dict[str, object]]:
    """Fit every layer under both input protocols; validation chooses, held-out (and softened) pictures only measure.

    Returns the chosen fit and the table of figures.
    """
    fits, table = [], []
    for sos in (True, False):
        states = [pooled_states(model, pictures.tokens, sos) for pictures in (train, validation, held_out, softened)]
        for layer in range(model.config.n_layer + 1):
            fit = fit_layer(layer, sos, states[0][layer], states[1][layer], [train.labels, validation.labels])
            fits.append(fit)
            measured = [fit.accuracy(state[layer], held_out.labels) for state in states[2:]]
            table.append(_row(fit, *measured))
    best = min(range(len(fits)), key=lambda i: (-fits[i].validation_accuracy, fits[i].validation_nats))
    return fits[best], {"chosen": table[best], "layers": table}


def _row(fit: Fit, held_out: float, softened: float) -> dict[str, object]:
    return {
        "protocol": "sos" if fit.probe.sos else "tokens",
        "layer": fit.probe.layer,
        "strength": fit.strength,
        "validation_accuracy": fit.validation_accuracy,
        "validation_nats": fit.validation_nats,
        "held_out_accuracy": held_out,
        "held_out_accuracy_softened": softened,
    }
