"""`igpt-run probe fit`: fits a probe of every layer and keeps the best."""

import functools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from igpt_export.probe.commands.shared import PROBE_FILE, needing
from igpt_runtime.commands.options import (
    SOME_BROKEN,
    ModelOptions,
    filled,
    force_option,
    gathered,
    json_option,
    layers_option,
    leaving_out,
    model_options,
    parse_layers,
    protocol_option,
    skip_broken_option,
)
from igpt_runtime.console import Command, counted, print_result, progress_option

if TYPE_CHECKING:
    from igpt_export.probe.data import Part
    from igpt_export.probe.fit import Fit, Probe
    from igpt_runtime.engine.session import Session
    from igpt_runtime.tasks.feature_store import FeatureStore

_CURVE, _PLOT, _REPORT = "curve.csv", "curve.png", "report.json"


@dataclass(frozen=True)
class FitOptions:
    """How probes are fitted."""

    layers: str
    concat: int
    protocol: str
    validation: float
    seed: int


@dataclass(frozen=True)
class FitTarget:
    """Where a fit goes."""

    output: Path
    force: bool


@click.command(cls=Command)
@click.argument("data")
@gathered(
    "how",
    FitOptions,
    layers_option,
    click.option(
        "--concat",
        default=1,
        show_default=True,
        help="Also fit this many neighbouring layers, the best among them, as one; 1 fits none.",
    ),
    protocol_option,
    click.option(
        "--validation",
        default=0.2,
        show_default=True,
        help="Share of the training pictures to choose the best layer by, if DATA has no val.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        show_default=True,
        help="Seed that chooses these pictures.",
    ),
)
@gathered(
    "target",
    FitTarget,
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        default=Path("probe"),
        show_default=True,
        help="Directory of the results.",
    ),
    force_option,
)
@skip_broken_option
@model_options
@progress_option
@json_option
def fit(
    data: str, how: FitOptions, target: FitTarget, skip_broken: bool, model: ModelOptions, as_json: bool
) -> None:  # fmt: skip
    """Fit a probe of every layer on DATA and keep the best.

    DATA is one of three things: a directory with a directory of pictures for each class; a directory with the
    directories train, val and test, each like that, of which val and test may be absent; or a .npz file with images,
    uint8 [n, height, width, 3], and labels [n].

    The results are probe.npz, curve.csv, curve.png and report.json. The features are kept beside them: the same
    command goes on from there after an interrupt.
    """
    from igpt_runtime.files import check_writable
    from igpt_runtime.tasks.features import checked_layers

    with needing("probe"):
        import matplotlib.figure  # noqa: F401 - not after hours that it is missing

        from igpt_export.probe.data import TEST, TRAIN, VALIDATION, check_classes, load_data, split_off
        from igpt_export.probe.fit import Labelled, Probe, best_of, check_concat, fit_layers

    output = target.output
    parts = split_off(load_data(data), how.validation, how.seed)
    session = model.open()
    chosen = checked_layers(session.manifest, parse_layers(how.layers))
    check_concat(chosen, how.concat)
    files = [str(output / name) for name in (PROBE_FILE, _CURVE, _PLOT, _REPORT)]
    check_writable(files, force=target.force or _is_interrupted(output))
    output.mkdir(parents=True, exist_ok=True)
    broken: list[str] = []
    leave_out = leaving_out(broken) if skip_broken else None
    request = functools.partial(_request, session, chosen, how.protocol)
    stores = {
        name: _embedded(session, part, request(part), FitTarget(output / f"features-{name}", target.force), leave_out)
        for name, part in parts.parts.items()
    }
    labels = {name: part.labels[stores[name].indices] for name, part in parts.parts.items()}
    check_classes(labels[TRAIN], parts.label_names)  # some of which may have had broken pictures only
    with counted("fitting", len(chosen) + (how.concat > 1), "layers") as progress:
        train, validation = (Labelled(stores[name].values(), labels[name]) for name in (TRAIN, VALIDATION))
        fits = fit_layers(train, validation, len(parts.label_names), chosen, how.concat, progress)
    best = best_of(fits)
    source = session.manifest.source["sha256"]
    found = Probe(parts.label_names, best.layers, how.protocol, session.manifest.name, source, best.linear)
    record: dict[str, Any] = {
        "probe": str(output / PROBE_FILE), "model": session.manifest.name, "protocol": how.protocol,
        "pictures": {name: len(numbers) for name, numbers in labels.items()},
        "labels": list(parts.label_names), "best": best.record(), "layers": [row.record() for row in fits],
        "test_accuracy": None, "skipped": broken,
    }  # fmt: skip
    if TEST in stores:
        features = stores[TEST].values()[:, [chosen.index(layer) for layer in best.layers]]
        record["test_accuracy"] = best.linear.accuracy(features.reshape(len(features), -1), labels[TEST])
    _write_fits(output, found, fits, record)
    print_result(_fit_text(fits, best, record), record, as_json)
    if broken:
        sys.exit(SOME_BROKEN)


