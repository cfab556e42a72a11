"""Multinomial logistic regression on pooled features, by scikit-learn; its strength and layer chosen by validation.

"Generative Pretraining from Pixels", section 2.3: a linear classifier on the mean of one layer's features; for ImageNet
also on those of several consecutive layers around the best one, concatenated.
"""

import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from igpt_export.checkpoint.arrays import read_arrays
from igpt_runtime.bundle.bundle import Bundle
from igpt_runtime.bundle.config import PROTOCOLS
from igpt_runtime.errors import OptionError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

STRENGTHS = tuple(10.0**power for power in range(-4, 4))  # inverse regularisation strengths tried, in this order
_PATIENCE = 2  # the search ends when so many in a row raised the cross-entropy on validation
_ITERATIONS = 300


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear classifier, its standardisation folded in."""

    weight: Floats  # [labels, features]
    bias: Floats  # [labels]

    def logits(self, features: Floats) -> Floats:
        """[n, labels] of features [n, features]."""
        result: Floats = features @ self.weight.T + self.bias
        return result

    def accuracy(self, features: Floats, labels: Ints) -> float:
        """Share of features [n, features] that get their label [n]."""
        return float((self.logits(features).argmax(1) == labels).mean())


@dataclass(frozen=True)
class Fit:
    """One fitted classifier, and what it was chosen by."""

    layers: tuple[int, ...]
    strength: float  # inverse regularisation, the best of STRENGTHS on validation
    train_accuracy: float
    validation_accuracy: float
    validation_nats: float  # cross-entropy per picture
    linear: Linear = field(repr=False, compare=False)

    def record(self) -> dict[str, Any]:
        """All but the classifier, as JSON."""
        return {key: value for key, value in vars(self).items() if key != "linear"}


@dataclass(frozen=True)
class Probe:
    """A classifier of a model's features, and what these are of."""

    label_names: tuple[str, ...]
    layers: tuple[int, ...]  # whose features it reads, one after the other
    protocol: str  # of these features, a key of PROTOCOLS
    model: str  # name of the bundle
    checkpoint: str | None  # hash of the checkpoint that the bundle was made from
    linear: Linear = field(repr=False, compare=False)


class Labelled(NamedTuple):
    """Features of pictures and their classes."""

    features: Floats  # [n, features] or [n, layers, n_embd]
    labels: Ints  # [n], 0 .. n_labels - 1


def fit_linear(train: Labelled, validation: Labelled, n_labels: int, layers: Sequence[int] = ()) -> Fit:
    """The best of STRENGTHS on validation. Features are [n, features]; layers: those they are of."""
    scaler = StandardScaler().fit(train.features)
    scaled, scaled_validation = scaler.transform(train.features), scaler.transform(validation.features)
    regression = LogisticRegression(max_iter=_ITERATIONS, tol=1e-4, warm_start=True)
    best: Fit | None = None
    least, worse = math.inf, 0
    for strength in STRENGTHS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # validation judges what there is
            regression.set_params(C=strength).fit(scaled, train.labels)
        linear = _unscaled(regression, scaler, n_labels)
        probabilities = np.full((len(validation.labels), n_labels), 1e-12)
        probabilities[:, regression.classes_] = regression.predict_proba(scaled_validation)
        probabilities /= probabilities.sum(1, keepdims=True)
        fit = Fit(
            tuple(layers),
            strength,
            linear.accuracy(*train),
            linear.accuracy(*validation),
            float(log_loss(validation.labels, probabilities, labels=np.arange(n_labels))),
            linear,
        )
        best = fit if best is None else better(best, fit)
        worse = 0 if fit.validation_nats < least else worse + 1
        least = min(least, fit.validation_nats)
        if worse == _PATIENCE:
            break
    assert best is not None
    return best


def better(one: Fit, other: Fit) -> Fit:
    """The one with the higher accuracy on validation, or of equal ones the lower cross-entropy there."""
    return min(one, other, key=lambda fit: (-fit.validation_accuracy, fit.validation_nats))


