"""`igpt-run bench`: times a bundle on this machine."""

import click

from igpt_runtime.commands.options import ModelOptions, json_option, model_options
from igpt_runtime.console import Command, print_result, progress_option


@click.command(cls=Command)
@click.option("-n", default=8, show_default=True, help="How many completions of one half picture to draw.")
@click.option("--rounds", default=3, show_default=True, help="Measure this often and report medians.")
@model_options
@progress_option
@json_option
def bench(n: int, rounds: int, model: ModelOptions, as_json: bool) -> None:
    """Time a bundle on this machine, and verify the tokens it draws meanwhile."""
    from dataclasses import asdict

    from igpt_runtime.bench.bench import benchmark
    from igpt_runtime.bench.fresh_process import Where
    from igpt_runtime.bench.report import as_text
    from igpt_runtime.bundle.bundle import open_bundle
    from igpt_runtime.console import stages

    bundle = open_bundle(model.name, sha256=model.sha256)
    with stages("benchmark") as progress:
        where = Where(model.device, model.threads, model.spin)
        result = benchmark(bundle.path, where, n=n, rounds=rounds, progress=progress)
    print_result(as_text(result), asdict(result), as_json)
