"""`igpt-run classify`: names what pictures show."""

from typing import TYPE_CHECKING, Any

import click

from igpt_runtime.commands.likeness import record_of, tell_unlike
from igpt_runtime.commands.options import (
    ModelOptions,
    Reading,
    Target,
    json_option,
    model_options,
    reading_options,
    target_option,
)
from igpt_runtime.console import Command, counted, print_result, progress_option

if TYPE_CHECKING:
    from igpt_runtime.tasks.likeness import Likeness


@click.command(cls=Command)
@reading_options
@target_option("Table to write, with a line for each picture: .csv or .json.")
@click.option(
    "--compare/--no-compare",
    default=True,
    help="Say when a picture is unlike what the model was trained on, if the bundle knows.  [default: compare]",
)
@model_options
@progress_option
@json_option
def classify(reading: Reading, target: Target, compare: bool, model: ModelOptions, as_json: bool) -> None:
    """Name what each of IMAGES shows, with probabilities. Of a regression, give its values.

    IMAGES are files, directories (all pictures below them), or - for standard input.
    """
    from igpt_runtime.files import table_suffix, write_table
    from igpt_runtime.tasks.classify import class_records, class_results, class_table, classifier_of

    suffix = table_suffix(target.path)
    reading.begin()
    session = model.open()
    classifier = classifier_of(session)
    seen: dict[int, Likeness] = {}
    found = class_results(
        session, reading.pictures, crop=reading.crop, broken=reading.leave_out,
        compared=seen.__setitem__ if compare else None,
    )  # fmt: skip
    target.check(as_json=as_json)
    numbers, rows = [], []
    with counted("classifying", len(reading.names), "images") as progress:
        for indices, results in found:
            numbers += indices
            rows += list(results)
            progress(len(indices))
    images, likenesses = [reading.names[i] for i in numbers], [seen.get(i) for i in numbers]
    records = [
        {**of_one, "likeness": record_of(found_of_one)}
        for of_one, found_of_one in zip(class_records(classifier, images, rows), likenesses, strict=True)
    ]
    record = {
        "images": records, "protocol": classifier.protocol, "function_to_apply": classifier.function_to_apply,
        "skipped": reading.broken,
    }  # fmt: skip
    text = "\n".join(f"{row['image']}: {', '.join(map(_shown, _ranked(row)[:3]))}" for row in records)
    if target.path is not None:
        table = class_table(classifier, images, rows) if suffix == ".csv" else record
        write_table(target.path, table, force=target.force)
    if target.path != "-":
        print_result(text, record, as_json)
    tell_unlike(images, likenesses)
    reading.finish()


def _ranked(record: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = record["values"] if "values" in record else record["probabilities"]
    return found


def _shown(result: dict[str, Any]) -> str:
    number = f"{result['value']:.6g}" if "value" in result else f"{result['probability']:.1%}"
    return f"{result['label']} {number}"