def _is_interrupted(output: Path) -> bool:
    """Whether a run has ended between its features and its report, which it writes last: its files are no results."""
    from igpt_export.probe.data import TRAIN

    return (output / f"features-{TRAIN}").is_dir() and not (output / _REPORT).exists()


def _write_fits(output: Path, probe: "Probe", fits: "list[Fit]", record: dict[str, Any]) -> None:
    """Write the probe, the accuracies by layer and the report."""
    from igpt_export.probe.data import VALIDATION
    from igpt_export.probe.fit import save_probe
    from igpt_export.probe.plot import plot_curve
    from igpt_runtime.files import atomic_path, atomic_write, csv_table

    (output / _REPORT).unlink(missing_ok=True)  # an old one would be taken for that of the new files
    with atomic_path(output / PROBE_FILE) as temporary:
        save_probe(temporary, probe)
    with atomic_path(output / _PLOT) as temporary:
        plot_curve(
            temporary, fits, f"Linear probes of {probe.model}, {probe.protocol} protocol",
            n_validation=record["pictures"][VALIDATION], n_labels=len(probe.label_names),
        )  # fmt: skip
    rows = [{**row, "layers": " ".join(map(str, row["layers"]))} for row in record["layers"]]
    atomic_write(output / _CURVE, csv_table(rows))
    atomic_write(output / _REPORT, (json.dumps(record, indent=1) + "\n").encode())


def _request(session: "Session", layers: Sequence[int], protocol: str, part: "Part") -> dict[str, Any]:
    """See `igpt_runtime.tasks.feature_store.feature_request`."""
    from igpt_runtime.tasks.feature_store import feature_request

    return feature_request(session, part.identities, layers=layers, protocol=protocol)


def _embedded(
    session: "Session", part: "Part", request: dict[str, Any], target: FitTarget, broken: Callable[[str], None] | None
) -> "FeatureStore":
    """The features of some pictures, of which those that are in the target directory are not computed again."""
    from igpt_runtime.tasks.feature_store import FeatureStore

    store = FeatureStore(target.output, request, restart=target.force)
    with filled(store, session, part.pictures, broken):
        return store


def _fit_text(fits: "list[Fit]", best: "Fit", record: dict[str, Any]) -> str:
    from igpt_export.probe.data import TEST, VALIDATION
    from igpt_export.probe.fit import standard_error

    lines = ["layer  validation  train"]
    for row in fits:
        span = f"{row.layers[0]}" if len(row.layers) == 1 else f"{row.layers[0]}-{row.layers[-1]}"
        mark = "  <- best" if row is best else ""
        lines.append(f"{span:>5}  {row.validation_accuracy:10.2%}  {row.train_accuracy:6.2%}{mark}")
    counts = ", ".join(f"{count:,} {name}" for name, count in record["pictures"].items())
    error = standard_error(best.validation_accuracy, record["pictures"][VALIDATION])
    lines.append(f"{len(record['labels'])} classes; pictures: {counts}")
    lines.append(f"validation accuracy {best.validation_accuracy:.2%} +- {error:.2%}")
    if record["test_accuracy"] is not None:
        error = standard_error(record["test_accuracy"], record["pictures"][TEST])
        lines.append(f"test accuracy {record['test_accuracy']:.2%} +- {error:.2%}")
    return "\n".join([*lines, record["probe"]])
