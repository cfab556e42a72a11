"""Plots of probes and of the demo's claims: what stands on their axes, how long error bars are, what cells say."""

import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from PIL import Image

from igpt_export.probe.fit import Fit, Linear
from igpt_export.probe.plot import confusion_figure, curve_figure, plot_confusion, plot_curve

DEMO = Path(__file__).parents[3] / "models" / "demo"
VALIDATION = "validation (bars: standard error)"
NO_LINEAR = Linear(np.zeros((2, 1), np.float32), np.zeros(2, np.float32))


def fit(layers: Sequence[int], validation: float, train: float = 1.0) -> Fit:
    return Fit(tuple(layers), 1.0, train, validation, 0.5, NO_LINEAR)


FITS = [fit([0], 0.4, 0.5), fit([1], 0.9), fit([2], 0.8)]
JOINED = [*FITS, fit([0, 1, 2], 0.85)]


def axes_of(figure: Figure) -> Axes:
    return figure.axes[0]


def bars(axes: Axes, label: str) -> ErrorbarContainer:
    (found,) = (bar for bar in axes.containers if bar.get_label() == label)
    assert isinstance(found, ErrorbarContainer)
    return found


def half_lengths(bar: ErrorbarContainer, direction: int = 1) -> list[float]:
    """How far error bars reach each way; direction: 0 is along x, 1 along y."""
    upright = [
        one for one in bar.lines[2] if all(np.ptp(segment[:, 1 - direction]) == 0 for segment in one.get_segments())
    ]
    return [float(np.ptp(segment[:, direction])) / 2 for segment in upright[-1].get_segments()]


def legend_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_a_curve_says_what_it_shows() -> None:
    axes = axes_of(curve_figure(JOINED, "Linear probes of demo", n_validation=144, n_labels=10))
    assert axes.get_xlabel() == "layer" and axes.get_ylabel() == "accuracy (%)"
    assert axes.get_title() == "Linear probes of demo"
    assert legend_of(axes) == [
        VALIDATION, "validation, layers 0-2 joined", "training", "best: layer 1, 90.0 ± 2.5 %", "chance, 10 classes",
    ]  # fmt: skip


def test_error_bars_are_standard_errors_of_proportions() -> None:
    axes = axes_of(curve_figure(JOINED, "", n_validation=144))
    expected = [100 * math.sqrt(p * (1 - p) / 144) for p in (0.4, 0.9, 0.8)]
    assert half_lengths(bars(axes, VALIDATION)) == pytest.approx(expected)
    assert bars(axes, VALIDATION).lines[0].get_ydata() == pytest.approx([40, 90, 80])
    joined = bars(axes, "validation, layers 0-2 joined")
    assert half_lengths(joined) == pytest.approx([100 * math.sqrt(0.85 * 0.15 / 144)])
    assert half_lengths(joined, direction=0) == pytest.approx([1])  # from layer 0 to layer 2
    four_times_the_pictures = axes_of(curve_figure(FITS, "", n_validation=576))
    assert half_lengths(bars(four_times_the_pictures, VALIDATION)) == pytest.approx([half / 2 for half in expected])


def test_without_a_number_of_pictures_there_are_no_bars() -> None:
    axes = axes_of(curve_figure(FITS, ""))
    assert not bars(axes, "validation").lines[2]
    assert legend_of(axes) == ["validation", "training", "best: layer 1, 90.0 %"]


@pytest.mark.parametrize(
    ("fits", "place", "name"),
    [
        (FITS, (1, 90), "best: layer 1, 90.0 %"),
        ([*FITS, fit([1, 2], 0.95)], (1.5, 95), "best: layers 1-2, 95.0 %"),
        ([fit([5], 0.5)], (5, 50), "best: layer 5, 50.0 %"),
    ],
)
def test_the_best_is_marked(fits: list[Fit], place: tuple[float, float], name: str) -> None:
    (ring,) = (line for line in axes_of(curve_figure(fits, "")).lines if str(line.get_label()).startswith("best"))
    assert ring.get_xydata().tolist() == [pytest.approx(list(place))] and ring.get_label() == name


def test_chance_and_training() -> None:
    axes = axes_of(curve_figure(FITS, "", n_labels=4))
    lines = {line.get_label(): line for line in axes.lines}
    chance = lines["chance, 4 classes"]
    assert list(chance.get_ydata()) == [25, 25] and chance.get_linestyle() == ":"
    assert list(lines["training"].get_ydata()) == [50, 100, 100]


def test_layer_0_is_named(tmp_path: Path) -> None:
    figure = curve_figure(FITS, "")
    figure.savefig(tmp_path / "a.png")
    labels = [label.get_text() for label in axes_of(figure).get_xticklabels()]
    assert "0\nembedding" in labels and "1" in labels and "0.5" not in labels


COUNTS = np.array([[6, 2, 0], [0, 5, 0], [1, 0, 1234]])
NAMES = ["cat", "dog", "a very long name of some kind of bird"]


