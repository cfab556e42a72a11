"""`igpt-run probe eval`: measures a classifier."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from igpt_export.probe.commands.shared import needing, probe_path
from igpt_runtime.commands.options import (
    SOME_BROKEN,
    ModelOptions,
    Target,
    gathered,
    json_option,
    leaving_out,
    model_options,
    skip_broken_option,
    target_option,
)
from igpt_runtime.console import Command, counted, print_result, progress_option
from igpt_runtime.errors import BundleError, OptionError


@dataclass(frozen=True)
class Question:
    """What is measured: a classifier on a part of the data."""

    data: str
    probe_file: Path | None
    split: str


@click.command("eval", cls=Command)
@gathered(
    "asked",
    Question,
    click.argument("data"),
    click.option(
        "--probe", "probe_file", type=click.Path(path_type=Path), help="A probe.npz.  [default: MODEL's classifier]"
    ),
    click.option(
        "--split",
        type=click.Choice(["all", "train", "validation", "test"]),
        default="all",
        show_default=True,
        help="Part of DATA to measure on; validation is DATA's val.",
    ),
)
@target_option("Confusion matrix to write: .csv or .png.")
@skip_broken_option
@model_options
@progress_option
@json_option
def evaluate(
    asked: Question, target: Target, skip_broken: bool, model: ModelOptions, as_json: bool
) -> None:  # fmt: skip
    """Measure a classifier on DATA, in one of the forms that `probe fit` takes.

    It prints the accuracy, and for each class which other classes its pictures were taken for.
    """
    from igpt_runtime.files import atomic_path, atomic_write, csv_table

    with needing("probe"):
        import numpy as np

        from igpt_export.probe.data import load_data
        from igpt_export.probe.evaluate import confusion, predict
        from igpt_export.probe.fit import check_origin, load_probe, standard_error
        from igpt_export.probe.plot import plot_confusion

    output = None if target.path is None else Path(target.path)
    if output is not None and output.suffix not in (".csv", ".png"):
        raise OptionError(f"a confusion matrix is written as .csv or .png; give -o such a name, not {str(output)!r}")
    data, split = asked.data, asked.split
    found = load_data(data)
    session = model.open()
    loaded = None if asked.probe_file is None else load_probe(probe_path(asked.probe_file))
    if loaded is not None:
        check_origin(loaded, session.bundle)
        labels = loaded.label_names
    elif session.manifest.classifier is not None:
        labels = session.manifest.classifier.labels
        if session.manifest.classifier.function_to_apply == "none":
            raise BundleError(
                f"the head of {session.bundle.path} is a regression, which names no class; give a --probe"
            )
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
    target.check(as_json=as_json)
    named, true = [], []
    broken: list[str] = []
    leave_out = leaving_out(broken) if skip_broken else None
    with counted("classifying", sum(len(part.labels) for part in parts), "images") as progress:
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
            {"true": name, **{f"{i} {label}": count for i, (label, count) in enumerate(zip(labels, row, strict=True))}}
            for name, row in zip(labels, counts.tolist(), strict=True)
        ]  # numbered, since a class may be called like another column
        atomic_write(output, csv_table(table), force=target.force)
    elif output is not None:
        with atomic_path(output, force=target.force) as temporary:
            plot_confusion(temporary, counts, labels, session.manifest.name)
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
