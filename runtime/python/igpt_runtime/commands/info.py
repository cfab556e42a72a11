"""`igpt-run info`: describes a bundle."""

import click

from igpt_runtime.commands.options import ModelOptions, json_option, model_options
from igpt_runtime.console import Command, print_result


@click.command(cls=Command)
@model_options
@json_option
def info(model: ModelOptions, as_json: bool) -> None:
    """Describe a bundle: what it is, what it can do, and what its precision costs."""
    from igpt_runtime.tasks.info import describe

    rows, record = describe(model.open(), start=model.device == "cuda")
    print_result("\n".join(f"{key + ':':12}{value}" for key, value in rows.items()), record, as_json)
