"""The commands `igpt-run probe fit`, `eval` and `export`: each parses, calls the library, prints."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from igpt_runtime.bundle.config import PROTOCOLS
from igpt_runtime.commands.options import (
    SOME_BROKEN,
    filled,
    force_option,
    json_option,
    leaving_out,
    model_option,
    model_options,
    parse_layers,
    skip_broken_option,
)
from igpt_runtime.console import Command, Group, print_result, stages, token_progress
from igpt_runtime.errors import BundleError, DeviceError, OptionError

if TYPE_CHECKING:
    from igpt_export.probe.data import Part
    from igpt_export.probe.fit import Fit, Probe
    from igpt_runtime.engine.session import Session
    from igpt_runtime.tasks.feature_store import FeatureStore

_PROBE, _CURVE, _PLOT, _REPORT = "probe.npz", "curve.csv", "curve.png", "report.json"


@click.group(cls=Group)
def probe() -> None:
    """Fit linear classifiers on a bundle's features, measure them, and make one a part of the bundle."""


@contextmanager
def _needing(extra: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise DeviceError(f"this needs more packages ({error}); run: pip install 'igpt-onnx[{extra}]'") from error


@probe.command(cls=Command)
@click.argument("data")
@click.option("--layers", default="all", show_default=True, help="all, or some of 0 .. n_layer, as 9,12,18.")
@click.option("--concat", default=1, show_default=True, help="Also join that many consecutive layers around the best.")
@click.option("--protocol", type=click.Choice(list(PROTOCOLS)), default="paper", show_default=True, help="Of features.")
@click.option(
    "--validation", default=0.2, show_default=True, help="Share of DATA to choose by, unless DATA has a part for that."
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the choice of that share."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("probe"),
    show_default=True,
    help="Directory to write.",
)
@skip_broken_option
@model_options
@force_option
@json_option
def fit(
    data: str, layers: str, concat: int, protocol: str, validation: float, seed: int, output: Path, skip_broken: bool,
    model: str | None, device: str, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Fit a probe of every layer on DATA and keep the best.

    DATA is a directory with a directory of pictures for each class, or with train, val and test that have; or a .npz
    with images, uint8 [n, height, width, 3], and labels. Written are probe.npz, curve.csv, curve.png and report.json,
    and the features, from which an interrupted run goes on.
    """
    from igpt_runtime.engine.session import open_session
    from igpt_runtime.files import check_writable
    from igpt_runtime.tasks.features import checked_layers

    with _needing("probe"):
        import matplotlib.figure  # noqa: F401 - not after hours that it is missing

        from igpt_export.probe.data import TEST, TRAIN, VALIDATION, check_classes, load_data, split_off
        from igpt_export.probe.fit import Probe, best_of, check_concat, fit_layers

    parts = split_off(load_data(data), validation, seed)
    session = open_session(model, device=device)
    chosen = checked_layers(session.manifest, parse_layers(layers))
    check_concat(chosen, concat)
    output.mkdir(parents=True, exist_ok=True)
    check_writable([str(output / name) for name in (_PROBE, _CURVE, _PLOT, _REPORT)], force=force)
    broken: list[str] = []
    leave_out = leaving_out(broken) if skip_broken else None
    stores = {
        name: _embedded(session, part, output / f"features-{name}", chosen, protocol, force, leave_out)
        for name, part in parts.parts.items()
    }
    labels = {name: part.labels[stores[name].indices] for name, part in parts.parts.items()}
    check_classes(labels[TRAIN], parts.label_names)  # some of which may have had broken pictures only
    with token_progress("fitting", len(chosen) + (concat > 1), "layers") as progress:
        fits = fit_layers(
            stores[TRAIN].values(), labels[TRAIN], stores[VALIDATION].values(), labels[VALIDATION],
            len(parts.label_names), chosen, concat, progress,
        )  # fmt: skip
    best = best_of(fits)
    source = session.manifest.source["sha256"]
    found = Probe(parts.label_names, best.layers, protocol, session.manifest.name, source, best.linear)
    record: dict[str, Any] = {
        "probe": str(output / _PROBE), "model": session.manifest.name, "protocol": protocol,
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


def _write_fits(output: Path, probe: "Probe", fits: "list[Fit]", record: dict[str, Any]) -> None:
    """Write the probe, the accuracies by layer and the report."""
    from igpt_export.probe.fit import save_probe
    from igpt_export.probe.plot import plot_curve
    from igpt_runtime.files import atomic_path, atomic_write, csv_table

    with atomic_path(output / _PROBE) as temporary:
        save_probe(temporary, probe)
    with atomic_path(output / _PLOT) as temporary:
        plot_curve(temporary, fits, f"Linear probes of {probe.model}, {probe.protocol} protocol")
    rows = [{**row, "layers": " ".join(map(str, row["layers"]))} for row in record["layers"]]
    atomic_write(output / _CURVE, csv_table(rows))
    atomic_write(output / _REPORT, (json.dumps(record, indent=1) + "\n").encode())


def _embedded(
    session: "Session", part: "Part", directory: Path, layers: Sequence[int], protocol: str, force: bool,
    broken: Callable[[str], None] | None,
) -> "FeatureStore":  # fmt: skip
    """The features of some pictures, of which those that are in `directory` are not computed again."""
    from igpt_runtime.tasks.feature_store import FeatureStore, feature_request

    request = feature_request(session, part.identities, layers=layers, protocol=protocol)
    store = FeatureStore(directory, request, restart=force)
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


@probe.command("export", cls=Command)
@click.argument("probe_file", metavar="PROBE", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Bundle directory.  [default: MODEL-probe]")
@model_option
@force_option
@json_option
def export_command(probe_file: Path, output: Path | None, model: str | None, force: bool, as_json: bool) -> None:
    """Write the bundle anew with PROBE, a probe.npz or the directory it is in, as its classifier.

    The bundle may be of another precision than the one the probe was fitted on, but must be of the same checkpoint.
    """
    from igpt_runtime.bundle.bundle import open_bundle

    with _needing("probe"):
        from igpt_export.probe.fit import load_probe
    with _needing("export"):
        from igpt_export.probe.bake import bake_probe

    bundle = open_bundle(model)
    target = output or Path(f"{bundle.path}-probe" if model else f"{bundle.manifest.name}-probe")
    with stages("exporting") as stage:
        found = load_probe(_probe_path(probe_file))
        made = bake_probe(bundle, found, target, force=force, stage=stage, count=stage.count)
    assert made.classifier is not None
    record = {"output": str(target), "labels": list(made.classifier.labels), "layers": list(made.classifier.layers)}
    print_result(str(target), record, as_json)


def _probe_path(path: Path) -> Path:
    return path / _PROBE if path.is_dir() else path


@probe.command("eval", cls=Command)
@click.argument("data")
@click.option(
    "--probe", "probe_file", type=click.Path(path_type=Path), help="A probe.npz.  [default: MODEL's classifier]"
)
@click.option(
    "--split", type=click.Choice(["all", "train", "validation", "test"]), default="all", show_default=True,
    help="The part of DATA to measure on.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Confusion matrix to write: .csv or .png.")
@skip_broken_option
@model_options
@force_option
@json_option
def evaluate(
    data: str, probe_file: Path | None, split: str, output: Path | None, skip_broken: bool, model: str | None,
    device: str, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure a classifier on DATA: its accuracy, and which classes it takes for which."""
    from igpt_runtime.engine.session import open_session
    from igpt_runtime.files import atomic_path, atomic_write, check_writable, csv_table

    with _needing("probe"):
        import numpy as np

        from igpt_export.probe.data import load_data
        from igpt_export.probe.evaluate import confusion, predict
        from igpt_export.probe.fit import check_origin, load_probe, standard_error
        from igpt_export.probe.plot import plot_confusion

    if output is not None:
        if output.suffix not in (".csv", ".png"):
            raise OptionError(
                f"a confusion matrix is written as .csv or .png; give -o such a name, not {str(output)!r}"
            )
        check_writable([str(output)], force=force)
    found = load_data(data)
    session = open_session(model, device=device)
    loaded = None if probe_file is None else load_probe(_probe_path(probe_file))
    if loaded is not None:
        check_origin(loaded, session.bundle)
        labels = loaded.label_names
    elif session.manifest.classifier is not None:
        labels = session.manifest.classifier.labels
    else:
        raise BundleError(
            f"{session.bundle.path} has no classifier; give a --probe, or fit one with `igpt-run probe fit`"
        )
    if split != "all" and split not in found.parts:
        raise OptionError(f"{data} has no part for {split}; it has {', '.join(found.parts)}")
    parts = list(found.parts.values()) if split == "all" else [found.parts[split]]
    unknown = sorted({found.label_names[i] for part in parts for i in part.labels} - set(labels))
    if unknown:
        raise OptionError(f"the classifier does not know the class {unknown[0]!r}; it knows {', '.join(labels)}")
    named, true = [], []
    broken: list[str] = []
    leave_out = leaving_out(broken) if skip_broken else None
    with token_progress("classifying", sum(len(part.labels) for part in parts), "images") as progress:
        for part in parts:
            rows, predicted = predict(session, part.pictures, loaded, leave_out, progress)
            named += [labels[i] for i in predicted]
            true += [found.label_names[i] for i in part.labels[rows]]
    counts = confusion(true, named, labels)
    right = int(np.trace(counts))
    accuracy, error = right / len(true), standard_error(right / len(true), len(true))
    record = {"accuracy": accuracy, "standard_error": error, "pictures": len(true), "labels": list(labels),
              "confusion": counts.tolist(), "skipped": broken}  # fmt: skip
    if output is not None and output.suffix == ".csv":
        table = [
            {"is": name, **dict(zip(labels, row, strict=True))}
            for name, row in zip(labels, counts.tolist(), strict=True)
        ]
        atomic_write(output, csv_table(table))
    elif output is not None:
        with atomic_path(output) as temporary:
            plot_confusion(temporary, counts, labels, f"{session.manifest.name}: {accuracy:.1%} of {len(true):,} right")
    summary = f"accuracy {accuracy:.2%} +- {error:.2%} ({right:,} of {len(true):,})"
    lines = [summary, *_confusions(counts.tolist(), labels), *([str(output)] if output else [])]
    print_result("\n".join(lines), record, as_json)
    if broken:
        sys.exit(SOME_BROKEN)


def _confusions(counts: list[list[int]], labels: Sequence[str]) -> list[str]:
    """For each class that there is, how many were right and what the others were taken for."""
    lines = []
    for i, row in enumerate(counts):
        others = sorted(((count, labels[j]) for j, count in enumerate(row) if count and j != i), reverse=True)
        taken = ", ".join(f"{name} {count}" for count, name in others[:3])
        if sum(row):
            lines.append(f"{labels[i]}: {row[i]} of {sum(row)}" + (f"; taken for {taken}" if taken else ""))
    return lines
