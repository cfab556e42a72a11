"""`igpt-run complete`: keeps the top of pictures and draws the rest."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from igpt_runtime.commands.drawing import DrawingTarget, drawing_options, report, settings
from igpt_runtime.commands.likeness import record_of, tell_unlike
from igpt_runtime.commands.options import (
    ModelOptions,
    Reading,
    check_stdout,
    json_option,
    model_options,
    reading_options,
    sampling_options,
)
from igpt_runtime.console import Command, counted, progress_option
from igpt_runtime.errors import ImageError, OptionError

if TYPE_CHECKING:
    from PIL import Image

    from igpt_runtime.engine.generate import GenerationOptions
    from igpt_runtime.engine.session import Session


@click.command(cls=Command)
@reading_options
@click.option(
    "--keep",
    default="top-half",
    show_default=True,
    help="The part that is given: rows (8), a fraction of the height (25%, 0.25), or top-half.",
)
@sampling_options(n=8)
@drawing_options(
    click.option(
        "-o",
        "--output",
        type=click.Path(allow_dash=True),
        help="Contact sheet, if a single picture is given; - for stdout.",
    ),
    click.option(
        "--output-dir",
        type=click.Path(),
        default=".",
        show_default=True,
        help="Directory of the contact sheets, NAME-completed.png each.",
    ),
)
@model_options
@progress_option
@json_option
def complete(
    reading: Reading, keep: str, sampling: "GenerationOptions", target: DrawingTarget, model: ModelOptions,
    as_json: bool,
) -> None:  # fmt: skip
    """Keep the top of each of IMAGES and draw the rest, n times.

    IMAGES are files, directories (all pictures below them), or - for standard input. Each gets a contact sheet.
    """
    from igpt_runtime.tasks.complete import complete, rows_to_keep
    from igpt_runtime.tasks.picture_output import name_outputs, plan_outputs, write_pictures

    session = model.open()
    form = session.manifest.image_format
    given = rows_to_keep(keep, form.height)

    def outputs(names: list[str]) -> list[list[str]]:
        return [name_outputs(sheet, sampling.n, target.options).paths for sheet in _sheets(names, target)]

    reading.begin(outputs)
    check_stdout(target.output, as_json=as_json)
    planned = plan_outputs(_sheets(reading.names, target), sampling.n, target.options)
    pictures = _read(reading, session)
    each = sampling.n * (form.height - given) * form.width
    start = time.perf_counter()
    records: list[dict[str, Any]] = []
    likenesses = []
    with counted("completing", each * len(pictures)) as progress:
        for index, picture in pictures.items():
            result = complete(session, picture, sampling, keep=keep, progress=progress)
            files = write_pictures(session, result, planned[index], target.options)
            tokens = {"tokens": result.tokens.tolist()} if as_json else {}
            likenesses.append(result.likeness)
            compared = {"likeness": record_of(result.likeness)}
            records.append({"image": reading.names[index], "files": files, **compared, **tokens})
    used = {"kept_rows": given, **settings(session, sampling, each * len(records), time.perf_counter() - start)}
    summary = f"kept {given} of {form.height} rows"
    files = [path for record in records for path in record["files"]]
    report(summary, files, {"images": records, **used, "skipped": reading.broken}, as_json)
    tell_unlike([record["image"] for record in records], likenesses)
    reading.finish()


def _read(reading: Reading, session: "Session") -> "dict[int, Image.Image]":
    """The pictures at the model's size, by their place among those given: a broken one is told before any is drawn.

    Raises ImageError.
    """
    from igpt_runtime.pictures.palette import resize_image
    from igpt_runtime.pictures.reading import as_image

    form, pictures = session.manifest.image_format, {}
    with counted("reading", len(reading.names), "images") as progress:
        for index, picture in enumerate(reading.pictures):
            try:
                image = as_image(picture)
                pictures[index] = resize_image(
                    image, form.height, form.width, crop=reading.crop, resample=form.resample
                )  # fmt: skip
            except ImageError as error:
                if reading.leave_out is None:
                    raise
                reading.leave_out(str(error))
            progress(1)
    if not pictures:
        raise ImageError(f"none of {len(reading.names)} pictures can be read; give at least one that can")
    return pictures


def _sheets(names: list[str], target: DrawingTarget) -> list[str]:
    """The contact sheet of each of some pictures. Raises OptionError."""
    from igpt_runtime.pictures.folder import unique_stems

    if target.output is not None:
        if len(names) > 1:
            raise OptionError(f"-o names one contact sheet, but there are {len(names)} pictures; use --output-dir")
        if target.output_dir != ".":
            raise OptionError("-o and --output-dir both say where the contact sheet goes; give one of them")
        return [target.output]
    if not target.output_dir:
        raise OptionError("--output-dir names no directory; give one, such as .")
    directory = Path(target.output_dir)
    return [str(directory / f"{stem}-completed.png") for stem in unique_stems(names)]
