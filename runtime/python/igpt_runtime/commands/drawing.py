"""Commands that draw pictures: complete and sample."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from igpt_runtime.commands.options import (
    check_stdout,
    crop_option,
    drawing_options,
    force_option,
    json_option,
    model_options,
    picture_of,
    sampling_options,
)
from igpt_runtime.console import Command, print_result, token_progress

if TYPE_CHECKING:
    from igpt_runtime.engine.generate import GenerationOptions
    from igpt_runtime.engine.session import Session
    from igpt_runtime.tasks.complete import Completion


@click.command(cls=Command)
@click.argument("image")
@click.option("--keep", default="top-half", show_default=True, help="top-half, a fraction (0.25, 25%), or rows (8).")
@click.option("-n", default=8, show_default=True, help="Number of completions.")
@sampling_options
@crop_option
@click.option("-o", "--output", help="Contact sheet to write; - for stdout.  [default: NAME-completed.png]")
@drawing_options
@model_options
@force_option
@json_option
def complete(
    image: str, keep: str, n: int, seed: int, temperature: float, top_k: int, top_p: float, crop: bool,
    output: str | None, separate: bool, gif: bool, scale: int | None, model: str | None, device: str,
    force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Keep the top of IMAGE and draw the rest, n times."""
    from igpt_runtime.engine.generate import GenerationOptions
    from igpt_runtime.engine.session import open_session
    from igpt_runtime.tasks.complete import complete, rows_to_keep
    from igpt_runtime.tasks.picture_files import plan_outputs, write_pictures

    options = GenerationOptions(n, seed, temperature, top_k, top_p)
    stem = "stdin" if image == "-" else Path(image).stem
    target = output or f"{stem}-completed.png"
    check_stdout(target, as_json)
    out = plan_outputs(target, n, separate=separate, gif=gif, scale=scale, force=force)
    session = open_session(model, device=device)
    config, form = session.manifest.config, session.manifest.image_format
    total = n * (config.n_positions - rows_to_keep(keep, form.height) * form.width)
    with token_progress("completing", total) as progress:
        start = time.perf_counter()
        result = complete(session, picture_of(image), options, keep=keep, crop=crop, progress=progress)
        seconds = time.perf_counter() - start
    _report(session, result, options, write_pictures(session, result, out), seconds, as_json)


@click.command(cls=Command)
@click.option("-n", default=16, show_default=True, help="Number of pictures.")
@sampling_options
@click.option("-o", "--output", default="samples.png", show_default=True, help="Contact sheet to write; - for stdout.")
@drawing_options
@model_options
@force_option
@json_option
def sample(
    n: int, seed: int, temperature: float, top_k: int, top_p: float, output: str, separate: bool, gif: bool,
    scale: int | None, model: str | None, device: str, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Draw n pictures from nothing."""
    from igpt_runtime.engine.generate import GenerationOptions
    from igpt_runtime.engine.session import open_session
    from igpt_runtime.tasks.complete import sample
    from igpt_runtime.tasks.picture_files import plan_outputs, write_pictures

    options = GenerationOptions(n, seed, temperature, top_k, top_p)
    check_stdout(output, as_json)
    out = plan_outputs(output, n, separate=separate, gif=gif, scale=scale, force=force)
    session = open_session(model, device=device)
    total = n * session.manifest.config.n_positions
    with token_progress("sampling", total) as progress:
        start = time.perf_counter()
        result = sample(session, options, progress=progress)
        seconds = time.perf_counter() - start
    _report(session, result, options, write_pictures(session, result, out), seconds, as_json)


def _report(
    session: "Session", result: "Completion", options: "GenerationOptions", written: list[str], seconds: float,
    as_json: bool,
) -> None:  # fmt: skip
    """Print what was drawn and where it is; a picture on stdout leaves no room for either there."""
    n, n_positions = result.tokens.shape
    drawn = n * (n_positions - result.kept_rows * session.manifest.image_format.width)
    rate = drawn / seconds
    summary = f"{n} pictures in {seconds:.2f} s, {rate:,.0f} tokens/s, seed {options.seed}, {session.provider}"
    click.echo(summary, err=True)
    record = {
        "files": written, "n": n, "seed": options.seed, "kept_rows": result.kept_rows, "seconds": seconds,
        "tokens_per_second": rate, "provider": session.provider, "tokens": result.tokens.tolist(),
    }  # fmt: skip
    if written:
        print_result("\n".join(written), record, as_json)
