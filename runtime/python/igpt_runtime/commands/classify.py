"""`igpt-run classify`: names what pictures show."""

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
    """Name what each of IMAGES shows, with probabilities.

    IMAGES are files, directories (all pictures below them), or - for standard input.
    """
    from igpt_runtime.files import table_suffix, write_table
    from igpt_runtime.tasks.classify import class_probabilities, class_records, class_table

    suffix = table_suffix(target.path)
    session = model.open()
    found = class_probabilities(session, reading.pictures, crop=reading.crop, broken=reading.leave_out)
    target.check(as_json=as_json)
    images, rows = [], []
    with counted("classifying", len(reading.names), "images") as progress:
        for indices, probabilities in found:
            images += [reading.names[i] for i in indices]
            rows += list(probabilities)
            progress(len(indices))
    classifier = session.manifest.classifier
    assert classifier is not None  # else there were no probabilities
    records = class_records(classifier.labels, images, rows)
    record = {"images": records, "protocol": classifier.protocol, "skipped": reading.broken}
    text = "\n".join(
        f"{row['image']}: "
        + ", ".join(f"{label['label']} {label['probability']:.1%}" for label in row["probabilities"][:3])
        for row in records
    )
    if target.path is not None:
        table = class_table(classifier.labels, images, rows) if suffix == ".csv" else record
        write_table(target.path, table)
    if target.path != "-":
        print_result(text, record, as_json)
    reading.finish()
