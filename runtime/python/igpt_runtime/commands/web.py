"""`igpt-run web`: serves the page that runs bundles in the browser."""

import contextlib
import os
from pathlib import Path

import click

from igpt_runtime.console import Command


@click.command(cls=Command)
@click.option(
    "--model",
    "models",
    type=click.Path(),
    metavar="DIR|NAME|OWNER/NAME",
    multiple=True,
    help="Bundle to offer; repeatable.  [env var: IGPT_MODEL; default: the embedded demo]",
)
@click.option("--port", default=8000, show_default=True, help="0 takes any free one.")
@click.option("--open/--no-open", "opens", default=True, show_default=True, help="Show the page in the browser.")
@click.option(
    "--onnxruntime-web", type=click.Path(path_type=Path), metavar="DIR",
    help="Directory of the npm package onnxruntime-web.  [default: installed with npm on first use]",
)  # fmt: skip
def web(models: tuple[str, ...], port: int, opens: bool, onnxruntime_web: Path | None) -> None:
    """Serve a page on this machine that completes and classifies pictures in the browser. Ctrl-C ends it.

    It prints the page's address and serves until it is ended, so it is the one command without --json.
    """
    import webbrowser

    from igpt_runtime.bundle.bundle import open_bundle
    from igpt_runtime.web.onnxruntime_web import find_onnxruntime_web, javascript_path
    from igpt_runtime.web.server import LOOPBACK, Server
    from igpt_runtime.web.site import Site

    bundles = [open_bundle(model) for model in models or (os.environ.get("IGPT_MODEL") or None,)]
    cache = Path(click.get_app_dir("igpt-onnx"))
    files = find_onnxruntime_web(onnxruntime_web, cache, lambda line: click.echo(line, err=True))
    with Server(Site(bundles, javascript_path(), files), port) as serving, contextlib.suppress(KeyboardInterrupt):
        address = f"http://{LOOPBACK}:{serving.port}/"
        click.echo(address)  # at once, also into a pipe
        if opens:
            webbrowser.open(address)
        serving.serve()
