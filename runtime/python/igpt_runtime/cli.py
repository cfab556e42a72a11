"""The `igpt-run` command: parses, calls the library, prints."""

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from igpt_runtime.console import Command, Group, print_result, token_progress
from igpt_runtime.errors import OptionError

if TYPE_CHECKING:
    from igpt_runtime.complete import Completion, Picture
    from igpt_runtime.generate import GenerationOptions
    from igpt_runtime.session import Session

_LISTED = 20  # scores that are shown one by one

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="igpt-onnx")
def main() -> None:
    """Complete, sample, classify, embed and score pictures with an ImageGPT bundle on ONNX Runtime.

    Without --model, commands use the embedded demo model of handwritten digits. Pictures are PNG, JPEG, WebP, GIF or
    BMP files, or - for standard input.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters in a picture file is an error here


def _options(*decorators: Decorator) -> Decorator:
    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


_json = click.option("as_json", "--json", is_flag=True, help="Print the result as JSON.")
_force = click.option("--force", is_flag=True, help="Overwrite existing output files.")
_crop = click.option("--crop", is_flag=True, help="Resize the short side and cut the centre, instead of squashing.")
_model = _options(
    click.option("--model", metavar="DIR", help="Bundle directory.  [default: the embedded demo]"),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
)
_sampling = _options(
    click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same pictures."),
    click.option("--temperature", type=float, default=1.0, show_default=True, help="0 takes the likeliest token."),
    click.option("--top-k", type=int, default=0, show_default=True, help="Only the k likeliest tokens; 0 is off."),
    click.option(
        "--top-p", type=float, default=1.0, show_default=True, help="Only the likeliest tokens up to this sum."
    ),
)
_drawing = _options(
    click.option("--separate", is_flag=True, help="Also write each picture to a file of its own, OUT-1.png ..."),
    click.option("--gif", is_flag=True, help="Also write an animation of the drawing, OUT.gif."),
    click.option("--scale", type=int, help="Enlarge every pixel this many times.  [default: about 128 px a picture]"),
)


@main.command(cls=Command)
@click.argument("image")
@click.option("--keep", default="top-half", show_default=True, help="top-half, a fraction (0.25, 25%), or rows (8).")
@click.option("-n", default=8, show_default=True, help="Number of completions.")
@_sampling
@_crop
@click.option("-o", "--output", help="Contact sheet to write; - for stdout.  [default: NAME-completed.png]")
@_drawing
@_model
@_force
@_json
def complete(
    image: str, keep: str, n: int, seed: int, temperature: float, top_k: int, top_p: float, crop: bool,
    output: str | None, separate: bool, gif: bool, scale: int | None, model: str | None, device: str,
    force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Keep the top of IMAGE and draw the rest, n times."""
    from igpt_runtime.complete import complete, rows_to_keep
    from igpt_runtime.drawing import plan_outputs, write_pictures
    from igpt_runtime.generate import GenerationOptions
    from igpt_runtime.session import open_session

    options = GenerationOptions(n, seed, temperature, top_k, top_p)
    stem = "stdin" if image == "-" else Path(image).stem
    target = output or f"{stem}-completed.png"
    _check_stdout(target, as_json)
    out = plan_outputs(target, n, separate=separate, gif=gif, scale=scale, force=force)
    session = open_session(model, device=device)
    config, form = session.manifest.config, session.manifest.image_format
    total = n * (config.n_positions - rows_to_keep(keep, form.height) * form.width)
    with token_progress("completing", total) as progress:
        start = time.perf_counter()
        result = complete(session, _picture(image), options, keep=keep, crop=crop, progress=progress)
        seconds = time.perf_counter() - start
    _report(session, result, options, write_pictures(session, result, out), seconds, as_json)


