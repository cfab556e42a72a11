"""`igpt-run score`: what pictures cost the model."""

from pathlib import Path
from typing import Any

import click

from igpt_runtime.commands.likeness import record_of, tell_unlike
from igpt_runtime.commands.options import (
    ModelOptions,
    Reading,
    Target,
    json_option,
    model_options,
    protocol_option,
    reading_options,
    target_option,
)
from igpt_runtime.console import Command, counted, print_result, progress_option
from igpt_runtime.errors import OptionError

_LISTED = 20  # scores that are shown one by one


@click.command(cls=Command)
@reading_options
@target_option("Table to write, with a line for each picture: .csv, or .json with the summary.")
@click.option(
    "--maps", type=click.Path(), metavar="DIR", help="Write a heat map of each picture there, NAME-surprise.png."
)
@protocol_option
@model_options
@progress_option
@json_option
def score(
    reading: Reading, target: Target, maps: str | None, protocol: str, model: ModelOptions, as_json: bool
) -> None:  # fmt: skip
    """Nats per token and bits per pixel of IMAGES, and their mean with its standard error.

    IMAGES are files, directories (all pictures below them), or - for standard input. A score is minus the
    log-likelihood of all pixels. Published figures are of the paper's protocol.
    """
    from igpt_runtime.files import check_writable, table_suffix, write_table
    from igpt_runtime.pictures.contact_sheet import save_image
    from igpt_runtime.pictures.folder import unique_stems
    from igpt_runtime.tasks.likeness import likeness
    from igpt_runtime.tasks.score import map_of, records, score, summary

    suffix = table_suffix(target.path)
    if maps == "":
        raise OptionError("--maps names no directory; give one, such as .")

    def planned(names: list[str]) -> list[list[str]]:
        stems = unique_stems(names)
        return [[] if maps is None else [str(Path(maps) / f"{stem}-surprise.png")] for stem in stems]

    reading.begin(planned)
    session = model.open()
    files = [path for paths in planned(reading.names) for path in paths]
    scores = score(
        session, reading.pictures, protocol=protocol, crop=reading.crop, broken=reading.leave_out
    )  # fmt: skip
    target.check(as_json=as_json)
    check_writable(files, force=target.force)
    nats, read, written, likenesses = [], [], [], []
    with counted("scoring", len(reading.names), "images") as progress:
        for scored in scores:
            nats.append(scored.nats_per_token)
            likenesses.append(likeness(session.manifest, scored.nats))
            read.append(reading.names[scored.index])
            if files:
                title = "standard input" if read[-1] == "-" else Path(read[-1]).name
                save_image(map_of(session, scored, title), files[scored.index], force=target.force)
                written.append(files[scored.index])
            progress(1)
    rows = records(read, nats)
    compared = [{**row, "likeness": record_of(found)} for row, found in zip(rows, likenesses, strict=True)]
    record = {
        **summary(nats), "images": compared, "protocol": protocol, "skipped": reading.broken, "maps": written,
    }  # fmt: skip
    if target.path is not None:
        write_table(target.path, rows if suffix == ".csv" else record, force=target.force)
    if target.path != "-":
        print_result(_text(record), record, as_json)
    tell_unlike(read, likenesses)
    reading.finish()


def _text(record: dict[str, Any]) -> str:
    """Scores for people: a line a picture, if they are few, and the mean."""
    lines = []
    if len(record["images"]) <= _LISTED:
        lines = [f"{row['image']}: {row['nats_per_token']:.4f} nats per token" for row in record["images"]]
    error = record["standard_error_nats"]
    spread = "" if error is None else f" +- {error:.4f}"
    mean = f"mean of {record['pictures']}: {record['nats_per_token']:.4f}{spread} nats per token"
    lines.append(f"{mean}, {record['bits_per_pixel']:.4f} bits per pixel")
    if record["skipped"]:
        lines.append(f"skipped: {len(record['skipped'])} that cannot be read")
    return "\n".join([*lines, *record["maps"]])
