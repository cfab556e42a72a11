"""Commands about bundles and this machine: info, bench and web."""

import contextlib
import sys
from pathlib import Path

import click

from igpt_runtime.commands.options import json_option, model_options
from igpt_runtime.console import Command, print_result


@click.command(cls=Command)
@click.option("-n", default=8, show_default=True, help="Number of completions of one half image.")
@click.option("--rounds", default=3, show_default=True, help="Measure this often and report medians.")
@click.option("--threads", type=int, help="Threads inside one operator.  [default: one per physical core]")
@model_options
@json_option
def bench(n: int, rounds: int, threads: int | None, model: str | None, device: str, as_json: bool) -> None:
    """Time a bundle on this machine, and verify the tokens it draws meanwhile."""
    from dataclasses import asdict

    from igpt_runtime.bench.bench import benchmark
    from igpt_runtime.bench.report import as_text
    from igpt_runtime.console import stages

    with stages("benchmark") as show:
        result = benchmark(model, device=device, threads=threads, n=n, rounds=rounds, show=show)
    print_result(as_text(result), asdict(result), as_json)


@click.command(cls=Command)
@model_options
@json_option
def info(model: str | None, device: str, as_json: bool) -> None:
    """Describe a bundle."""
    from igpt_runtime.engine.session import open_session
    from igpt_runtime.tasks.info import describe

    session = open_session(model, device=device)
    rows, record = describe(session, start=device == "cuda")
    print_result("\n".join(f"{key + ':':12}{value}" for key, value in rows.items()), record, as_json)


@click.command(cls=Command)
@click.option(
    "--model", "models", metavar="DIR", multiple=True, help="Bundle to offer; repeatable.  [default: the embedded demo]"
)
@click.option("--port", default=8000, show_default=True, help="0 takes any free one.")
@click.option("--open/--no-open", "opens", default=True, show_default=True, help="Show the page in the browser.")
@click.option(
    "--onnxruntime-web", type=click.Path(path_type=Path), metavar="DIR",
    help="Directory of that npm package.  [default: installed with npm, once]",
)  # fmt: skip
def web(models: tuple[str, ...], port: int, opens: bool, onnxruntime_web: Path | None) -> None:
    """Serve a page on this machine that completes and classifies pictures in the browser. Ctrl-C ends it."""
    import webbrowser

    from igpt_runtime.bundle.bundle import open_bundle
    from igpt_runtime.web import LOOPBACK, find_onnxruntime_web, server

    bundles = [open_bundle(model) for model in models or (None,)]
    cache = Path(click.get_app_dir("igpt-onnx"))
    files = find_onnxruntime_web(onnxruntime_web, cache, lambda line: click.echo(line, err=True))
    with server(bundles, files, port) as serving:
        address = f"http://{LOOPBACK}:{serving.server_port}/"
        click.echo(address)
        sys.stdout.flush()
        if opens:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):
            serving.serve_forever()
