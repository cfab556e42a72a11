"""Plots of what `reproduce.py` measures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_COLOURS = ("#2b6cb0", "#c05621", "#2f855a")
_SIZE, _DPI = (5.6, 3.8), 110
_NAMES = {"features": "features of the demo", "pca": "principal components", "pixels": "raw pixels"}

Rows = Sequence[dict[str, Any]]


def _axes(figure: Figure, x: str, y: str) -> Axes:
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _bars(axes: Axes, x: Sequence[float], rows: Rows, colour: str, label: str) -> None:
    """Accuracies with their standard errors."""
    accuracies, errors = ([100 * row[key] for row in rows] for key in ("held_out", "standard_error"))
    axes.errorbar(x, accuracies, errors, fmt="o-", color=colour, markersize=4, capsize=2, label=label)


def plot_layers(path: Path, rows: Rows) -> None:
    """Accuracy by layer."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = _axes(figure, "layer (0: embedding, 6: after the last block)", "held-out digits named rightly, %")
    _bars(axes, [row["layers"][0] for row in rows], rows, _COLOURS[0], "")
    figure.savefig(path, dpi=_DPI)


def plot_loss(path: Path, rows: Rows) -> None:
    """Accuracy of the best layer against nats per token, a line a width, better models to the right."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = _axes(figure, "nats per token of held-out digits", "held-out digits named rightly, %")
    for width, colour in zip(sorted({row["width"] for row in rows}), _COLOURS, strict=True):
        own = [row for row in rows if row["width"] == width]
        _bars(axes, [row["nats"] for row in own], own, colour, f"width {width}")
    axes.set_xscale("log")
    axes.invert_xaxis()
    ticks = [3, 2, 1.5, 1, 0.8, 0.7]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=_DPI)


def plot_low_data(path: Path, rows: Rows) -> None:
    """Accuracy by labels per class, a line an input."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = _axes(figure, "labelled digits per class", "held-out digits named rightly, %")
    for (name, label), colour in zip(_NAMES.items(), _COLOURS, strict=True):
        own = [row for row in rows if row["input"] == name]
        _bars(axes, [row["labels_per_class"] for row in own], own, colour, label)
    counts = sorted({row["labels_per_class"] for row in rows})
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=_DPI)
