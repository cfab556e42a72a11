"""`igpt-run sample`: draws pictures from nothing."""

import time
from typing import TYPE_CHECKING

import click

from igpt_runtime.commands.drawing import DrawingTarget, drawing_options, report, settings
from igpt_runtime.commands.options import ModelOptions, check_stdout, json_option, model_options, sampling_options
from igpt_runtime.console import Command, counted, progress_option

if TYPE_CHECKING:
    from igpt_runtime.engine.generate import GenerationOptions


@click.command(cls=Command)
@sampling_options(n=16)
@drawing_options(
    click.option(
        "-o",
        "--output",
        type=click.Path(allow_dash=True),
        default="samples.png",
        show_default=True,
        help="Contact sheet; - for stdout.",
    )
)
@model_options
@progress_option
@json_option
def sample(sampling: "GenerationOptions", target: DrawingTarget, model: ModelOptions, as_json: bool) -> None:
    """Draw n pictures from nothing."""
    from igpt_runtime.tasks.picture_output import plan_outputs, write_pictures
    from igpt_runtime.tasks.sample import sample

    check_stdout(target.output, as_json=as_json)
    session = model.open()
    (outputs,) = plan_outputs([str(target.output)], sampling.n, target.options)
    total = sampling.n * session.manifest.config.n_positions
    start = time.perf_counter()
    with counted("sampling", total) as progress:
        result = sample(session, sampling, progress=progress)
    seconds = time.perf_counter() - start
    files = write_pictures(session, result, outputs, target.options)
    record = {
        "files": files,
        "kept_rows": 0,
        "tokens": result.tokens.tolist(),
        **settings(session, sampling, total, seconds),
    }
    report("from nothing", files, record, as_json)
