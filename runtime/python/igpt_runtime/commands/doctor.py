"""`igpt-run doctor`: what works here, what does not, and what to do about it."""

import contextlib
import importlib.util
import sys
from contextlib import AbstractContextManager

import click

from igpt_runtime.commands.options import ModelOptions, json_option, model_options
from igpt_runtime.console import Command, print_result, progress_option, stages
from igpt_runtime.progress import SILENT, Progress


@click.command(cls=Command)
@model_options
@progress_option
@json_option
def doctor(model: ModelOptions, as_json: bool) -> None:
    """Find out what works here, and what to do about the rest.

    Looks at Python, the packages, ONNX Runtime's providers, the processor, memory, telemetry, and checks a bundle: its
    files against their hashes, its graphs, and two tokens drawn. The exit status is 1 if something is broken.
    """
    from igpt_runtime.doctor.examination import examine
    from igpt_runtime.doctor.report import as_record, as_text, is_ok

    with _progress() as progress:
        findings = examine(
            model.name, device=model.device, threads_asked=model.threads, sha256=model.sha256, progress=progress
        )
    print_result(as_text(findings), as_record(findings), as_json)
    if not is_ok(findings):
        sys.exit(1)


def _progress() -> AbstractContextManager[Progress]:
    """What shows progress, which takes the package rich on a terminal."""
    return stages("checking") if importlib.util.find_spec("rich") is not None else contextlib.nullcontext(SILENT)