def fit_layers(
    train: Labelled,
    validation: Labelled,
    n_labels: int,
    layers: Sequence[int],
    concat: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Fit]:
    """A fit for each layer and, if `concat` > 1, one for that many consecutive layers around the best.

    Features are [n, layers, n_embd], of `layers`; progress: called with the number of layers done since.

    Raises as `check_concat` does.
    """
    check_concat(layers, concat)
    fits = []
    for i, layer in enumerate(layers):
        one, other = (Labelled(part.features[:, i], part.labels) for part in (train, validation))
        fits.append(fit_linear(one, other, n_labels, [layer]))
        progress(1)
    if concat > 1:
        centre = layers.index(best_of(fits).layers[0])
        first = min(max(centre - concat // 2, 0), len(layers) - concat)
        rows = slice(first, first + concat)
        one, other = (
            Labelled(part.features[:, rows].reshape(len(part.labels), -1), part.labels) for part in (train, validation)
        )
        fits.append(fit_linear(one, other, n_labels, layers[rows]))
        progress(1)
    return fits


def check_concat(layers: Sequence[int], concat: int) -> None:
    """Raise OptionError if there are not that many consecutive layers."""
    if not 1 <= concat <= len(layers) or (concat > 1 and list(layers) != list(range(layers[0], layers[-1] + 1))):
        raise OptionError(f"--concat {concat} needs that many consecutive layers; --layers gives {len(layers)}")


def best_of(fits: Sequence[Fit]) -> Fit:
    """The best on validation."""
    best = fits[0]
    for fit in fits[1:]:
        best = better(best, fit)
    return best


def check_origin(probe: Probe, bundle: Bundle) -> None:
    """Raise OptionError unless the probe reads features of the bundle's checkpoint."""
    manifest = bundle.manifest
    width = len(probe.layers) * manifest.config.n_embd
    if probe.checkpoint != manifest.source["sha256"]:
        raise OptionError(
            f"the probe was fitted on {probe.model}, {bundle.path} is of another checkpoint; "
            "fit one with `igpt-run probe fit --model` and this bundle"
        )
    if probe.linear.weight.shape[1] != width or max(probe.layers) > manifest.config.n_layer:
        raise OptionError(f"the probe reads {probe.linear.weight.shape[1]} features, {bundle.path} has {width}")


def standard_error(accuracy: float, n: int) -> float:
    """Of an accuracy measured on n pictures (binomial)."""
    return math.sqrt(accuracy * (1 - accuracy) / n)


def save_probe(path: Path, probe: Probe) -> None:
    """Write a probe as `.npz`: `weight`, `bias` and the rest as JSON in `record`."""
    record = json.dumps({key: value for key, value in asdict(probe).items() if key != "linear"})
    with path.open("wb") as file:
        np.savez(file, weight=probe.linear.weight, bias=probe.linear.bias, record=np.array(record))


def load_probe(path: Path) -> Probe:
    """Read a probe that `save_probe` wrote. Raises OptionError."""
    remedy = "give the probe.npz that `igpt-run probe fit` wrote"
    try:
        stored = read_arrays(path, ("record", "weight", "bias"))
        record, weight, bias = json.loads(str(stored["record"])), stored["weight"], stored["bias"]
        names, layers = tuple(map(str, record["label_names"])), tuple(map(int, record["layers"]))
        probe = Probe(names, layers, record["protocol"], record["model"], record["checkpoint"], Linear(weight, bias))
    except OSError as error:
        raise OptionError(f"{path} cannot be read ({error.strerror or error}); {remedy}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise OptionError(f"{path} is no probe, or damaged ({error}); {remedy}") from error
    shapes_fit = weight.ndim == 2 and bias.shape == weight.shape[:1] == (len(names),) and weight.dtype == np.float32
    if not shapes_fit or probe.protocol not in PROTOCOLS or not layers:
        raise OptionError(f"{path} is damaged: its arrays and record disagree; {remedy}")
    return probe


def _unscaled(regression: LogisticRegression, scaler: StandardScaler, n_labels: int) -> Linear:
    """The regression on features as they are; classes without training pictures get none."""
    coefficients, intercepts = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:  # of two classes scikit-learn keeps one row
        coefficients, intercepts = (
            np.concatenate([-coefficients, coefficients]) / 2,
            np.tile(intercepts, 2) / 2 * [-1, 1],
        )
    weight = np.zeros((n_labels, coefficients.shape[1]))
    bias = np.full(n_labels, -1e4)
    weight[regression.classes_] = coefficients / scaler.scale_
    bias[regression.classes_] = intercepts - weight[regression.classes_] @ scaler.mean_
    return Linear(weight.astype(np.float32), bias.astype(np.float32))