@main.command(cls=Command)
@click.option("-n", default=16, show_default=True, help="Number of pictures.")
@_sampling
@click.option("-o", "--output", default="samples.png", show_default=True, help="Contact sheet to write; - for stdout.")
@_drawing
@_model
@_force
@_json
def sample(
    n: int, seed: int, temperature: float, top_k: int, top_p: float, output: str, separate: bool, gif: bool,
    scale: int | None, model: str | None, device: str, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Draw n pictures from nothing."""
    from igpt_runtime.complete import sample
    from igpt_runtime.drawing import plan_outputs, write_pictures
    from igpt_runtime.generate import GenerationOptions
    from igpt_runtime.session import open_session

    options = GenerationOptions(n, seed, temperature, top_k, top_p)
    _check_stdout(output, as_json)
    out = plan_outputs(output, n, separate=separate, gif=gif, scale=scale, force=force)
    session = open_session(model, device=device)
    total = n * session.manifest.config.n_positions
    with token_progress("sampling", total) as progress:
        start = time.perf_counter()
        result = sample(session, options, progress=progress)
        seconds = time.perf_counter() - start
    _report(session, result, options, write_pictures(session, result, out), seconds, as_json)


@main.command(cls=Command)
@click.argument("images", nargs=-1, required=True)
@_crop
@_model
@_json
def classify(images: tuple[str, ...], crop: bool, model: str | None, device: str, as_json: bool) -> None:
    """Name what each of IMAGES shows, with probabilities."""
    from igpt_runtime.features import classify
    from igpt_runtime.session import open_session

    session = open_session(model, device=device)
    probabilities = classify(session, _pictures(images), crop=crop)
    assert session.manifest.classifier is not None
    labels = session.manifest.classifier.labels
    records = []
    lines = []
    for image, row in zip(images, probabilities, strict=True):
        order = row.argsort()[::-1]
        records.append(
            {
                "image": image,
                "label": labels[order[0]],
                "probabilities": dict(zip(labels, map(float, row), strict=True)),
            }
        )
        lines.append(f"{image}: " + ", ".join(f"{labels[i]} {row[i]:.1%}" for i in order[:3]))
    print_result("\n".join(lines), records, as_json)


@main.command(cls=Command)
@click.argument("images", nargs=-1, required=True)
@click.option("-o", "--output", required=True, help="NumPy .npz file to write; - for stdout.")
@click.option(
    "--layer", "layers", type=int, multiple=True, help="Layer to keep, 0..n_layer; repeatable.  [default: all]"
)
@_crop
@_model
@_force
@_json
def features(
    images: tuple[str, ...], output: str, layers: tuple[int, ...], crop: bool, model: str | None, device: str,
    force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write the mean-pooled hidden states of IMAGES: `features` [images, layers, n_embd], `layers` and `images`."""
    import numpy as np

    from igpt_runtime.features import features
    from igpt_runtime.files import check_writable, write_output
    from igpt_runtime.session import open_session

    _check_stdout(output, as_json)
    check_writable([output], force=force)
    session = open_session(model, device=device)
    n_layer = session.manifest.config.n_layer
    kept = layers or tuple(range(n_layer + 1))
    if not all(0 <= layer <= n_layer for layer in kept):
        raise OptionError(f"layer must be 0 .. {n_layer} for this bundle, got {', '.join(map(str, kept))}")
    values = features(session, _pictures(images), crop=crop)[:, list(kept)]
    buffer = BytesIO()
    np.savez(buffer, features=values, layers=np.array(kept), images=np.array(images))
    write_output(output, buffer.getvalue())
    record = {"output": output, "images": len(images), "layers": list(kept), "n_embd": values.shape[2]}
    if output != "-":
        print_result(output, record, as_json)


@main.command(cls=Command)
@click.argument("images", nargs=-1, required=True)
@click.option("-o", "--output", help="Table to write, a line a picture: .csv, or .json with the summary.")
@click.option("--map", "maps", metavar="DIR", help="Write a heat map of each picture there, NAME-surprise.png.")
@click.option("--squash", is_flag=True, help="Resize both sides, instead of the short one and cutting the centre.")
@click.option("--skip-broken", is_flag=True, help="Leave out pictures that cannot be read; the exit status is then 3.")
@_model
@_force
@_json
def score(
    images: tuple[str, ...], output: str | None, maps: str | None, squash: bool, skip_broken: bool,
    model: str | None, device: str, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Nats a token and bits a pixel of IMAGES, which may be directories, and their mean with its standard error.

    The paper's protocol: minus the log-likelihood of all pixels behind sos, of pictures cut square.
    """
    from igpt_runtime.files import atomic_write, check_writable
    from igpt_runtime.folder import find_pictures, readable, unique_stems
    from igpt_runtime.score import as_table, records, score, summary, surprise_map, table_suffix
    from igpt_runtime.session import open_session
    from igpt_runtime.sheet import save_image

    suffix = "" if output is None else table_suffix(output)
    found = find_pictures(images)
    broken: list[str] = []
    if skip_broken:
        found = readable([name for name in found if name != "-"], broken.append) + ["-"] * ("-" in found)
        for line in broken:
            click.echo(f"skipped: {line}", err=True)
    files = [] if maps is None else [Path(maps) / f"{stem}-surprise.png" for stem in unique_stems(found)]
    check_writable([*([] if output is None else [output]), *map(str, files)], force=force)
    session = open_session(model, device=device)
    nats = []
    with token_progress("scoring", len(found), "images") as progress:
        for i, scored in enumerate(score(session, _pictures(found), crop=not squash, progress=progress)):
            nats.append(scored.nats_per_token)
            if files:
                save_image(surprise_map(session, scored), files[i])
    if output is not None:
        atomic_write(output, as_table(found, nats, suffix))
    rows = records(found, nats)
    record = {**summary(nats), "images": rows, "skipped": broken, "maps": [str(path) for path in files]}
    print_result(_score_text(record), record, as_json)
    if broken:
        sys.exit(3)


def _score_text(record: dict[str, Any]) -> str:
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


@main.command(cls=Command)
@click.option("-n", default=8, show_default=True, help="Number of completions of one half image.")
@click.option("--rounds", default=3, show_default=True, help="Measure this often and report medians.")
@click.option("--threads", type=int, help="Threads inside one operator.  [default: one per physical core]")
@_model
@_json
def bench(n: int, rounds: int, threads: int | None, model: str | None, device: str, as_json: bool) -> None:
    """Time a bundle on this machine, and verify the tokens it draws meanwhile."""
    from dataclasses import asdict

    from igpt_runtime.bench import benchmark
    from igpt_runtime.console import stages
    from igpt_runtime.report import as_text

    with stages("benchmark") as show:
        result = benchmark(model, device=device, threads=threads, n=n, rounds=rounds, show=show)
    print_result(as_text(result), asdict(result), as_json)


@main.command(cls=Command)
@_model
@_json
def info(model: str | None, device: str, as_json: bool) -> None:
    """Describe a bundle."""
    from igpt_runtime.info import describe
    from igpt_runtime.session import open_session

    session = open_session(model, device=device)
    rows, record = describe(session, start=device == "cuda")
    print_result("\n".join(f"{key + ':':12}{value}" for key, value in rows.items()), record, as_json)


@main.command(cls=Command)
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

    from igpt_runtime.bundle import open_bundle
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


def _check_stdout(output: str, as_json: bool) -> None:
    if output == "-" and as_json:
        raise OptionError("--json and -o - would both write to stdout; give -o a path")


def _picture(image: str) -> "Picture":
    if image != "-":
        return image
    if sys.stdin is None:
        raise OptionError("standard input is closed; name a picture file")
    return sys.stdin.buffer


def _pictures(images: Iterable[str]) -> list["Picture"]:
    return [_picture(image) for image in images]


if __name__ == "__main__":
    sys.exit(main())
