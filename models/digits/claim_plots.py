"""Plots of what `reproduce.py` measured.

Usage: python -m models.digits.claim_plots [--directory claims]. Draws layers.png, loss.png and low-data.png anew from
the directory's figures.json; nothing is trained or measured.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# told apart by the colour-blind, too, and by their markers
_STYLES = (("#0072b2", "o"), ("#d55e00", "s"), ("#333333", "^"))
_SIZE, _DPI = (6.4, 4.4), 150
_ACCURACY = "accuracy on held-out digits (%)"
_NAMES = {"features": "the model's features", "pca": "principal components", "pixels": "raw pixels"}

Rows = Sequence[dict[str, Any]]


def draw_plots(figures: Mapping[str, Any], directory: Path) -> None:
    """Write the three plots of the record that `reproduce.py` writes as figures.json."""
    plots = {
        "layers.png": layers_figure(figures["layers"]),
        "loss.png": loss_figure(figures["snapshots"]),
        "low-data.png": low_data_figure(figures["low_data"]),
    }
    for name, figure in plots.items():
        # without the library's version the same figures give the same file
        figure.savefig(directory / name, dpi=_DPI, metadata={"Software": None})


def layers_figure(rows: Rows) -> Figure:
    """Accuracy by layer."""
    figure, axes = _figure("Linear probes of the layers", "layer", _ACCURACY)
    layers = [row["layers"][0] for row in rows]
    _draw_accuracies(axes, layers, rows, _STYLES[0], "")
    ends = {min(layers): "embedding", max(layers): "after the\nlast block"}
    axes.set_xticks(layers, [f"{layer}\n{ends[layer]}" if layer in ends else str(layer) for layer in layers])
    return figure


def loss_figure(rows: Rows) -> Figure:
    """Accuracy of the best layer against nats per token, a line a width, better models to the right."""
    x = "nats per token of held-out digits (better →)"
    figure, axes = _figure("Features against likelihood", x, f"best layer's {_ACCURACY}")
    for width, style in zip(sorted({row["width"] for row in rows}), _STYLES, strict=True):
        own = [row for row in rows if row["width"] == width]
        _draw_accuracies(axes, [row["nats"] for row in own], own, style, f"width {width}")
    axes.set_xscale("log")
    axes.invert_xaxis()
    ticks = [4, 3, 2, 1.5, 1, 0.8, 0.7]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.legend(frameon=False, loc="lower right")
    return figure


def low_data_figure(rows: Rows) -> Figure:
    """Accuracy by labels per class, a line an input."""
    figure, axes = _figure("Linear classifiers from few labels", "labelled digits per class", _ACCURACY)
    for (name, label), style in zip(_NAMES.items(), _STYLES, strict=True):
        own = [row for row in rows if row["input"] == name]
        _draw_accuracies(axes, [row["labels_per_class"] for row in own], own, style, label)
    counts = sorted({row["labels_per_class"] for row in rows})
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.legend(frameon=False, loc="lower right")
    return figure


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(f"{title} (bars: one standard error)", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _draw_accuracies(axes: Axes, x: Sequence[float], rows: Rows, style: tuple[str, str], label: str) -> None:
    """Accuracies with their standard errors."""
    accuracies, errors = ([100 * row[key] for row in rows] for key in ("held_out", "standard_error"))
    colour, marker = style
    axes.errorbar(x, accuracies, errors, fmt=f"{marker}-", color=colour, markersize=5, capsize=3, label=label)


def main() -> None:
    """Draw anew what is recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path(__file__).parent / "claims")
    directory = parser.parse_args().directory
    draw_plots(json.loads((directory / "figures.json").read_text()), directory)


if __name__ == "__main__":
    main()
