"""Commands that read pictures: classify, features and score."""

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from igpt_runtime.bundle.config import PROTOCOLS
from igpt_runtime.commands.options import (
    SOME_BROKEN,
    check_stdout,
    crop_option,
    filled,
    force_option,
    json_option,
    leaving_out,
    model_options,
    parse_layers,
    pictures_of,
    skip_broken_option,
)
from igpt_runtime.console import Command, print_result, token_progress

_LISTED = 20  # scores that are shown one by one


@click.command(cls=Command)
@click.argument("images", nargs=-1, required=True)
@crop_option
@model_options
@json_option
def classify(images: tuple[str, ...], crop: bool, model: str | None, device: str, as_json: bool) -> None:
    """Name what each of IMAGES shows, with probabilities."""
    from igpt_runtime.engine.session import open_session
    from igpt_runtime.tasks.classify import classify

    session = open_session(model, device=device)
    probabilities = classify(session, pictures_of(images), crop=crop)
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


@click.command(cls=Command)
@click.argument("images", nargs=-1, required=True)
@click.option("-o", "--output", required=True, help="File to write: .npz or .parquet; - for .npz on stdout.")
@click.option(
    "--layers",
    default="all",
    show_default=True,
    help="all, or some of 0 .. n_layer, as 9,12,18. What is deeper is not computed.",
)
@click.option("--pool", type=click.Choice(["mean"]), default="mean", show_default=True, help="Over the positions.")
@click.option(
    "--protocol",
    type=click.Choice(list(PROTOCOLS)),
    default="hf",
    show_default=True,
    help="hf: transformers' hidden states; paper: what the paper probes, cut square, behind sos, layer-normed.",
)
@skip_broken_option
@crop_option
@model_options
@force_option
@json_option
def features(
    images: tuple[str, ...], output: str, layers: str, pool: str, protocol: str, skip_broken: bool, crop: bool,
    model: str | None, device: str, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write the pooled states of IMAGES, which may be directories, at some layers.

    An interrupted run leaves OUTPUT.partial, and the same command goes on where it ended.
    """
    from igpt_runtime.engine.session import open_session
    from igpt_runtime.files import check_writable
    from igpt_runtime.pictures.folder import find_pictures
    from igpt_runtime.tasks.feature_files import table_suffix, write_features
    from igpt_runtime.tasks.feature_store import FeatureStore, feature_request, file_identity

    check_stdout(output, as_json)
    table_suffix(output)
    check_writable([output], force=force)
    chosen = parse_layers(layers)
    found = find_pictures(images)
    session = open_session(model, device=device)
    identities = [file_identity(name) for name in found]
    request = feature_request(session, identities, layers=chosen, protocol=protocol, crop=crop)
    broken: list[str] = []
    with contextlib.ExitStack() as stack:
        partial = Path(f"{output}.partial")
        if output == "-":
            partial = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "features"
        store = FeatureStore(partial, request, restart=force)
        with filled(store, session, pictures_of(found), leaving_out(broken) if skip_broken else None):
            names = [found[i] for i in store.indices]
            write_features(output, store.values(), names, request)
        store.remove()
    record = {
        "output": output, "images": len(names), "layers": request["layers"], "n_embd": request["n_embd"],
        "protocol": protocol, "pool": pool, "skipped": broken,
    }  # fmt: skip
    if output != "-":
        print_result(output, record, as_json)
    if broken:
        sys.exit(SOME_BROKEN)


@click.command(cls=Command)
@click.argument("images", nargs=-1, required=True)
@click.option("-o", "--output", help="Table to write, a line a picture: .csv, or .json with the summary.")
@click.option("--map", "maps", metavar="DIR", help="Write a heat map of each picture there, NAME-surprise.png.")
@click.option("--squash", is_flag=True, help="Resize both sides, instead of the short one and cutting the centre.")
@skip_broken_option
@model_options
@force_option
@json_option
def score(
    images: tuple[str, ...], output: str | None, maps: str | None, squash: bool, skip_broken: bool,
    model: str | None, device: str, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Nats a token and bits a pixel of IMAGES, which may be directories, and their mean with its standard error.

    The paper's protocol: minus the log-likelihood of all pixels behind sos, of pictures cut square.
    """
    from igpt_runtime.engine.session import open_session
    from igpt_runtime.files import atomic_write, check_writable
    from igpt_runtime.pictures.folder import find_pictures, unique_stems
    from igpt_runtime.pictures.sheet import save_image
    from igpt_runtime.tasks.score import as_table, records, score, summary, surprise_map, table_suffix

    suffix = "" if output is None else table_suffix(output)
    found = find_pictures(images)
    broken: list[str] = []
    files = [] if maps is None else [Path(maps) / f"{stem}-surprise.png" for stem in unique_stems(found)]
    check_writable([*([] if output is None else [output]), *map(str, files)], force=force)
    session = open_session(model, device=device)
    nats, read, written = [], [], []
    with token_progress("scoring", len(found), "images") as progress:
        leave_out = leaving_out(broken) if skip_broken else None
        for scored in score(session, pictures_of(found), crop=not squash, broken=leave_out, progress=progress):
            nats.append(scored.nats_per_token)
            read.append(found[scored.index])
            if files:
                save_image(surprise_map(session, scored), files[scored.index])
                written.append(str(files[scored.index]))
    if output is not None:
        atomic_write(output, as_table(read, nats, suffix))
    record = {**summary(nats), "images": records(read, nats), "skipped": broken, "maps": written}
    print_result(_score_text(record), record, as_json)
    if broken:
        sys.exit(SOME_BROKEN)


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
