"""`igpt-run classify`: names what pictures show."""

from typing import Any

import click

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


@click.command(cls=Command)
@reading_options
@target_option("Table to write, with a line for each picture: .csv or .json.")
@model_options
@progress_option
@json_option
def classify(reading: Reading, target: Target, model: ModelOptions, as_json: bool) -> None:
    """Name what each of IMAGES shows, with probabilities. Of a regression, give its values.

    IMAGES are files, directories (all pictures below them), or - for standard input.
    """
    from igpt_runtime.files import table_suffix, write_table
    from igpt_runtime.tasks.classify import class_records, class_results, class_table, classifier_of

    suffix = table_suffix(target.path)
    reading.begin()
    session = model.open()
    classifier = classifier_of(session)
    found = class_results(session, reading.pictures, crop=reading.crop, broken=reading.leave_out)
    target.check(as_json=as_json)
    images, rows = [], []
    with counted("classifying", len(reading.names), "images") as progress:
        for indices, results in found:
            images += [reading.names[i] for i in indices]
            rows += list(results)
            progress(len(indices))
    records = class_records(classifier, images, rows)
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
    reading.finish()


def _ranked(record: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = record["values"] if "values" in record else record["probabilities"]
    return found


def _shown(result: dict[str, Any]) -> str:
    number = f"{result['value']:.6g}" if "value" in result else f"{result['probability']:.1%}"
    return f"{result['label']} {number}"
