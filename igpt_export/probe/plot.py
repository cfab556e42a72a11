"""Plots of probes: accuracy by layer, and which classes are taken for which."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from igpt_export.probe.fit import Fit, best_of, standard_error

_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#666666"  # told apart by the colour-blind, too
_COUNTED, _NAMED = 20, 100  # up to so many classes have counts in their cells, and names on the axes
_LONGEST = 24  # characters of a class's name
_DPI = 150


def plot_curve(
    path: Path, fits: Sequence[Fit], title: str, *, n_validation: int | None = None, n_labels: int | None = None
) -> None:
    """Write `curve_figure` as a PNG file."""
    figure = curve_figure(fits, title, n_validation=n_validation, n_labels=n_labels)
    _save(figure, path)


def curve_figure(
    fits: Sequence[Fit], title: str, *, n_validation: int | None = None, n_labels: int | None = None
) -> Figure:
    """Accuracy by layer, on validation and on training pictures, the best on validation marked.

    Concatenated layers are a bar over those they are of. n_validation: the number of validation pictures, for error
    bars of one standard error each way; n_labels: the number of classes, for a line at the accuracy of chance.
    """
    single, joined = ([fit for fit in fits if (len(fit.layers) == 1) == alone] for alone in (True, False))
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    label = "validation" if n_validation is None else "validation (bars: standard error)"
    drawn = [_draw_validation(axes, single, n_validation, _BLUE, label)]
    for fit in joined:
        drawn.append(_draw_validation(axes, [fit], n_validation, _ORANGE, f"validation, layers {_span(fit)} joined"))
    layers, accuracies = [fit.layers[0] for fit in single], [100 * fit.train_accuracy for fit in single]
    drawn += axes.plot(layers, accuracies, "s--", color=_GREY, markersize=4, linewidth=1, label="training")
    drawn += _mark_best(axes, best_of(fits), n_validation)
    if n_labels is not None:
        label = f"chance, {n_labels:,} classes"
        drawn.append(axes.axhline(100 / n_labels, color="black", linestyle=":", label=label))
    axes.set_xlabel("layer")
    axes.set_ylabel("accuracy (%)")
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "0\nembedding" if x == 0 else f"{x:g}"))
    axes.legend(handles=drawn, frameon=False)
    return figure


def _draw_validation(axes: Axes, fits: Sequence[Fit], n: int | None, colour: str, label: str) -> Any:
    """Accuracies on validation, joined by a line; a fit of several layers has a bar from the first to the last."""
    errors = None if n is None else [_error(fit, n) for fit in fits]
    widths = [(fit.layers[-1] - fit.layers[0]) / 2 for fit in fits]
    joined = any(widths)
    return axes.errorbar(
        [_middle(fit) for fit in fits], [100 * fit.validation_accuracy for fit in fits], errors,
        widths if joined else None, fmt="D" if joined else "o-", color=colour, markersize=5, capsize=3, label=label,
        zorder=2 if joined else 3,
    )  # fmt: skip


def _mark_best(axes: Axes, best: Fit, n: int | None) -> Sequence[Any]:
    """A ring around the best fit, whose legend says how good it is."""
    accuracy = 100 * best.validation_accuracy
    figures = f"{accuracy:.1f} %" if n is None else f"{accuracy:.1f} ± {_error(best, n):.1f} %"
    name = "layer" if len(best.layers) == 1 else "layers"
    rings: Sequence[Any] = axes.plot(
        _middle(best), accuracy, "o", markersize=13, markerfacecolor="none", markeredgecolor="black", zorder=4,
        label=f"best: {name} {_span(best)}, {figures}",
    )  # fmt: skip
    return rings


def plot_confusion(path: Path, counts: npt.NDArray[np.int64], names: Sequence[str], title: str) -> None:
    """Write `confusion_figure` as a PNG file."""
    _save(confusion_figure(counts, names, title), path)


def confusion_figure(counts: npt.NDArray[np.int64], names: Sequence[str], title: str) -> Figure:
    """A confusion matrix: rows are the true classes, columns the predicted ones.

    A cell's shade is its share of its true class; counts stand in the cells where the classes are few. The title gets
    the accuracy, its standard error, and the number of pictures. counts: [true, predicted], not all of them 0.
    """
    n, total = len(names), int(counts.sum())
    shown = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..." for name in names] if n <= _NAMED else []
    matrix, labels = min(max(0.42 * n, 2.4), 14), 0.5 + 0.08 * max(map(len, shown), default=3)  # in inches
    large = max(10, matrix)  # points
    figure = Figure(figsize=(matrix + labels + 0.9 + matrix / 10, matrix + labels + 0.05 * large), layout="constrained")
    axes = figure.add_subplot()
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("share of the true class (%)", fontsize=large)
    if n <= _COUNTED:
        for row, column in np.argwhere(counts > 0):
            text, colour = f"{counts[row, column]:,}", "white" if percent[row, column] > 70 else "black"
            fitting = 65 * matrix / n / (0.65 * len(text))  # points, of the cell's width
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=min(10, fitting))
    if shown:
        axes.set_xticks(range(n), shown, rotation=90, fontsize=9, parse_math=False)
        axes.set_yticks(range(n), shown, fontsize=9, parse_math=False)
    axes.set_xlabel("predicted class", fontsize=large)
    axes.set_ylabel("true class", fontsize=large)
    accuracy = int(np.trace(counts)) / total
    spread = f"{100 * accuracy:.1f} ± {100 * standard_error(accuracy, total):.1f} %"
    figure.suptitle(f"{title}\naccuracy {spread}, {total:,} pictures", fontsize=1.1 * large, parse_math=False)
    return figure


def _error(fit: Fit, n: int) -> float:
    """Standard error of the accuracy on n validation pictures, in per cent."""
    return 100 * standard_error(fit.validation_accuracy, n)


def _middle(fit: Fit) -> float:
    return (fit.layers[0] + fit.layers[-1]) / 2


def _span(fit: Fit) -> str:
    return str(fit.layers[0]) if len(fit.layers) == 1 else f"{fit.layers[0]}-{fit.layers[-1]}"


def _save(figure: Figure, path: Path) -> None:
    options: dict[str, Any] = {"metadata": {"Software": None}}  # the same figures give the same file
    figure.savefig(path, dpi=_DPI, format="png", **options)
