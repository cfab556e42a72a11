"""Plots of probes: accuracy by layer, and which classes are taken for which."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from igpt_export.probe.fit import Fit, best_of

_BLUE, _ORANGE, _GREY = "#2b6cb0", "#c05621", "#555555"


def plot_curve(path: Path, fits: Sequence[Fit], title: str) -> None:
    """Accuracy on validation by layer; concatenated layers as a bar over those they are of."""
    single, joined = ([fit for fit in fits if (len(fit.layers) == 1) == alone] for alone in (True, False))
    best = best_of(single)
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    layers = [fit.layers[0] for fit in single]
    axes.plot(
        layers, [100 * fit.validation_accuracy for fit in single], "o-", color=_BLUE, markersize=4, label="one layer"
    )
    axes.annotate(
        f"layer {best.layers[0]}: {best.validation_accuracy:.1%}", (best.layers[0], 100 * best.validation_accuracy),
        xytext=(0, 8), textcoords="offset points", ha="center", color=_BLUE,
    )  # fmt: skip
    for fit in joined:
        label = f"{len(fit.layers)} layers joined: {fit.validation_accuracy:.1%}"
        ends = [fit.layers[0], fit.layers[-1]]
        axes.plot(ends, [100 * fit.validation_accuracy] * 2, "-", color=_ORANGE, linewidth=3, label=label)
    axes.set_xlabel("layer (0: embedding)")
    axes.set_ylabel("accuracy on validation, %")
    axes.set_title(title, fontsize=10)
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if joined:
        axes.legend(frameon=False, loc="lower center")
    figure.savefig(path, dpi=130)


def plot_confusion(path: Path, counts: npt.NDArray[np.int64], names: Sequence[str], title: str) -> None:
    """A confusion matrix [true, predicted]: each row's shares as shades, and counts if they can be read."""
    n = len(names)
    side = min(3 + 0.4 * n, 16)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= 30:
        for row, column in np.argwhere(counts > 0):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    if n <= 100:
        axes.set_xticks(range(n), names, rotation=90, fontsize=8)
        axes.set_yticks(range(n), names, fontsize=8)
    axes.set_xlabel("named", color=_GREY)
    axes.set_ylabel("is", color=_GREY)
    axes.set_title(title, fontsize=10)
    figure.savefig(path, dpi=130)