def test_a_confusion_matrix_says_what_it_shows() -> None:
    figure = confusion_figure(COUNTS, NAMES, "demo")
    axes, bar = figure.axes
    assert axes.get_ylabel() == "true class" and axes.get_xlabel() == "predicted class"
    assert bar.get_ylabel() == "share of the true class (%)"
    accuracy = 1245 / 1248
    error = math.sqrt(accuracy * (1 - accuracy) / 1248)
    assert figure.get_suptitle() == f"demo\naccuracy {100 * accuracy:.1f} ± {100 * error:.1f} %, 1,248 pictures"
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["cat", "dog", "a very long name of s..."]


def test_cells_are_shares_of_the_true_class_with_counts() -> None:
    axes = axes_of(confusion_figure(COUNTS, NAMES, ""))
    shown = np.asarray(axes.images[0].get_array())
    assert shown == pytest.approx(100 * COUNTS / COUNTS.sum(1, keepdims=True))
    assert axes.images[0].get_clim() == (0, 100)
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): "6", (1, 0): "2", (1, 1): "5", (0, 2): "1", (2, 2): "1,234"}  # column, row


@pytest.mark.parametrize(("n", "counted", "named"), [(20, True, True), (21, False, True), (101, False, False)])
def test_many_classes(n: int, counted: bool, named: bool) -> None:
    axes = axes_of(confusion_figure(np.eye(n, dtype=np.int64), [f"class {i}" for i in range(n)], ""))
    assert bool(axes.texts) == counted
    assert ("class 0" in [label.get_text() for label in axes.get_xticklabels()]) == named


def test_counts_can_be_read_and_fit_their_cells(tmp_path: Path) -> None:
    counts = np.full((20, 20), 123456)
    counts[0, 0] = 4
    figure = confusion_figure(counts, [f"class {i}" for i in range(20)], "")
    figure.savefig(tmp_path / "a.png")
    axes = axes_of(figure)
    width = axes.get_window_extent().width / 20
    assert max(text.get_window_extent().width for text in axes.texts) < width
    assert axes.texts[0].get_fontsize() == 10


def test_a_class_without_pictures_is_an_empty_row() -> None:
    counts = np.array([[3, 0], [0, 0]])
    shown = axes_of(confusion_figure(counts, ["a", "b"], "")).images[0].get_array()
    assert shown is not None and shown.tolist() == [[100, 0], [0, 0]]


def test_files(tmp_path: Path) -> None:
    """Names are no formulas, whatever signs they hold; the same figures give the same file."""
    odd = ["$a_$", "$\\nonsense{$", "100 %"]
    for name in ("a.png", "b.png"):
        plot_curve(tmp_path / name, JOINED, "of $x_$ and $\\y{$", n_validation=20, n_labels=3)
        plot_confusion(tmp_path / f"confusion-{name}", COUNTS, odd, "of $x_$ and $\\y{$")
    for name in ("a.png", "confusion-a.png"):
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG" and min(image.size) >= 400
        assert (tmp_path / name).read_bytes() == (tmp_path / name.replace("a.png", "b.png")).read_bytes()


@pytest.fixture(scope="module")
def claim_plots() -> ModuleType:
    spec = importlib.util.spec_from_file_location("claim_plots", DEMO / "claim_plots.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def claims() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEMO / "claims" / "figures.json").read_text())
    return found


def test_claims_against_the_loss(claim_plots: ModuleType, claims: dict[str, Any]) -> None:
    axes = axes_of(claim_plots.loss_figure(claims["snapshots"]))
    left, right = axes.get_xlim()
    assert left > right and axes.get_xlabel() == "nats per token of held-out digits (better →)"
    assert axes.get_ylabel() == "best layer's accuracy on held-out digits (%)"
    assert legend_of(axes) == ["width 32", "width 64", "width 128"]
    own = [row for row in claims["snapshots"] if row["width"] == 64]
    found = bars(axes, "width 64")
    assert list(found.lines[0].get_xdata()) == [row["nats"] for row in own]
    assert half_lengths(found) == pytest.approx([100 * row["standard_error"] for row in own])


def test_claims_by_layer_and_by_labels(claim_plots: ModuleType, claims: dict[str, Any]) -> None:
    axes = axes_of(claim_plots.layers_figure(claims["layers"]))
    assert axes.get_xlabel() == "layer" and axes.get_ylabel() == "accuracy on held-out digits (%)"
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["0\nembedding", "1", "2", "3", "4", "5", "6\nafter the\nlast block"]
    axes = axes_of(claim_plots.low_data_figure(claims["low_data"]))
    assert axes.get_xlabel() == "labelled digits per class" and axes.get_ylabel() == "accuracy on held-out digits (%)"
    assert legend_of(axes) == ["features of the demo", "principal components", "raw pixels"]


def test_plots_of_claims_are_drawn_from_the_record(
    claim_plots: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "figures.json").write_bytes((DEMO / "claims" / "figures.json").read_bytes())
    monkeypatch.setattr("sys.argv", ["claim_plots.py", "--directory", str(tmp_path)])
    claim_plots.main()
    for name in ("layers.png", "loss.png", "low-data.png"):
        with Image.open(tmp_path / name) as drawn, Image.open(DEMO / "claims" / name) as kept:
            assert drawn.size == kept.size
            # fonts may be drawn a little differently elsewhere
            difference = np.abs(np.asarray(drawn, np.int16) - np.asarray(kept, np.int16))
            assert (difference > 64).mean() < 0.001, name
